"""Budgets that are not balls: families of changes with a few parameters, which are what the adversary moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from assay.evasion.threat import Ball
from assay.targets.base import Bounds


@runtime_checkable
class Transformation(Protocol):
    """A family of changes to an input; its parameters live in a box, 0 being no change.

    Attacks play in the space of parameters, in the ball and the box given here; gradients come back to them through
    ``apply``. The referee applies the parameters itself.

    Attributes:
        kind: its word in a plan.
        radius: how much of the family is allowed, as the budget's words give it.
        ball: the budget in the space of parameters.
        box: where parameters live.
    """

    @property
    def kind(self) -> str: ...
    @property
    def radius(self) -> float: ...
    @property
    def ball(self) -> Ball: ...
    @property
    def box(self) -> Bounds: ...

    def start(self, x: Tensor) -> Tensor:
        """The parameters of no change, zeros ``[rows, …]``."""

    def apply(self, x: Tensor, parameters: Tensor, bounds: Bounds) -> Tensor:
        """The changed inputs, in their box, differentiable in the parameters; row by row.

        Parameters of zeros give ``x`` back, bit for bit.
        """

    def at(self, radius: float) -> Self:
        """The same family with more or less of it allowed."""


@dataclass(frozen=True, eq=False)
class Applied:
    """The lens through which parameters of changes to the points ``x`` reach the target."""

    transformation: Transformation
    x: Tensor
    target_bounds: Bounds

    @property
    def bounds(self) -> Bounds:
        """The parameters' box."""
        return self.transformation.box

    def __call__(self, parameters: Tensor, points: Tensor) -> Tensor:
        """The changed inputs, differentiably."""
        return self.transformation.apply(self.x[points], parameters, self.target_bounds)
