"""The profile game: which of two mixtures was a model trained on?"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data import Dataset
from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat
from assay.games import Subject, name_of
from assay.numerics.ensembles import Plan, Recipe
from assay.numerics.stacks import unstackable, unstacked
from assay.privacy.attacks.property_inference import Suspects, Values
from assay.privacy.trial import evidence
from assay.targets.access import Access
from assay.targets.base import Target
from assay.targets.procedure import Training
from assay.threats import ThreatModel, View

RIGHT = "training mixtures told apart"


@runtime_checkable
class Profiler(Protocol):
    """An attack on a property of the training data: a frozen dataclass with one verb.

    Attributes:
        needs: the access that it asks for.
    """

    needs: ClassVar[Access]

    def infer(self, suspects: Suspects) -> Values:
        """For each target, how likely its data had the property: float64 ``[targets]``, above 0 for yes."""


@dataclass(frozen=True, eq=False)
class PropertyGame:
    """Trains targets on one of two mixtures, by a coin each, and asks which it was.

    The pool is cut in two: the game draws the targets' data from one half, the adversary its shadow models' from the
    other. Every training set has ``size`` examples, of which a share has the property; its labels' balance is what the
    draw makes it. By chance half of the targets are told right. In a small pool the halves differ by chance in more
    than the property, which hurts the attack.

    Attributes:
        holds: whether each example of the pool has the property, bool ``[pool]``.
        shares: of examples that have it, without and with.
        size: of every training set.
        shadows, targets: how many models.
        confidence: one-sided, of the bound.

    Raises:
        DataError: PRV650 where half of the pool is too small for such training sets.
    """

    subject: ClassVar[Subject] = "procedure"

    holds: NDArray[np.bool_]
    shares: tuple[float, float] = (0.2, 0.5)
    size: int = 1000
    shadows: int = 100
    targets: int = 100
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.property-inference"

    @property
    def threat(self) -> Threat:
        """The most that any attack here sees: weights."""
        return self._threat(Access.WEIGHTS).describe()

    def play(self, attack: Profiler, target: Training, *, seed: int) -> Evidence:
        """How many of the targets are told right, at least."""
        started = time.perf_counter()
        rng = np.random.default_rng(seed)
        half = rng.permutation(len(target)) < len(target) // 2
        coins = rng.random(self.targets) < 0.5
        own = np.arange(self.shadows) % 2 == 1
        threat = self._threat(attack.needs)
        victims = [threat.grant(model, 1) for model in self._models(target, half, coins, rng)]
        mine = [self._threat(Access.WEIGHTS).grant(model, 1) for model in self._models(target, ~half, own, rng)]
        asked = self._asked(target, ~half, rng, victims[0])
        said = attack.infer(Suspects(mine, own, victims, asked)) > 0
        right = int((said == coins).sum())
        queries = sum(int(view.meter.queries.sum()) for view in victims)
        cost = Cost(queries=queries, seconds=time.perf_counter() - started)
        bound = Bound.of_count(RIGHT, AT_LEAST, right, self.targets, method=name_of(attack),
                               confidence=self.confidence)
        return evidence(
            game=self.name, method=attack, target=target, threat=threat.describe(), seed=seed, bounds=[bound],
            settings=(self.shares, self.size, self.shadows, self.targets, self.confidence), cost=cost,
            artefacts={"said": Artefact({"said": said, "coins": coins})},
        )

    def prove(self, proof: Any, target: Training, *, seed: int) -> Evidence:
        """No proof is known: privacy of examples says nothing of shares. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about the training data as a whole")

    def _threat(self, access: Access) -> ThreatModel:
        low, high = self.shares
        return ThreatModel(goal=f"tell training data with a share of {low:g} from data with {high:g}", access=access,
                           budget=f"{self.shadows} shadow models", knows=frozenset({"training"}))

    def _models(
        self, training: Training, half: NDArray[np.bool_], having: NDArray[np.bool_], rng: np.random.Generator
    ) -> list[Target]:
        """A model for each coin, trained on a fresh draw from this half of the pool."""
        keep = np.stack([self._draw(half, self.shares[int(has)], rng) for has in having])
        seeds = [int(s) for s in rng.integers(2**31, size=len(keep))]
        if not isinstance(training.fit, Recipe):
            return [training.train(training.part(row), seed) for row, seed in zip(keep, seeds)]
        x, y = torch.as_tensor(training.data.x), torch.as_tensor(training.data.y)
        # not by timing: the bytes would depend on the machine's load
        plan = Plan("loop", 1) if unstackable(training.fit.fresh(0)) else Plan("stacked", 16)
        state = training.fit.many(x, y, keep, seeds, plan)
        return [training.wrapped(unstacked(training.fit.init, state, at)) for at in range(len(keep))]

    def _draw(self, half: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        wanted = round(share * self.size)
        keep = np.zeros(len(half), dtype=bool)
        for pool, count in ((half & self.holds, wanted), (half & ~self.holds, self.size - wanted)):
            if pool.sum() < count:
                raise DataError("PRV650", f"{count} examples wanted, {int(pool.sum())} there")
            keep[rng.choice(np.flatnonzero(pool), count, replace=False)] = True
        return keep

    def _asked(self, training: Training, half: NDArray[np.bool_], rng: np.random.Generator, view: View) -> torch.Tensor:
        """The adversary's half of the pool, shuffled."""
        order = rng.permutation(np.flatnonzero(half))
        data: Dataset = replace(training.data, x=training.data.x[order], y=training.data.y[order])
        return torch.as_tensor(data.x)
