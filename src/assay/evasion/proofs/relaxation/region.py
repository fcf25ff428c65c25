"""The perturbations a proof must cover: a norm ball of its own radius around each example, inside the input box."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

import torch
from torch import Tensor

from assay.errors import DataError

from .forms import Form, total

ROUNDING = 32
"""How many units of rounding error, relative to the magnitudes summed, every bound gives up to stay sound."""


class Norm(Enum):
    """The norm a radius is measured in."""

    LINF = "linf"
    L2 = "l2"
    L1 = "l1"


@final
@dataclass(frozen=True)
class Box:
    """Elementwise bounds: ``lower <= value <= upper``, each ``[rows, *shape]``."""

    lower: Tensor
    upper: Tensor

    def intersect(self, other: Box) -> Box:
        """The values both boxes allow."""
        return Box(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def middle(self) -> Tensor:
        """The center, ``[rows, *shape]``."""
        return (self.lower + self.upper) / 2

    def half(self) -> Tensor:
        """The half width, ``[rows, *shape]``."""
        return (self.upper - self.lower) / 2

    def minimize(self, form: Form) -> Tensor:
        """The least value of each linear form over its example's box, ``[N]``, less the rounding of the sum."""
        middle, half = self.middle(), self.half()
        half = half + _slack(half.dtype) * (middle.abs() + half)
        return form.dot(middle) - total(form.data.abs() * form.pick(half))


@final
@dataclass(frozen=True)
class Ball:
    """A threat: all inputs within ``radius`` of the example in ``norm`` that stay in ``[lower, upper]``.

    Attributes:
        norm: the norm of the perturbation over the whole example.
        radius: one for all examples, or a tensor ``[rows]``; in the units of the input.
        lower, upper: the range of every input value; infinite for none.
    """

    norm: Norm
    radius: Tensor | float
    lower: float = 0.0
    upper: float = 1.0

    def around(self, x: Tensor) -> Region:
        """The regions around the examples ``x [rows, *shape]``. Raises ``DataError`` PRF106."""
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device)
        if radius.shape not in ((), (len(x),)):
            raise DataError("PRF106", f"radii of shape {tuple(radius.shape)} for {len(x)} examples")
        radius = radius.expand(len(x))
        if not bool((radius >= 0).all()):
            raise DataError("PRF106", "a radius is negative or not a number")
        if not bool(((x >= self.lower) & (x <= self.upper)).all()):
            raise DataError("PRF106", f"an example leaves the input box [{self.lower}, {self.upper}]")
        return Region(x, radius, self.norm, self.lower, self.upper)


@final
@dataclass(frozen=True)
class Region:
    """The perturbation sets of a batch: ``{x' : ||x' - center|| <= radius, lower <= x' <= upper}``, one a row.

    Attributes:
        center: ``[rows, *shape]``, inside the box.
        radius: ``[rows]``, not negative.
        norm: of the perturbation.
        lower, upper: the input box.
    """

    center: Tensor
    radius: Tensor
    norm: Norm
    lower: float = 0.0
    upper: float = 1.0

    def take(self, rows: Tensor) -> Region:
        """The regions of these rows."""
        return Region(self.center[rows], self.radius[rows], self.norm, self.lower, self.upper)

    def interval(self) -> Box:
        """The smallest box around each set, ``[rows, *shape]``; for L-infinity it is the set itself."""
        radius = self._radius_like_center()
        return Box((self.center - radius).clamp(min=self.lower), (self.center + radius).clamp(max=self.upper))

    def minimize(self, form: Form) -> Tensor:
        """The least value of each linear form over its example's set, ``[N]``.

        Exact, box included, for every norm (up to rounding, which is subtracted): L-infinity coordinate by
        coordinate; L1 as a fractional knapsack, the steepest coordinates first; L2 by the Lagrangian dual at the
        multiplier that clipping the coordinates in order of their saturation yields. Any multiplier is sound by
        weak duality, so rounding in it costs tightness, not soundness.
        """
        box = self.interval()
        if self.norm is Norm.LINF:
            return box.minimize(form)
        slope = form.data.flatten(1)
        room = torch.where(form.data > 0, form.pick(self.center - box.lower), form.pick(box.upper - self.center))
        radius = self.radius.index_select(0, form.rows)
        gain = _l1_gain if self.norm is Norm.L1 else _l2_gain
        reach = form.pick(self.center.abs() + self._radius_like_center()).flatten(1)
        slack = _slack(slope.dtype) * (slope.abs() * reach).sum(1)
        return form.dot(self.center) - gain(slope.abs(), room.flatten(1), radius) - slack

    def _radius_like_center(self) -> Tensor:
        return self.radius.view(-1, *[1] * (self.center.dim() - 1))


def _l1_gain(slope: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """max slope . d  over  0 <= d <= room, sum d <= radius: spend the radius on the steepest slopes first."""
    slope, order = slope.sort(dim=1, descending=True)
    spent = room.gather(1, order).cumsum(1)
    filled = torch.minimum(spent, radius[:, None])
    return (slope * filled.diff(dim=1, prepend=torch.zeros_like(filled[:, :1]))).sum(1)


def _l2_gain(slope: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """max slope . d  over  0 <= d <= room, ||d|| <= radius: d = min(room, t slope) with t from the sphere."""
    tiny = torch.finfo(slope.dtype).tiny
    ratio, order = (room / slope.clamp_min(tiny)).sort(dim=1)
    squared_room, squared_slope = room.gather(1, order).square(), slope.gather(1, order).square()
    full = squared_room.cumsum(1) - squared_room
    free = squared_slope.flip(1).cumsum(1).flip(1)
    # With the first k coordinates saturated, t_k^2 = (radius^2 - full_k) / free_k; the right k is the first whose
    # t_k saturates no further coordinate.
    t = ((radius.square()[:, None] - full).clamp_min(0) / free.clamp_min(tiny)).sqrt()
    settled = t <= ratio
    first = settled.to(torch.uint8).argmax(1, keepdim=True)
    chosen = t.gather(1, first).squeeze(1).clamp_min(tiny)
    multiplier = 1 / (2 * chosen)
    step = torch.minimum(room, slope * chosen[:, None])
    dual = (slope * step - multiplier[:, None] * step.square()).sum(1) + multiplier * radius.square()
    bounds = torch.stack([dual, (slope * room).sum(1), slope.norm(dim=1) * radius])
    return torch.where(bounds.isnan(), torch.inf, bounds).amin(0)


def _slack(dtype: torch.dtype) -> float:
    return ROUNDING * torch.finfo(dtype).eps
