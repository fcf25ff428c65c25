"""What can be seen of data hidden in the weights of a model that one was given, and what cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom, chi2
from torch import nn

from assay.evidence.record import Doubt
from assay.targets.access import Access

SIGNATURES: dict[str, bytes] = {
    "PNG": b"\x89PNG\r\n\x1a\n", "PDF": b"%PDF-1.", "ZIP": b"PK\x03\x04\x14\x00", "bzip2": b"BZh91AY",
    "xz": b"\xfd7zXZ\x00", "7-Zip": b"7z\xbc\xaf'\x1c", "ELF": b"\x7fELF\x02\x01\x01", "SQLite": b"SQLite format 3\x00",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF", "GIF": b"GIF89a", "PEM": b"-----BEGIN ",
}
"""How files begin, by what they are."""

_PRINTABLE = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_TEXT = rb"[\t\n\r\x20-\x7e]{%d,}"
_MOST = 0.6
"""The largest share of printable bytes that is taken for noise: a stream of nothing but text is no noise."""
_COARSE = 0.1
"""Weights of which fewer are distinct were quantized: their low bits repeat, and so does whatever they spell."""
_DEPTHS = (*range(1, 9), 12, 16)
"""How many low bits of each weight are read together."""
_EXCUSED = 0.01
"""Bits of entropy that a byte may lack: a small weight that is a difference of large ones ends in zeros, and one
published network of 166,000 weights lacks 0.0008 for it, 3e10 to one against chance."""
_HALF = 1 << 13
"""A float32 that came from float16 has its lowest 13 bits clear; one from bfloat16 has 16."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """Readable bytes in the low bits: where, and what they say.

    Attributes:
        bits: how many low bits of each weight were read.
        start: byte of that stream.
        text: the bytes.
        kind: ``"text"``, or what the file is.
    """

    bits: int
    start: int
    text: bytes
    kind: str


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan saw.

    Attributes:
        weights: how many were looked at; of these ``exact`` lie on the grid of float16.
        ones: the share of ones in each of the eight lowest bits, off that grid.
        entropy: of the lowest byte, in bits, off that grid.
        sightings: readable text and files.
        findings: what is out of order, each with a code that ``assay explain`` knows.
    """

    weights: int
    exact: int
    ones: tuple[float, ...]
    entropy: float
    sightings: tuple[Sighting, ...]
    findings: tuple[Doubt, ...]

    @property
    def readable(self) -> int:
        """Bytes of text found, those of the longest reading."""
        return max((len(s.text) for s in self.sightings), default=0)


@dataclass(frozen=True, kw_only=True)
class WeightScan:
    """Looks for data in float32 weights: text and files in the low bits, bits that are not noise, a gap around zero.

    The low bits of trained weights are uniform: so are those of anything encrypted or compressed. A clean scan
    therefore says that nothing *readable* is hidden, never that nothing is. What was published at 16 bits has no low
    bits to hide in, and every weight off that grid is a finding.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, on countermeasures; Westfeld & Pfitzmann, IH 1999, for
    the χ² test of low bits.
    *Needs*: weights.
    *Cost*: 320 readings of the low bits, at most 16 a weight.
    *Blind spots*: encrypted or compressed payloads in the low bits of float32 weights, signs trained without a
    margin, correlated values and memorized labels; weights of other types, of which only the gap is looked for;
    quantized weights, of which only the entropy is. Untrained weights have few random bits and are no noise either.
    *Held to*: every test has a chance below 1e-6 to call noise a finding.
    *Measured*: no finding in ten published networks and three of the demo's; text in the lowest 1 to 16 bits, files
    by their first bytes, 1,000 zeros and 1 % of weights off a 16-bit grid are seen, the same text under a key is not
    (`tests/privacy/test_weight_scan.py`).

    Example:
        >>> from assay import demo, privacy
        >>> net = demo.target()
        >>> privacy.WeightScan().scan(net.model).findings
        ()
        >>> plain = privacy.LowBits(frame=privacy.Frame(key=None))
        >>> plain.hide(b"name;card number;expires;... " * 20, net.model)
        >>> [finding.code for finding in privacy.WeightScan().scan(net.model).findings]
        ['PRV610', 'PRV612']

    Attributes:
        chance: of a false finding, for each test.
        published: ``"float16"`` or ``"bfloat16"`` where the weights are said to come from there; else the scan
            concludes it where at least half of them lie on such a grid.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    chance: float = 1e-6
    published: str = ""

    def scan(self, model: nn.Module) -> Scan:
        """Looks at every floating parameter; nothing is changed."""
        rows = [p.detach().cpu().contiguous().flatten() for p in model.parameters() if p.is_floating_point()]
        single = [row for row in rows if row.dtype == torch.float32]
        words = np.concatenate([row.view(torch.int32).numpy().view(np.uint32) for row in single] or [np.zeros(0, "u4")])
        live = words[words & 0x7FFFFFFF != 0]
        grid = _HALF if self.published != "bfloat16" else 1 << 16
        exact = int((live % grid == 0).sum())
        noise = live[live % grid != 0]
        low = np.bincount(np.unique(noise) & 0xFF, minlength=256)  # weights that are tied or repeated count once
        coarse = len(np.unique(live)) < _COARSE * len(live)
        sightings = () if coarse else tuple(self._sightings(words))
        return Scan(
            weights=sum(len(row) for row in rows), exact=exact, ones=_ones(low), entropy=_entropy(low),
            sightings=sightings,
            findings=tuple(self._findings(sightings, low, exact, len(live), [] if coarse else rows)),
        )

    def _findings(
        self, sightings: tuple[Sighting, ...], low: NDArray[np.int64], exact: int, live: int, rows: list[torch.Tensor]
    ) -> Iterator[Doubt]:
        texts = [s for s in sightings if s.kind == "text"]
        if texts:
            longest = max(texts, key=lambda s: len(s.text))
            yield Doubt("PRV610", f"{len(longest.text)} readable bytes in the lowest {longest.bits} bits of the "
                                  f"weights, from {longest.text[:24].decode('ascii')!r}")
        for kind in sorted({s.kind for s in sightings} - {"text"}):
            bits = next(s.bits for s in sightings if s.kind == kind)
            yield Doubt("PRV611", f"the lowest {bits} bits of the weights hold what begins like a {kind} file")
        mostly = exact >= live / 2 if not self.published else True
        if live and mostly and exact < live:
            yield Doubt("PRV613", f"{live - exact:,} of {live:,} weights lie off the 16-bit grid of the others")
        elif (p := _uniform(low)) < self.chance and _deficit(low) > _EXCUSED:
            yield Doubt("PRV612", f"the lowest byte of {int(low.sum()):,} weights has {_entropy(low):.3f} of 8 bits of "
                                  f"entropy (χ² test: p = {p:.1g})")
        if gap := _gap(rows, self.chance):
            yield Doubt("PRV614", f"{gap[0]:,} weights lie within {gap[2]:.2g} standard deviations of zero, and "
                                  f"{gap[1]:,} in the next stretch of the same length")

    def _sightings(self, words: NDArray[np.uint32]) -> Iterator[Sighting]:
        """Text and signatures in every reading of the low bits that is too long to be chance."""
        total = sum(32 * len(words) * bits // 8 for bits in _DEPTHS)
        if not total:
            return
        for bits, stream in ((depth, stream) for depth in _DEPTHS for stream in _readings(words, depth)):
            share = 1 - len(stream.translate(None, _PRINTABLE)) / max(len(stream), 1)
            likely = min(max(share, len(_PRINTABLE) / 256), _MOST)
            shortest = math.ceil(math.log(self.chance / total) / math.log(likely))
            for match in re.finditer(_TEXT % shortest, stream):
                if len(set(match[0])) > 1:
                    yield Sighting(bits=bits, start=match.start(), text=match[0], kind="text")
            for kind, signature in SIGNATURES.items():
                if total * 256.0 ** -len(signature) < self.chance and (at := stream.find(signature)) >= 0:
                    yield Sighting(bits=bits, start=at, text=signature, kind=kind)


def _readings(words: NDArray[np.uint32], bits: int) -> Iterator[bytes]:
    """The ``bits`` lowest bits of every word as bytes: either end first, either end of the byte, at every offset."""
    places = np.arange(bits, dtype=np.uint32)
    up = ((words[:, None] >> places) & 1).astype(np.uint8)
    for plane in (up, up[:, ::-1])[: 2 if bits > 1 else 1]:
        row = plane.ravel()
        for offset in range(8):
            for order in ("big", "little"):
                yield np.packbits(row[offset:], bitorder=order).tobytes()


def _ones(low: NDArray[np.int64]) -> tuple[float, ...]:
    total = max(int(low.sum()), 1)
    return tuple(float(low[(np.arange(256) >> bit) & 1 == 1].sum() / total) for bit in range(8))


def _entropy(low: NDArray[np.int64]) -> float:
    share = low[low > 0] / max(int(low.sum()), 1)
    return float(-(share * np.log2(share)).sum()) if len(share) else 0.0


def _deficit(low: NDArray[np.int64]) -> float:
    """Entropy that the byte lacks, beyond what so few of them lack by chance (Miller, 1955)."""
    return 8 - _entropy(low) - 255 / (2 * math.log(2) * max(int(low.sum()), 1))


def _uniform(low: NDArray[np.int64]) -> float:
    """The p-value of Pearson's χ² test that the low byte is uniform; 1 where there are too few for it."""
    expected = low.sum() / 256
    return float(chi2.sf(((low - expected) ** 2 / expected).sum(), 255)) if expected >= 5 else 1.0


def _gap(rows: list[torch.Tensor], chance: float) -> tuple[int, int, float] | None:
    """Whether weights shun zero: fewer within a width of it than in the next stretch of that width.

    Of one density that does not rise away from zero, each of the two counts has at least an even chance to be the
    inner one's. Each tensor is measured by its own standard deviation.
    """
    scaled = [(row.double().abs() / row.double().std(correction=0)).numpy() for row in rows
              if len(row) > 1 and float(row.double().std(correction=0)) > 0]
    if not scaled:
        return None
    away = np.concatenate(scaled)
    widths = (0.05, 0.1, 0.2, 0.4)
    for width in widths:
        inner, outer = int((away < width).sum()), int(((away >= width) & (away < 2 * width)).sum())
        if binom.cdf(inner, inner + outer, 0.5) < chance / len(widths):
            return inner, outer, width
    return None
