"""C&W's change of variable: what Adam moves is free, what the target sees lies in the box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.numerics.balls import rowwise
from assay.targets.base import Bounds

_EDGE = 0.9
"""What tanh is at the box's edge. With the paper's 0.999999 a saturated pixel has next to no slope to move by:
in 9 × 100 steps it breaks 36 % of the points of a plain MNIST network, this breaks all."""

_FIRST, _SECOND = 0.9, 0.99
"""Decay of Adam's moments; the second is shorter than the usual 0.999, as searches are."""

_QUIET = 1e-8
"""Coordinates whose gradient is this small beside the row's largest do not move: they are rounding errors."""


@dataclass(frozen=True)
class Tanh:
    """``z = middle + half·tanh(w)/edge`` for ``|w| ≤ artanh(edge)``: onto the box, its edges included."""

    bounds: Bounds

    def variable(self, z: Tensor) -> Tensor:
        """The ``w`` of inputs in the box."""
        return torch.atanh(((z - self._middle) / self._half).clamp(-1, 1) * _EDGE)

    def input(self, w: Tensor) -> Tensor:
        """The input of ``w``."""
        return (self._middle + self._half / _EDGE * torch.tanh(w)).clamp(*self.bounds)

    def slope(self, w: Tensor) -> Tensor:
        """``dz/dw``, nowhere zero."""
        return self._half / _EDGE * (1 - torch.tanh(w).square())

    def limited(self, w: Tensor) -> Tensor:
        """``w``, not beyond what the box's edges are."""
        most = math.atanh(_EDGE)
        return w.clamp(-most, most)

    @property
    def _middle(self) -> float:
        return (self.bounds.lower + self.bounds.upper) / 2

    @property
    def _half(self) -> float:
        return self.bounds.width / 2


def adam(gradient: Tensor, mean: Tensor, square: Tensor, age: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ascent direction, of about unit length in every coordinate, and both moments (Kingma & Ba, ICLR 2015)."""
    mean = _FIRST * mean + (1 - _FIRST) * gradient
    square = _SECOND * square + (1 - _SECOND) * gradient.square()
    size = (square / (1 - _SECOND**age)).sqrt()
    quiet = _QUIET * size.flatten(1).amax(1) + torch.finfo(size.dtype).tiny
    return mean / (1 - _FIRST**age) / (size + rowwise(quiet, size)), mean, square
