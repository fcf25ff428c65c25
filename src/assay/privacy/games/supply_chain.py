"""The buyer's game: weights from somebody else, their format, and what a scan sees in them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.data import Dataset
from assay.errors import DataError, TargetError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Threat
from assay.games import Memory, Progress, Replay, Settings, Words, name_of
from assay.privacy.attacks.weight_scan import Scan, WeightScan
from assay.privacy.trial import evidence, one_by_one
from assay.targets.base import WhiteBox
from assay.targets.weights import file_format

READABLE = "bytes readable in the weights"
ANYTHING = "any weights"


@dataclass(frozen=True, kw_only=True)
class SupplyChainGame:
    """Scans weights that somebody else trained, and says in what format they came.

    Attributes:
        file: the file they came in; ``None`` where they are at hand already.
        confidence: of the bound, which is a plain fact about this file.
    """

    file: Path | None = None
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.supply-chain"

    @property
    def threat(self) -> Threat:
        """A trainer who hides data in the weights."""
        return Threat(goal="hide data in the weights", access="weights", budget=ANYTHING, knows=("training",))

    @classmethod
    def planned(cls, data: Dataset, words: Words, settings: Settings) -> SupplyChainGame:
        """The game that a plan describes, whatever its data."""
        return cls(confidence=settings.confidence)

    @staticmethod
    def budget_named(text: str) -> str:
        """Nothing limits what a trainer may do to weights."""
        return ANYTHING

    def rounds(
        self, attacks: Sequence[WeightScan], proofs: Sequence[Any], target: Any, *, seed: int,
        memory: Memory | None = None,
    ) -> Iterator[Progress | Evidence]:
        """Every scan by itself."""
        yield from one_by_one(self, attacks, proofs, target, seed=seed)

    def replay(self, found: Evidence, target: WhiteBox) -> Replay:
        """Whether a fresh scan says what the evidence says. Its settings are the evidence's where they are default."""
        if "scan" not in found.artefacts or found.attack != name_of(WeightScan()):
            return Replay(0, 0, "the scan had other settings than the default")
        fresh = _artefacts(WeightScan().scan(target.module()))["scan"]
        return Replay(int(fresh.sha256 == found.artefacts["scan"].sha256), 1)

    def play(self, attack: WeightScan, target: WhiteBox, *, seed: int) -> Evidence:
        """What the scan sees; ``seed`` changes nothing. Raises ``TargetError`` (TGT150) where there are no weights."""
        if not isinstance(target, WhiteBox):
            raise TargetError("TGT150", f"{getattr(target, 'name', target)} is no network")
        started = time.perf_counter()
        scan = attack.scan(target.module())
        wrapper = file_format(self.file) if self.file else target.fingerprint().get("format", "in memory")
        findings = list(scan.findings)
        if wrapper.startswith("pickle"):
            findings.append(Doubt("PRV615", f"the weights came as {wrapper}"))
        provenance = {
            "weights": target.fingerprint().get("model", ""), "format": wrapper,
            "parameters": f"{scan.weights:,} weights, {scan.exact:,} of them on a 16-bit grid",
            **({"file": hashlib.sha256(self.file.read_bytes()).hexdigest()} if self.file else {}),
        }
        found = Bound(quantity=READABLE, side=AT_LEAST, estimate=float(scan.readable), value=float(scan.readable),
                      confidence=self.confidence, n=scan.weights, method=name_of(attack))
        return evidence(
            game=self.name, method=attack, target=target, threat=self.threat, seed=seed, bounds=[found],
            cost=Cost(seconds=time.perf_counter() - started), doubts=findings, artefacts=_artefacts(scan),
            provenance=provenance,
        )

    def prove(self, proof: Any, target: WhiteBox, *, seed: int) -> Evidence:
        """Nothing proves weights clean. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about weights from elsewhere")


def _artefacts(scan: Scan) -> dict[str, Artefact]:
    longest = max(scan.sightings, key=lambda s: len(s.text), default=None)
    text = longest.text if longest else b""
    return {"scan": Artefact({"ones": np.asarray(scan.ones), "entropy": np.asarray([scan.entropy]),
                              "text": np.frombuffer(text, np.uint8)})}
