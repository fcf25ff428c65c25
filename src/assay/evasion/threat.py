"""This family's budgets: Lp balls met with the input box, optionally on the lattice of real images."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.numerics.balls import PROJECTIONS, distance, random_delta, steepest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds
from assay.threats import TARGETED as TARGETED
from assay.threats import ThreatModel

MISCLASSIFY = "misclassify"

_GRAMMAR = re.compile(r"^\s*(linf|l2|l1|l0)\s+(inf|[0-9.eE+-]+(?:\s*/\s*[0-9.]+)?)\s*(uint8)?\s*$", re.IGNORECASE)


class Ball(Protocol):
    """What attacks and proofs ask of a budget. Radii may be given per row where a method moves them."""

    norm: ClassVar[float]

    @property
    def kind(self) -> str: ...
    @property
    def radius(self) -> float: ...
    @property
    def lattice(self) -> int | None: ...

    def project(self, z: Tensor, x0: Tensor, bounds: Bounds, radius: Tensor | None = None) -> Tensor:
        """The point of ball and box nearest to ``z`` (for L2: near), ``[rows, …]``."""

    def random(self, x0: Tensor, bounds: Bounds, rng: Stream) -> Tensor:
        """A random point of ball and box."""

    def steepest(self, gradient: Tensor, *, density: float | Tensor = 0.05) -> Tensor:
        """The ascent direction of unit norm."""

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """How far ``z`` is from ``x0`` in this norm, ``[rows]``."""

    def contains(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """Whether each row keeps to ball, box and lattice, bool ``[rows]``."""

    def land(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """``z`` as it arrives: on the lattice, where there is one; inside the ball whenever ``z`` was."""

    def at(self, radius: float) -> Self:
        """The same budget with another radius."""

    def threat(
        self,
        *,
        access: str | Access = Access.GRADIENTS,
        knows: Collection[str] = ("model", "defense"),
        goal: str = MISCLASSIFY,
        queries: int | None = None,
    ) -> ThreatModel:
        """The threat model with this budget."""


class Granting:
    """What all budgets have in common: the threat model around them."""

    def threat(
        self,
        *,
        access: str | Access = Access.GRADIENTS,
        knows: Collection[str] = ("model", "defense"),
        goal: str = MISCLASSIFY,
        queries: int | None = None,
    ) -> ThreatModel:
        """The threat model with this budget.

        Args:
            access: ``"labels"``, ``"scores"``, ``"gradients"`` or ``"weights"``.
            knows: what the adversary knows of the design.
            goal: ``"misclassify"``, or ``"targeted"``: reach the label given with each point.
            queries: how many inputs it may submit per point.
        """
        return ThreatModel(
            goal=goal, access=Access.parse(access), budget=self, knows=frozenset(knows), queries=queries
        )


@dataclass(frozen=True)
class _Lp(Granting):
    """An Lp ball of this radius, in the units of the data.

    Attributes:
        radius: how far an input may move; for L0, how many coordinates may change; ``inf`` asks how far it has to.
        lattice: with 255, adversarial inputs must be images of 8 bits a channel; ``None`` for real numbers.
    """

    radius: float
    lattice: int | None = None
    norm: ClassVar[float]

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ConfigError("THR104", f"a radius must be a number at least 0; got {self.radius}")

    @property
    def kind(self) -> str:
        """The norm's word: ``"linf"``, ``"l2"``…"""
        return type(self).__name__.lower()

    def __str__(self) -> str:
        return f"{self.kind} {self.radius:.6g}{' uint8' if self.lattice == 255 else ''}"

    def project(self, z: Tensor, x0: Tensor, bounds: Bounds, radius: Tensor | None = None) -> Tensor:
        """The point of ball and box nearest to ``z`` (for L2: near), ``[rows, …]``."""
        if radius is None:
            radius = torch.full((len(x0),), self.radius, dtype=x0.dtype, device=x0.device)
        return PROJECTIONS[self.norm](z, x0, radius, bounds.lower, bounds.upper)

    def random(self, x0: Tensor, bounds: Bounds, rng: Stream) -> Tensor:
        """A random point of ball and box."""
        radius = torch.full((len(x0),), self.radius, dtype=x0.dtype, device=x0.device)
        return self.project(x0 + random_delta(x0, radius, self.norm, bounds.width, rng), x0, bounds)

    def steepest(self, gradient: Tensor, *, density: float | Tensor = 0.05) -> Tensor:
        """The ascent direction of unit norm."""
        return steepest(gradient, self.norm, density=density)

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """How far ``z`` is from ``x0`` in this norm, ``[rows]``."""
        return distance(z - x0, self.norm)

    def contains(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """Whether each row keeps to ball, box and lattice, up to rounding in its own precision: bool ``[rows]``."""
        slack = 4 * torch.finfo(z.dtype).eps * max(abs(bounds.lower), abs(bounds.upper))
        near = distance((z - x0).double(), self.norm) <= self.radius * (1 + 1e-5) + (slack if self.norm else 0)
        inside = ((z >= bounds.lower - slack) & (z <= bounds.upper + slack)).flatten(1).all(1)
        if self.lattice is None:
            return near & inside
        steps = (z.double() - bounds.lower) * (self.lattice / bounds.width)
        return near & inside & ((steps - steps.round()).abs() < 1e-3).flatten(1).all(1)

    def land(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """``z`` as it arrives: on the lattice, where there is one; inside the ball whenever ``z`` was.

        Rounds to the nearest level; a row that rounding would carry out of the ball is rounded toward ``x0``,
        which never lengthens a perturbation. ``x0`` must lie on the lattice itself.
        """
        if self.lattice is None:
            return z
        step = bounds.width / self.lattice
        delta = ((z - x0) / step).double()
        nearest = x0 + (delta.round() * step).to(z.dtype)
        toward = x0 + (delta.trunc() * step).to(z.dtype)
        outside = distance((delta.round() * step), self.norm) > self.radius * (1 + 1e-6)
        outside = outside.reshape(-1, *[1] * (z.dim() - 1))
        if self.norm == float("inf"):
            limit = min(self.radius, bounds.width) / step * (1 + 1e-6) // 1
            return (x0 + (delta.round().clamp(-limit, limit) * step).to(z.dtype)).clamp(bounds.lower, bounds.upper)
        return torch.where(outside, toward, nearest).clamp(bounds.lower, bounds.upper)

    def at(self, radius: float) -> Self:
        """The same budget with another radius."""
        return replace(self, radius=radius)


class Linf(_Lp):
    """Every coordinate may move by at most ``radius``."""

    norm: ClassVar[float] = float("inf")


class L2(_Lp):
    """The perturbation's Euclidean length is at most ``radius``."""

    norm: ClassVar[float] = 2


class L1(_Lp):
    """The perturbation's absolute values sum to at most ``radius``."""

    norm: ClassVar[float] = 1


class L0(_Lp):
    """At most ``radius`` coordinates change (each channel of a pixel is a coordinate)."""

    norm: ClassVar[float] = 0


BUDGETS: dict[str, type[Linf] | type[L2] | type[L1] | type[L0]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


def parse_budget(text: str, *, where: str = "") -> Linf | L2 | L1 | L0:
    """A budget from its words: ``"linf 8/255"``, ``"l2 0.5"``, ``"linf 8/255 uint8"``, ``"l2 inf"``. Raises THR104."""
    match = _GRAMMAR.match(text)
    if match is None:
        raise ConfigError("THR104", f"cannot read the budget {text!r}", where=where)
    kind, radius, lattice = match.groups()
    try:
        value = float(Fraction(radius.replace(" ", ""))) if "/" in radius else float(radius)
    except (ValueError, ZeroDivisionError):
        raise ConfigError("THR104", f"cannot read the radius {radius!r}", where=where) from None
    return BUDGETS[kind.lower()](value, lattice=255 if lattice else None)


def ladder(norm: float, width: float) -> tuple[float, ...]:
    """The radii of a robustness curve, where the budget names none: doubling over what the field looks at."""
    first = {float("inf"): width / 255, 2.0: width / 8, 1.0: width, 0.0: 1.0}[norm]
    return tuple(first * 2**k for k in range(7))
