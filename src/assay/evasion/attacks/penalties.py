"""What C&W's attacks add to the loss, a class for each norm, and how each of them goes on from what it has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from assay.evasion.attacks.nearest import Rows
from assay.evasion.attacks.tanh import Tanh, adam
from assay.numerics.balls import rowwise
from assay.targets.base import Graded


@dataclass(frozen=True, eq=False)
class Heading(Rows):
    """Rows at their originals, and what the first look says of the class that each heads for.

    Attributes:
        target: that class, int64.
        gap: by how much its score is behind.
        far: the distance of the boundary by first order, no more than the box allows.
    """

    target: Tensor
    gap: Tensor
    far: Tensor


@dataclass(frozen=True, eq=False)
class Descent(Heading):
    """The live rows of a search.

    Attributes:
        w: the free variable behind ``z``; ``mean`` and ``square`` are Adam's moments.
        c: the weight of the loss.
        length: the nearest success of the row, ``inf`` where there is none; ``earlier``: before this search.
        late: whether the second half of this search has succeeded.
        low, high: the bracket of ``c``.
    """

    w: Tensor
    mean: Tensor
    square: Tensor
    c: Tensor
    length: Tensor
    earlier: Tensor
    late: Tensor
    low: Tensor
    high: Tensor

    @property
    def found(self) -> Tensor:
        """Whether the row has had a success."""
        return torch.isfinite(self.length)


D = TypeVar("D", bound=Descent)


@dataclass(frozen=True)
class Penalty(Generic[D]):
    """The size of a perturbation as something to descend.

    Attributes:
        dual: the norm of a slope by which a gap has to be divided to get a distance.
    """

    tanh: Tanh
    dual: ClassVar[float]

    def begin(self, rows: Heading) -> D:
        """The state of the first search."""
        raise NotImplementedError

    def pull(self, rows: D, share: float) -> Tensor:
        """The gradient of the penalty at ``z``."""
        raise NotImplementedError

    def pace(self, rows: D, share: float) -> Tensor:
        """How far a coordinate of ``w`` moves in a step, ``[rows]``; ``share`` falls from 1 on."""
        raise NotImplementedError

    def weighed(self, rows: D) -> D:
        """The rows with the ``c`` of the next search."""
        raise NotImplementedError

    def noted(self, rows: D, seen: Tensor, graded: Graded, far: Tensor, *, late: bool) -> D:
        """What follows from a look at ``seen``; ``far`` is ``inf`` where it was no success."""
        return replace(rows, length=torch.minimum(rows.length, far), late=torch.isfinite(far) | rows.late & late)

    def resumed(self, rows: D, found: Tensor) -> D:
        """The rows back at their points' nearest successes."""
        z = torch.where(rowwise(rows.found, found), found, rows.z)
        return replace(rows, z=z, w=self.tanh.variable(z))

    def open(self, rows: D) -> Tensor | None:
        """Which rows have something left to try; ``None`` for all."""
        return None

    def stepped(self, rows: D, gradient: Tensor, share: float, age: int) -> D:
        """One step of Adam down the gradient by ``z``."""
        direction, mean, square = adam(gradient * self.tanh.slope(rows.w), rows.mean, rows.square, age)
        w = self.tanh.limited(rows.w - rowwise(self.pace(rows, share), direction) * direction)
        return replace(rows, w=w, z=self.tanh.input(w), mean=mean, square=square)

    def _fresh(self, rows: Heading, c: Tensor) -> Descent:
        w, never = self.tanh.variable(rows.x0), torch.full_like(c, torch.inf)
        zero, no = torch.zeros_like(w), torch.zeros_like(rows.at, dtype=torch.bool)
        return Descent(**every(rows), w=w, mean=zero, square=zero, c=c, length=never, earlier=never, late=no,
                       low=torch.zeros_like(c), high=never)

    def _even(self, rows: D) -> Tensor:
        """The mean slope of ``dz/dw`` at the original."""
        slope = self.tanh.slope(self.tanh.variable(rows.x0))
        return slope.flatten(1).square().mean(1).sqrt()


def every(rows: Rows) -> dict[str, Tensor]:
    """The fields of rows, to make rows with more of them."""
    return {f.name: getattr(rows, f.name) for f in fields(rows)}


@dataclass(frozen=True)
class Quadratic(Penalty[Descent]):
    """L2: ``‖δ‖² + c·f(x + δ)``, with a bisection over ``c``."""

    dual: ClassVar[float] = 2.0

    def begin(self, rows: Heading) -> Descent:
        """The state of the first search.

        Of a linear score the multiplier is ``2·gap/‖slope‖²``; twice that, so that the first search succeeds. The
        paper begins at 10⁻³ for every point and pays a search for each power of ten.
        """
        return self._fresh(rows, 4 * rows.far.square() / rows.gap)

    def pull(self, rows: Descent, share: float) -> Tensor:
        """``∇‖δ‖²``."""
        return 2 * (rows.z - rows.x0)

    def pace(self, rows: Descent, share: float) -> Tensor:
        """A fifth of the boundary's distance, spread over all coordinates."""
        size = math.sqrt(rows.z.flatten(1).shape[1])
        return 0.2 * share * rows.far / (size * self._even(rows))

    def weighed(self, rows: Descent) -> Descent:
        """Less weight after a success, more after none.

        As every search begins at a success, only what its second half sees counts.
        """
        high = torch.where(rows.late, torch.minimum(rows.high, rows.c), rows.high)
        low = torch.where(rows.late, rows.low, torch.maximum(rows.low, rows.c))
        lower = torch.where(low > 0, (low + high) / 2, high / 2)
        return replace(rows, c=torch.where(torch.isfinite(high), lower, 10 * low), low=low, high=high)


@dataclass(frozen=True)
class Excess(Penalty[Descent]):
    """Linf: ``Σ max(|δᵢ| − τ, 0) + c·f(x + δ)``, where τ stays a little below the nearest success.

    The paper solves anew for every τ, each a tenth below the one before. Here τ follows every success at once, by
    ever smaller shares, and Adam goes on from where it is.
    """

    dual: ClassVar[float] = 1.0

    def begin(self, rows: Heading) -> Descent:
        """The state of the first search: half the mean coordinate of the loss's gradient is worth its excess."""
        size = rows.z.flatten(1).shape[1]
        return self._fresh(rows, 0.5 * size * rows.far / rows.gap)

    def pull(self, rows: Descent, share: float) -> Tensor:
        """``∇ Σ max(|δᵢ| − τ, 0)``; τ closes in on the nearest success as steps become smaller."""
        delta = rows.z - rows.x0
        tau = torch.where(rows.found, (0.995 - 0.045 * share) * rows.length, rows.far)
        return delta.sign() * (delta.abs() > rowwise(tau, delta))

    def pace(self, rows: Descent, share: float) -> Tensor:
        """A tenth of the nearest success."""
        return 0.1 * share * torch.where(rows.found, rows.length, rows.far) / self._even(rows)

    def weighed(self, rows: Descent) -> Descent:
        """More weight, and where nothing was found more room, after no success."""
        return replace(rows, c=torch.where(rows.late, rows.c, 2 * rows.c),
                       far=torch.where(rows.found, rows.far, 2 * rows.far))
