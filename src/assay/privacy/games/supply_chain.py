"""The buyer's game: weights from somebody else, their format, and what a scan sees in them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Threat
from assay.games import name_of
from assay.privacy.defenses.weight_scan import Scan, WeightScan
from assay.privacy.trial import evidence
from assay.targets.base import WhiteBox

READABLE = "bytes readable in the weights"


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
        return Threat(goal="hide data in the weights", access="weights", budget="any weights", knows=("training",))

    def play(self, attack: WeightScan, target: WhiteBox, *, seed: int) -> Evidence:
        """What the scan sees; ``seed`` changes nothing."""
        started = time.perf_counter()
        scan = attack.scan(target.module())
        wrapper = file_format(self.file) if self.file else "in memory"
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


def file_format(path: Path) -> str:
    """What the file is by its first bytes, not by its name: ``"safetensors"``, ``"pickle …"`` or ``"unknown"``."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04":
        return "pickle in a zip (torch.save)"
    if head[:1] == b"\x80":
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    return "unknown"


def _artefacts(scan: Scan) -> dict[str, Artefact]:
    longest = max(scan.sightings, key=lambda s: len(s.text), default=None)
    text = longest.text if longest else b""
    return {"scan": Artefact({"ones": np.asarray(scan.ones), "entropy": np.asarray([scan.entropy]),
                              "text": np.frombuffer(text, np.uint8)})}
