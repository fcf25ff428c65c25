"""What searches for the smallest perturbation share: their rows, what they have found, and where a search ends."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import succeeded
from assay.evasion.threat import Ball
from assay.numerics.balls import distance
from assay.numerics.closest import Closest
from assay.threats import View


@dataclass(frozen=True, eq=False)
class Rows:
    """The live rows of a search; all ``[rows, …]``, and so is whatever an attack adds.

    Attributes:
        at: the point of each row.
        x0, y: its original and its label.
        z: where the row is.
    """

    at: Tensor
    x0: Tensor
    y: Tensor
    z: Tensor

    def keep(self, rows: Tensor) -> Self:
        """The rows of an index or under a mask."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True, eq=False)
class Search:
    """The nearest success of each point, in the budget's norm, as it is seen.

    Under a finite radius a point is done as soon as something within it is found; under an infinite one never.
    """

    view: View
    budget: Ball
    closest: Closest

    @classmethod
    def over(cls, view: View, x: Tensor, budget: Ball) -> Search:
        """Nothing found yet for the points ``x``."""
        return cls(view, budget, Closest.over(x))

    @property
    def bounded(self) -> bool:
        """Whether a radius is asked about, not the smallest perturbation."""
        return self.budget.radius < float("inf")

    def reach(self, x0: Tensor) -> Tensor:
        """How far it makes sense to go from each row: to the box's far corner, and not beyond the radius."""
        lower, upper = self.view.bounds
        corner = distance(torch.maximum(x0 - lower, upper - x0), self.budget.norm)
        return corner.clamp(max=self.budget.radius)

    def live(self, rows: R) -> R:
        """The rows to go on with: their point is not done, and a query is left for each of them."""
        going = ~(self.closest.length[rows.at] <= self.budget.radius) if self.bounded else None
        left = self.view.remaining(rows.at)
        if left is not None:
            paid = place(rows.at) < left
            going = paid if going is None else going & paid
        return rows if going is None or bool(going.all()) else rows.keep(going)

    def landed(self, rows: Rows) -> Tensor:
        """Where the rows are as the target is to see them: on the lattice, where there is one."""
        return self.budget.land(rows.z, rows.x0, self.view.bounds)

    def record(self, rows: Rows, seen: Tensor, scores: Tensor) -> Tensor:
        """Keeps what is nearer than what was known; whether each row's prediction is what the adversary wants."""
        won = succeeded(self.view, scores, rows.y)
        if bool(won.any()):
            far = self.budget.distance(seen, rows.x0)
            if self.bounded:  # at the radius up to rounding is at the radius
                inside = self.budget.contains(seen, rows.x0, self.view.bounds)
                far = torch.where(inside, far.clamp(max=self.budget.radius), far)
            self.closest.offer(rows.at, seen, torch.where(won, far, torch.inf))
        return won

    def look(self, rows: R) -> tuple[R, Tensor]:
        """One more look at the rows that are live: those rows and their scores, with what they show on record."""
        rows = self.live(rows)
        if not len(rows.at):
            return rows, rows.z.new_zeros(0, 2)
        seen = self.landed(rows)
        scores = self.view.scores(seen, rows.at)
        self.record(rows, seen, scores)
        return rows, scores

    def judge(self, rows: R) -> tuple[R, Tensor]:
        """The same: those rows, and whether each has succeeded."""
        rows, scores = self.look(rows)
        return rows, succeeded(self.view, scores, rows.y)


def place(at: Tensor) -> Tensor:
    """How many earlier rows each row's point has."""
    order = at.argsort(stable=True)
    ordered = at[order]
    first = torch.searchsorted(ordered, ordered)
    return torch.empty_like(at).scatter_(0, order, torch.arange(len(at), device=at.device) - first)
