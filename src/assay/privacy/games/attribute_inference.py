"""The hidden-field game: what the model adds to what could be guessed about anybody."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, AT_MOST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat
from assay.games import name_of
from assay.numerics.intervals import clopper_pearson_lower, clopper_pearson_upper
from assay.privacy.attacks.attribute_inference import Attribute, Dossier, Imputer
from assay.privacy.trial import evidence
from assay.targets.access import Access
from assay.targets.base import Target
from assay.threats import ThreatModel, View

FOUND, IMPUTED = "attributes inferred", "attributes imputed without the model"
ADVANTAGE, WON = "advantage over imputation", "disagreements with imputation won"


@runtime_checkable
class Guesser(Protocol):
    """An attack on a hidden field: a frozen dataclass with one verb.

    Attributes:
        needs: the access that it asks for.
    """

    needs: ClassVar[Access]

    def infer(self, view: View, dossier: Dossier, rng: torch.Generator) -> Tensor:
        """Which value each record has: int64 ``[n]``; each record is a point of the view."""


@dataclass(frozen=True, eq=False)
class AttributeGame:
    """Hides one field of each record, and compares what the attack makes of it with what an imputer makes of it.

    Most of what attribute inference finds is true of people of the kind, and would be found without the model
    (Jayaraman & Evans, CCS 2022). What counts is the difference on the same records: McNemar's exact test of the
    records on which exactly one of the two is right, and a bound on how many records more the attack gets.

    Attributes:
        x: the records, float ``[n, d]``, with the field in them; the attack never sees it.
        y: their labels, int64 ``[n]``.
        attribute: the field.
        known: other records of the same kind and their labels, field included: what the adversary imputes from.
        confidence: one-sided, of every bound.

    Raises:
        DataError: PRV641 where the adversary has no records to impute from.
    """

    x: Tensor
    y: Tensor
    attribute: Attribute
    known: tuple[Tensor, Tensor]
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.attribute-inference"

    def __post_init__(self) -> None:
        if len(self.known[0]) < 50:
            raise DataError("PRV641", f"{len(self.known[0])} records")

    @property
    def threat(self) -> Threat:
        """The most that any attack here sees: scores."""
        return self._threat(Access.SCORES).describe()

    @cached_property
    def dossier(self) -> Dossier:
        """What the adversary knows."""
        return Dossier(self.attribute.written(self.x, 0), self.y, self.attribute,
                       Imputer(*self.known, self.attribute))

    def play(self, attack: Guesser, target: Target, *, seed: int) -> Evidence:
        """How many fields are found, and how many more than by imputation."""
        started = time.perf_counter()
        truth, threat = self.attribute.read(self.x), self._threat(attack.needs)
        view = threat.grant(target, len(self.x))
        said = attack.infer(view, self.dossier, torch.Generator().manual_seed(seed)).cpu()
        imputed = torch.as_tensor(self.dossier.imputer.predict(self.dossier.x, self.y).argmax(1))
        cost = Cost(queries=int(view.meter.queries.sum()), forwards=int(view.meter.forwards.sum()),
                    seconds=time.perf_counter() - started)
        return evidence(
            game=self.name, method=attack, target=target, threat=threat.describe(), seed=seed,
            bounds=self._bounds(said == truth.cpu(), imputed == truth.cpu(), name_of(attack)),
            settings=(repr(self.attribute), len(self.x), len(self.known[0]), self.confidence), cost=cost,
            artefacts={"said": Artefact({"attack": said.numpy(), "imputed": imputed.numpy(),
                                         "truth": truth.cpu().numpy()})},
        )

    def prove(self, proof: Any, target: Target, *, seed: int) -> Evidence:
        """No proof is known. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about hidden fields")

    def _threat(self, access: Access) -> ThreatModel:
        return ThreatModel(goal="learn a hidden field of known records", access=access,
                           budget=f"{len(self.known[0])} records of the same kind", knows=frozenset({"labels"}))

    def _bounds(self, right: Tensor, imputed: Tensor, method: str) -> Sequence[Bound]:
        n, confidence = len(right), self.confidence
        won, lost = int((right & ~imputed).sum()), int((imputed & ~right).sum())
        return [
            Bound.of_count(FOUND, AT_LEAST, int(right.sum()), n, method=method, confidence=confidence),
            *(Bound.of_count(IMPUTED, side, int(imputed.sum()), n, method="boosted trees", confidence=confidence)
              for side in (AT_LEAST, AT_MOST)),
            Bound(quantity=ADVANTAGE, side=AT_LEAST, estimate=(won - lost) / n,
                  value=paired_lower(won, lost, n, confidence), confidence=confidence, n=n, method=method),
            Bound.of_count(WON, AT_LEAST, won, won + lost, method=method, confidence=confidence),
        ]


def paired_lower(won: int, lost: int, n: int, confidence: float) -> float:
    """A lower bound on P(won) − P(lost), from counts of the same n records: each side at half the error."""
    half = (1 + confidence) / 2
    return clopper_pearson_lower(won, n, half) - clopper_pearson_upper(lost, n, half)
