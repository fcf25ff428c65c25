"""The referee: whether an input gives the adversary what it wants, on a fresh evaluation of the target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from assay.evasion.threat import TARGETED
from assay.numerics.intervals import clopper_pearson_lower
from assay.targets.base import Target, refuses

SURE = 0.95
"""The confidence with which the referee has to know that an input errs more often than not."""

_MORE = 10
"""How many times the first looks a closer look takes."""


@dataclass(frozen=True, eq=False)
class Referee:
    """Who decides; an attack is never trusted to grade itself.

    Attributes:
        target: the real one, whatever the attack saw.
        goal: what the adversary wants of the labels that it was given.
        draws: first looks at each input; 1 where the target's answers do not vary.
    """

    target: Target
    goal: str
    draws: int = 1

    def judge(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the adversary has what it wants, bool ``[rows]``, and the prediction that says so.

        Of a target whose answers vary, success is a probability: it counts where the first looks show with
        :data:`SURE` confidence that it is above one half; of inputs that do better than even but not so clearly,
        ten times as many looks decide. One look would make the verdict a matter of luck.
        """
        won, predicted = self._look(z, y)
        if self.draws == 1:
            return won > 0, predicted
        for _ in range(self.draws - 1):
            again, label = self._look(z, y)
            won, predicted = won + again, torch.where(again > 0, label, predicted)
        sure = won >= enough(self.draws)
        close = (~sure & (won * 2 > self.draws)).nonzero()[:, 0]
        for _ in range(_MORE * self.draws if len(close) else 0):
            again, label = self._look(z[close], y[close])
            won[close] += again
            predicted[close] = torch.where(again > 0, label, predicted[close])
        sure[close] = won[close] >= enough((_MORE + 1) * self.draws)
        return sure, predicted

    def right(self, x: Tensor, y: Tensor) -> Tensor:
        """Whether clean inputs are as the defender wants them in at least half the looks: bool ``[rows]``.

        A clean input that is refused is an error.
        """
        good = torch.zeros_like(y)
        for _ in range(self.draws):
            hit = self.target.labels(x) == y
            good = good + (~hit if self.goal == TARGETED else hit)
        return good * 2 >= self.draws

    def _look(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One look: 1 where it gives what the adversary wants, and what it gives; a refusal never does."""
        predicted = self.target.labels(z)
        if self.goal == TARGETED:
            return (predicted == y).to(torch.int64), predicted
        won = predicted != y
        if refuses(self.target):
            won = won & (predicted != self.target.classes)
        return won.to(torch.int64), predicted


@cache
def enough(looks: int) -> int:
    """The least number of successes in so many looks whose chance is above one half, by an exact test."""
    return next(k for k in range(looks + 1) if k == looks or clopper_pearson_lower(k, looks, SURE) > 0.5)
