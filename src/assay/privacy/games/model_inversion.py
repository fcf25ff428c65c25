"""The face game: what the attack takes a class for is compared with photos that the model never saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, AT_MOST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat
from assay.games import name_of
from assay.numerics.images import psnr
from assay.privacy.trial import evidence
from assay.targets.access import Access
from assay.targets.base import Target
from assay.threats import ThreatModel, View

IDENTIFIED, JUDGE = "classes identified", "photos identified by the judge"
PSNR, GUESSED = "median PSNR", "median PSNR of the mean photo"


@runtime_checkable
class Inverter(Protocol):
    """An attack that says what a class looks like: a frozen dataclass with one verb.

    Attributes:
        needs: the access that it asks for.
    """

    needs: ClassVar[Access]

    def infer(self, view: View, y: Tensor, public: Tensor, rng: torch.Generator) -> Tensor:
        """An input of each of these classes, ``[n, …]``; each class is a point of the view.

        Args:
            y: the classes, int64 ``[n]``.
            public: inputs of other classes ``[m, …]``, which the adversary has.
        """


@dataclass(frozen=True, eq=False)
class ModelInversionGame:
    """Asks for an input of every class, and looks up whose photo it is most like.

    The judge is no network, which an attack could fool as it fools the target: it takes the photo with the largest
    correlation, once the mean of the adversary's own inputs is taken off both. How often it is right about photos
    themselves, each compared with the others, is reported beside it. By chance a class is identified once in as many
    people as there are photos of.

    Attributes:
        x: photos that the target was not trained on, float ``[n, …]``: of its classes, and of others as decoys.
        y: who is on them, int64 ``[n]``; people below the target's number of classes are its classes.
        public: inputs that the adversary has, ``[m, …]``; of other people, where the claim is to be worth anything.
        confidence: one-sided, of every bound.

    Raises:
        DataError: PRV631 where a class has no photo.
    """

    x: Tensor
    y: Tensor
    public: Tensor
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.model-inversion"

    @property
    def threat(self) -> Threat:
        """The most that any attack here sees: gradients."""
        return self._threat(Access.GRADIENTS).describe()

    def play(self, attack: Inverter, target: Target, *, seed: int) -> Evidence:
        """How many classes are identified, at least."""
        started = time.perf_counter()
        classes = torch.arange(target.scores(self.x[:1]).shape[1])
        if missing := sorted({*classes.tolist()} - {*self.y.tolist()}):
            raise DataError("PRV631", f"class {missing[0]} has none")
        threat = self._threat(attack.needs)
        view = threat.grant(target, len(classes))
        seen = attack.infer(view, classes, self.public, torch.Generator().manual_seed(seed)).detach()
        spent = view.meter
        cost = Cost(forwards=int(spent.forwards.sum()), backwards=int(spent.backwards.sum()),
                    queries=int(spent.queries.sum()), seconds=time.perf_counter() - started)
        return evidence(
            game=self.name, method=attack, target=target, threat=threat.describe(), seed=seed,
            bounds=self._bounds(seen, classes, target.bounds.width, name_of(attack)),
            settings=(len(self.x), self.confidence), cost=cost,
            artefacts={"seen": Artefact({"x": seen.cpu().numpy()})},
        )

    def prove(self, proof: Any, target: Target, *, seed: int) -> Evidence:
        """No proof is known. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about model inversion")

    def identify(self, seen: Tensor) -> Tensor:
        """Whom each of these inputs ``[n, …]`` is most like: int64 ``[n]``."""
        return self.y[self._alike(seen).argmax(1)]

    def _alike(self, seen: Tensor) -> Tensor:
        mean = self.public.flatten(1).mean(0)
        return F.normalize(seen.flatten(1) - mean) @ F.normalize(self.x.flatten(1) - mean).T

    def _threat(self, access: Access) -> ThreatModel:
        return ThreatModel(goal="see what a class looks like", access=access,
                           budget=f"{len(self.public)} public inputs", knows=frozenset({"classes"}))

    def _bounds(self, seen: Tensor, classes: Tensor, peak: float, method: str) -> Sequence[Bound]:
        found = int((self.identify(seen) == classes).sum())
        alike = self._alike(self.x).fill_diagonal_(-torch.inf)
        right = int((self.y[alike.argmax(1)] == self.y).sum())
        typical = torch.stack([self.x[self.y == who].mean(0) for who in classes])
        mean = self.public.mean(0).expand_as(typical)
        medians = [(PSNR, (AT_LEAST,), psnr(seen, typical, peak)), (GUESSED, (AT_LEAST, AT_MOST),
                                                                    psnr(mean, typical, peak))]
        return [
            Bound.of_count(IDENTIFIED, AT_LEAST, found, len(classes), method=method, confidence=self.confidence),
            *(Bound.of_count(JUDGE, side, right, len(self.y), method="evaluation", confidence=self.confidence)
              for side in (AT_LEAST, AT_MOST)),
            *(Bound.of_median(name, side, values.tolist(), method=method, confidence=self.confidence)
              for name, sides, values in medians for side in sides),
        ]
