"""What C&W's attacks add to the loss, a class for each norm, and how each of them goes on from what it has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from assay.evasion.attacks.tanh import Tanh, adam
from assay.evasion.attacks.weighted import Heading, Weighted, bisected
from assay.numerics.balls import rowwise
from assay.targets.base import Graded


@dataclass(frozen=True, eq=False)
class Descent(Weighted):
    """The live rows; ``w`` is the free variable behind ``z``, ``mean`` and ``square`` are Adam's moments."""

    w: Tensor
    mean: Tensor
    square: Tensor


D = TypeVar("D", bound=Descent)


@dataclass(frozen=True)
class Penalty(Generic[D]):
    """The size of a perturbation as something to descend, in the variable of ``tanh``."""

    tanh: Tanh

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
        return Descent(at=rows.at, x0=rows.x0, y=rows.y, z=rows.x0, target=rows.target, far=rows.far, c=c,
                       low=torch.zeros_like(c), high=never, length=never, earlier=never, late=no, w=w, mean=zero,
                       square=zero)

    def _even(self, rows: D) -> Tensor:
        """The mean slope of ``dz/dw`` at the original."""
        slope = self.tanh.slope(self.tanh.variable(rows.x0))
        return slope.flatten(1).square().mean(1).sqrt()


@dataclass(frozen=True)
class Quadratic(Penalty[Descent]):
    """L2: ``‖δ‖² + c·f(x + δ)``, with a bisection over ``c``."""

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
        """By bisection."""
        return bisected(rows)


@dataclass(frozen=True)
class Excess(Penalty[Descent]):
    """Linf: ``Σ max(|δᵢ| − τ, 0) + c·f(x + δ)``, where τ stays a little below the nearest success.

    The paper solves anew for every τ, each a tenth below the one before. Here τ follows every success at once, by
    ever smaller shares, and Adam goes on from where it is.
    """

    def begin(self, rows: Heading) -> Descent:
        """The state of the first search: half the mean coordinate of the loss's gradient is worth its excess."""
        steep = rows.slope.flatten(1).abs().mean(1)
        return self._fresh(rows, 0.5 / steep.clamp_min(torch.finfo(steep.dtype).tiny))

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
