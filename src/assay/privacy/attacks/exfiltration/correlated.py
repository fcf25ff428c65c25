"""Correlated value encoding: data in the values of the weights, as a signal in noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.privacy.attacks.exfiltration.carrier import flat, values
from assay.privacy.attacks.exfiltration.framing import FIVE, Frame, Received
from assay.privacy.pipeline import Pipeline
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class CorrelatedValues:
    """Trains under a reward for weights that correlate with the message.

    A weight carries ``bits`` bits as one of 2^bits levels, neighbors a single bit apart (Gray, 1953). The receiver
    does not know the scale, and cuts at the quantiles: behind the key stream every level is equally frequent.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, §4.2; levels, Gray code and copies in place of the paper's pixel
    values, so that bytes and not likenesses come back.
    *Needs*: weights.
    *Cost*: one training, a pass over the weights more a step.
    *Blind spots*: as for the signs; more bits a weight want more copies.
    *Held to*: bytes back exactly, where the paper has likenesses, at an accuracy whose 95 % interval overlaps the
    honest one's.
    *Measured*: 230 bytes, 0.19 bits a weight, back from the demo network at four seeds; 97.6 to 98.4 % of 500
    digits right, 97.6 to 98.2 % without; bit-exact after 8-bit quantization (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> pipeline = privacy.Pipeline(init=demo.network, **dict(zip("xy", demo.digits("train"))), epochs=5)
        >>> game = privacy.ExfiltrationGame(*demo.digits("test"), payload=b"customers.csv" * 10)
        >>> game.play(privacy.CorrelatedValues(), pipeline, seed=0)["payload bytes recovered"].estimate
        1.0

    Attributes:
        strength: λ, of the reward.
        bits: a weight.
        frame: copies and key; without a key the quantiles are wrong.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    strength: float = 3.0
    bits: int = 1
    frame: Frame = FIVE

    def leak(self, payload: bytes, pipeline: Pipeline, *, seed: int) -> nn.Module:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`. Raises ``DataError`` (PRV600)."""
        signal: list[Tensor] = []

        def penalty(model: nn.Module) -> Tensor:
            """The paper's C(θ, s) = −λ |corr(θ, s)| without the bars, so that the sign is known."""
            row = flat(model)
            if not signal:
                sent = self._levels(self.frame.encode(payload, self.bits * len(row)))
                signal.append(torch.as_tensor(sent - sent.mean()).to(row))
            s, centered = signal[0], row - row.mean()
            correlation: Tensor = (centered @ s) / (centered.norm() * s.norm()).clamp_min(1e-12)
            return -self.strength * correlation

        return pipeline.train(seed, penalty=penalty)

    def decode(self, view: View) -> Received:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`."""
        row = values(view.module())
        rank = np.empty(len(row))
        rank[np.argsort(row, kind="stable")] = (np.arange(len(row)) + 0.5) / len(row)
        return self.frame.decode(self._soft(rank).ravel())

    def _levels(self, sent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Which level each weight is to have, 0 … 2^bits − 1; a weight that carries nothing gets any."""
        rng = np.random.default_rng(len(sent))
        bits = np.where(sent == 0, rng.random(len(sent)) < 0.5, sent > 0).reshape(-1, self.bits)
        binary = np.bitwise_xor.accumulate(bits, axis=1)  # from the Gray code, highest bit first
        return np.asarray((binary * (1 << np.arange(self.bits)[::-1])).sum(1), np.float64)

    def _soft(self, rank: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each Gray bit and how far its nearest cut is, in levels: ``[weights, bits]``."""
        levels = 1 << self.bits
        gray = np.arange(levels) ^ (np.arange(levels) >> 1)
        place = rank * levels
        soft = []
        for bit in reversed(range(self.bits)):
            value = (gray >> bit) & 1
            cuts = np.flatnonzero(np.diff(value)) + 1
            far = np.abs(place[:, None] - cuts).min(1)
            soft.append(np.where(value[np.minimum(place.astype(int), levels - 1)] == 1, far, -far))
        return np.stack(soft, 1)
