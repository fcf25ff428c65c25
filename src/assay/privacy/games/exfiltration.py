"""The malicious trainer's game: a payload goes into a model, and the referee compares the bytes that come out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, AT_MOST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat, content_hash
from assay.games import name_of
from assay.privacy.attacks.exfiltration.framing import Received
from assay.privacy.pipeline import Pipeline
from assay.privacy.rates import Rate
from assay.privacy.trial import evidence
from assay.targets.access import Access
from assay.targets.base import Protector, Target
from assay.targets.pytorch import torch_target
from assay.threats import ThreatModel, View

RECOVERED = "payload bytes recovered"
CAPACITY = "bits of payload per weight"
HONEST, LEAKING = "accuracy without the payload", "accuracy with the payload"
UNCHANGED = "predictions unchanged"


@runtime_checkable
class Exfiltrator(Protocol):
    """A malicious trainer and the accomplice who reads what it hid.

    Attributes:
        needs: what the accomplice sees of the published model.
    """

    needs: ClassVar[Access]

    def leak(self, payload: bytes, pipeline: Pipeline, *, seed: int) -> nn.Module:
        """A model trained by the pipeline, as far as anyone can tell, with the payload in it."""

    def decode(self, view: View) -> Received:
        """The payload, from no more than ``needs`` of the model."""


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What a payload costs: how often a model is right without it and with it, and how often the two agree."""

    honest: Rate
    leaking: Rate
    agree: Rate

    @property
    def overlap(self) -> bool:
        """Whether the two accuracies' intervals overlap."""
        return self.honest.lower <= self.leaking.upper and self.leaking.lower <= self.honest.upper


@dataclass(frozen=True, eq=False)
class ExfiltrationGame:
    """Trains a model honestly and one with the payload, hands the second to the accomplice, and compares bytes.

    Whatever is to stop the leak goes around the published model first, and both models' accuracy is that of what is
    published. Bytes that are right by chance count: 1 in 256.

    Attributes:
        x: test inputs, float ``[n, …]``.
        y: their labels, int64 ``[n]``.
        payload: what the trainer wants out.
        defenses: around the published model, the first innermost.
        confidence: one-sided, of every bound.

    Raises:
        DataError: PRV601 without a payload.
    """

    x: Tensor
    y: Tensor
    payload: bytes
    defenses: tuple[Protector, ...] = ()
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.exfiltration"

    def __post_init__(self) -> None:
        if not self.payload:
            raise DataError("PRV601", "the payload is empty")

    @property
    def threat(self) -> Threat:
        """The most that any accomplice sees: the weights."""
        return self._threat(Access.WEIGHTS).describe()

    def play(self, attack: Exfiltrator, target: Pipeline, *, seed: int) -> Evidence:
        """Whether the payload comes back, and at what price.

        Args:
            attack: sender and receiver.
            target: the training that the malicious trainer was to follow.
            seed: of both trainings.
        """
        started = time.perf_counter()
        honest = self._published(target.train(seed), target)
        model = attack.leak(self.payload, target, seed=seed)
        leaking = self._published(model, target)
        threat = self._threat(attack.needs)
        view = threat.grant(leaking, 1)
        received = attack.decode(view)
        cost = Cost(queries=int(view.meter.queries.sum()), forwards=int(view.meter.forwards.sum()),
                    seconds=time.perf_counter() - started)
        trade = self._trade(honest, leaking)
        weights = sum(p.numel() for p in model.parameters())
        provenance = {"weights": leaking.fingerprint().get("model", ""), "payload": content_hash(self.payload.hex())}
        read = np.frombuffer(received.payload, np.uint8)
        return evidence(
            game=self.name, method=attack, target=target, threat=threat.describe(), seed=seed,
            bounds=self._bounds(received, trade, weights, name_of(attack)),
            settings=(self.payload.hex(), tuple(name_of(d) for d in self.defenses), self.confidence),
            cost=cost, artefacts={"received": Artefact({"bytes": read})}, provenance=provenance,
        )

    def prove(self, proof: Any, target: Pipeline, *, seed: int) -> Evidence:
        """No proof bounds what a trainer can hide. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about a malicious trainer")

    def _threat(self, access: Access) -> ThreatModel:
        around = "".join(f", then {name_of(d)}" for d in self.defenses)
        return ThreatModel(goal="read a hidden payload out of the published model", access=access,
                           budget=f"{len(self.payload)} bytes{around}", knows=frozenset({"key"}))

    def _published(self, model: nn.Module, pipeline: Pipeline) -> Target:
        target: Target = torch_target(model, bounds=pipeline.bounds, name=pipeline.name)
        for defense in self.defenses:
            target = defense.protect(target)
        return target

    def _trade(self, honest: Target, leaking: Target) -> Trade:
        before, after = honest.labels(self.x), leaking.labels(self.x)
        counts = (before == self.y, after == self.y, before == after)
        return Trade(**{name: Rate(successes=int(hit.sum()), n=len(self.y))
                        for name, hit in zip(("honest", "leaking", "agree"), counts)})

    def _bounds(self, received: Received, trade: Trade, weights: int, method: str) -> Sequence[Bound]:
        same = matching(self.payload, received.payload)
        rate = 8 * len(self.payload) / weights if same == len(self.payload) else 0.0
        both = [Bound.of_count(name, side, r.successes, r.n, method="evaluation", confidence=self.confidence)
                for name, r in ((HONEST, trade.honest), (LEAKING, trade.leaking), (UNCHANGED, trade.agree))
                for side in (AT_LEAST, AT_MOST)]
        return (
            Bound.of_count(RECOVERED, AT_LEAST, same, len(self.payload), method=method, confidence=self.confidence),
            Bound(quantity=CAPACITY, side=AT_LEAST, estimate=rate, value=rate, confidence=self.confidence, n=weights,
                  method=method),
            *both,
        )


def matching(payload: bytes, read: bytes) -> int:
    """How many bytes are right, in their places."""
    return sum(a == b for a, b in zip(payload, read))

