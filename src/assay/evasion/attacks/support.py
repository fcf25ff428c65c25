"""C&W in L0: which coordinates may change is what shrinks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from assay.evasion.attacks.penalties import Descent, Penalty
from assay.evasion.attacks.weighted import Heading, every
from assay.numerics.balls import rowwise
from assay.targets.base import Graded

_PATIENCE = 10
"""How many steps without a success a support is given."""

_STEP = 0.3
"""How far a coordinate of ``w`` moves in a step, at every distance from the boundary: a few steps cross the box."""


@dataclass(frozen=True, eq=False)
class Cutting(Descent):
    """The live rows of a search in L0.

    Attributes:
        free: the coordinates that may move.
        best_w, worth: of the nearest success, where it is and what each coordinate did for it.
        tried: the coordinates that were taken away last; ``vital``: those that cannot be spared.
        cut: the share of the changed coordinates that is taken away next.
        age: steps since the support changed.
    """

    free: Tensor
    best_w: Tensor
    worth: Tensor
    tried: Tensor
    vital: Tensor
    cut: Tensor
    age: Tensor


@dataclass(frozen=True)
class Support(Penalty[Cutting]):
    """L0: after every success the coordinates that did the least for it, ``|∇f·δ|``, are put back for good.

    The paper runs its whole L2 attack for every such cut. As only feasibility matters here, the loss alone is
    descended, a cut follows the first success, and it takes half of the coordinates as long as that succeeds.
    """

    def begin(self, rows: Heading) -> Cutting:
        """The state of the first search: everything may move."""
        fresh = self._fresh(rows, torch.ones_like(rows.far))
        no, nothing = torch.zeros_like(fresh.w, dtype=torch.bool), torch.zeros_like(fresh.w)
        return Cutting(**every(fresh), free=~no, best_w=fresh.w, worth=nothing, tried=no, vital=no,
                       cut=torch.full_like(fresh.c, 0.5), age=torch.zeros_like(fresh.at))

    def pull(self, rows: Cutting, share: float) -> Tensor:
        """Nothing: see the class."""
        return torch.zeros_like(rows.z)

    def pace(self, rows: Cutting, share: float) -> Tensor:
        """The same at every step."""
        return torch.full_like(rows.c, _STEP)

    def weighed(self, rows: Cutting) -> Cutting:
        """As they are."""
        return rows

    def resumed(self, rows: Cutting, found: Tensor) -> Cutting:
        """Where they are: at the nearest success but for a cut."""
        return rows

    def open(self, rows: Cutting) -> Tensor | None:
        """The rows with a coordinate that is not known to be vital."""
        left = (rows.free & ~rows.vital).flatten(1).any(1)
        return None if bool(left.all()) else left

    def noted(self, rows: Cutting, seen: Tensor, graded: Graded, far: Tensor, *, late: bool) -> Cutting:
        """Cuts the support after a success; after a failure, back to the last success and a smaller cut."""
        better = far < rows.length
        rows = super().noted(rows, seen, graded, far, late=late)
        delta, up = seen - rows.x0, rowwise(better, seen)
        rows = replace(rows, age=rows.age + 1, best_w=torch.where(up, rows.w, rows.best_w),
                       worth=torch.where(up, (graded.gradient * delta).abs() * (delta != 0), rows.worth),
                       free=torch.where(up, rows.free & (delta != 0), rows.free))
        stuck = ~better & (rows.age >= _PATIENCE) & rows.found
        if bool(stuck.any()):
            rows = self._restored(rows, stuck)
        changed = better | stuck
        return self._reduced(rows, changed) if bool(changed.any()) else rows

    def stepped(self, rows: Cutting, gradient: Tensor, share: float, age: int) -> Cutting:
        """One step of Adam in the support."""
        rows = super().stepped(rows, gradient * rows.free, share, age)
        home = self.tanh.variable(rows.x0)
        return replace(rows, w=torch.where(rows.free, rows.w, home), z=torch.where(rows.free, rows.z, rows.x0))

    def _restored(self, rows: Cutting, stuck: Tensor) -> Cutting:
        back = rowwise(stuck, rows.z)
        single = rowwise(stuck & (rows.cut * rows.length < 2), rows.z)
        return replace(
            rows, free=rows.free | rows.tried & back, vital=rows.vital | rows.tried & single,
            w=torch.where(back, rows.best_w, rows.w), mean=rows.mean.masked_fill(back, 0),
            square=rows.square.masked_fill(back, 0), cut=torch.where(stuck, rows.cut / 2, rows.cut),
        )

    def _reduced(self, rows: Cutting, changed: Tensor) -> Cutting:
        """Takes the least worthy share of the support away, at least one coordinate."""
        which = changed.nonzero()[:, 0]
        spare = (rows.free & ~rows.vital)[which].flatten(1)
        worth = rows.worth[which].flatten(1).masked_fill(~spare, torch.inf)
        rank = worth.argsort(dim=1, stable=True).argsort(dim=1)
        most = (rows.cut * rows.length)[which].floor().clamp_min(1)
        away = torch.zeros_like(rows.free)
        away[which] = ((rank < most[:, None]) & spare).reshape(away[which].shape)
        return replace(rows, free=rows.free & ~away, age=rows.age.masked_fill(changed, 0),
                       tried=torch.where(rowwise(changed, away), away, rows.tried))
