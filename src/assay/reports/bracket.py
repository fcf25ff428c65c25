"""What is known of one quantity from both sides, and what is left unknown between them, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assay.evidence.bound import AT_LEAST, AT_MOST, CLEAN, ROBUST, Bound, Side
from assay.evidence.record import Evidence
from assay.reports import words

Part = Literal["proved", "unknown", "broken", "wrong", "contradiction"]

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class End:
    """One end of a bracket: the tightest bound on its side, and who established it."""

    bound: Bound
    by: str
    demonstrated: bool
    unit: words.Unit

    @property
    def short(self) -> str:
        """``at most 38.0%``."""
        return f"{self.bound.side} {words.figure(self.bound.estimate, self.unit)}"

    @property
    def sentence(self) -> str:
        """The fact about the points, and what it implies beyond them."""
        bound, verb = self.bound, "shows" if self.demonstrated else "proves"
        points = words.count(bound.n, "point")
        if self.unit == "share" and bound.quantity != "auc":
            points = f"{round(bound.estimate * bound.n):,} of {points}"
        return (
            f"{self.by} {verb} {self.short} ({points}); beyond them "
            f"{bound.side} {words.implied(bound.value, bound.side, self.unit)} at {bound.confidence:.0%} confidence"
        )


@dataclass(frozen=True)
class Segment:
    """A stretch of the scale, as fractions of it."""

    part: Part
    start: float
    stop: float

    @property
    def length(self) -> float:
        """The stretch's share of the scale."""
        return self.stop - self.start


@dataclass(frozen=True)
class Level:
    """What a claim demands of the quantity."""

    id: str
    op: str
    level: float


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """A quantity between its ends.

    Attributes:
        lower, upper: the tightest ``at least`` and ``at most``; ``None`` where there is none.
        clean: accuracy without any attack, for robust accuracy.
        rising: whether attacks push the quantity up (success, leakage) instead of down (accuracy).
        top: where the scale ends; 1 for shares.
        levels: what claims demand.
    """

    quantity: str
    unit: words.Unit
    lower: End | None
    upper: End | None
    clean: End | None
    rising: bool
    top: float
    levels: tuple[Level, ...] = ()

    @property
    def crossed(self) -> bool:
        """Whether the sides contradict each other on the very points that both are about."""
        return _crossed(self.lower, self.upper)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The scale cut into what is proved, unknown, broken and wrong without any attack; empty ones left out."""
        ceiling = self.at(self.clean.bound.estimate) if self.clean else 1.0
        low = self.at(self.lower.bound.estimate) if self.lower else 0.0
        high = self.at(self.upper.bound.estimate) if self.upper else (1.0 if self.rising else ceiling)
        near: Part = "broken" if self.rising else "proved"
        far: Part = "proved" if self.rising else "broken"
        middle: Part = "contradiction" if self.crossed else "unknown"
        first, second = (high, low) if self.crossed else (low, high)
        ceiling = max(ceiling, second)
        cuts = [
            Segment(near, 0.0, first), Segment(middle, first, second),
            Segment(far, second, ceiling), Segment("wrong", ceiling, 1.0),
        ]
        return tuple(s for s in cuts if s.length > _ROUNDING)

    @property
    def unknown(self) -> float:
        """The length of what is neither proved nor broken, as a fraction of the scale."""
        return sum(s.length for s in self.segments if s.part == "unknown")

    def at(self, value: float) -> float:
        """Where a value lies on the scale, 0 to 1."""
        return min(1.0, max(0.0, value / self.top)) if math.isfinite(value) else 1.0


@dataclass(frozen=True)
class Step:
    """The stretch of a curve from one radius to the next, and what monotonicity says of it.

    A model right within a ball is right within every smaller one: what is broken at a radius stays broken to its
    right, what is proved at a radius holds to its left.
    """

    start: float
    stop: float
    lower: float
    upper: float


@dataclass(frozen=True)
class CurvePoint:
    """Both ends at one radius."""

    radius: float
    lower: End | None
    upper: End | None

    @property
    def crossed(self) -> bool:
        """Whether the sides contradict each other here."""
        return _crossed(self.lower, self.upper)


@dataclass(frozen=True)
class Curve:
    """A quantity over the adversary's radius.

    Attributes:
        points: where it was measured, by growing radius.
        clean: at radius 0, where known.
    """

    quantity: str
    norm: str
    points: tuple[CurvePoint, ...]
    clean: End | None

    @property
    def reach(self) -> float:
        """Where the radius axis ends: a little beyond the largest radius, so that its bound can be seen."""
        return self.points[-1].radius * 1.08

    @property
    def steps(self) -> tuple[Step, ...]:
        """The curve between the radii; beyond the last nothing is proved."""
        ceiling = self.clean.bound.estimate if self.clean else 1.0
        knots = [0.0, *(p.radius for p in self.points), self.reach]
        found: list[Step] = []
        for i in range(len(knots) - 1):
            above = [p.upper.bound.estimate for p in self.points[:i] if p.upper]
            below = [p.lower.bound.estimate for p in self.points[i:] if p.lower]
            found.append(Step(knots[i], knots[i + 1], max(below, default=0.0), min([*above, ceiling])))
        return tuple(s for s in found if s.stop > s.start)

    @property
    def crossed(self) -> bool:
        """Whether the sides contradict each other anywhere."""
        return any(p.crossed for p in self.points) or any(s.lower > s.upper + _ROUNDING for s in self.steps)


def measured(quantity: str, evidence: Evidence) -> bool:
    """Whether one evidence bounds a quantity from both sides: then it is a plain fact, not a bracket."""
    return {AT_MOST, AT_LEAST} <= {b.side for b in evidence.bounds if b.quantity == quantity}


def bracket(quantity: str, found: Sequence[Evidence], levels: Sequence[Level] = ()) -> Bracket:
    """The bracket of one quantity over evidence about the same target, threat and points."""
    bounds = [b for e in found for b in e.bounds if b.quantity == quantity]
    unit = words.unit_of(quantity, bounds)
    lower, upper = end(quantity, AT_LEAST, found, unit), end(quantity, AT_MOST, found, unit)
    rising = any(
        (e.kind == "played") == (b.side == AT_LEAST) for e in found for b in e.bounds if b.quantity == quantity
    )
    return Bracket(
        quantity=quantity, unit=unit, lower=lower, upper=upper, rising=rising,
        clean=end(CLEAN, AT_MOST, found, unit) if quantity == ROBUST else None,
        top=1.0 if unit == "share" else _nice_top([*(v for b in bounds for v in (b.estimate, b.value)),
                                                   *(level.level for level in levels)]),
        levels=tuple(levels),
    )


def curve(quantity: str, found: Sequence[Evidence]) -> Curve | None:
    """The quantity over the radius, where at least two radii were tried."""
    names: dict[float, str] = {}
    norms: list[str] = []
    for e in found:
        for b in e.bounds:
            base, _, at = b.quantity.partition(" @ ")
            known = words.budget_of(at or e.threat.budget)
            if base == quantity and known and math.isfinite(known[1]):
                norms.append(known[0])
                names.setdefault(known[1], b.quantity)
    if len(names) < 2 or not max(names):
        return None
    points = tuple(
        CurvePoint(r, end(names[r], AT_LEAST, found, "share"), end(names[r], AT_MOST, found, "share"))
        for r in sorted(names)
    )
    return Curve(quantity, norms[0], points, end(CLEAN, AT_MOST, found, "share"))


def end(quantity: str, side: Side, found: Sequence[Evidence], unit: words.Unit) -> End | None:
    """The tightest bound on one side."""
    bearing = [(b, e) for e in found for b in e.bounds if b.quantity == quantity and b.side == side]
    if not bearing:
        return None
    sign = 1 if side == AT_MOST else -1
    bound, evidence = min(bearing, key=lambda pair: (sign * pair[0].estimate, sign * pair[0].value))
    return End(bound=bound, by=evidence.attack, demonstrated=evidence.kind != "proved", unit=unit)


def _crossed(lower: End | None, upper: End | None) -> bool:
    return bool(lower and upper and lower.bound.estimate > upper.bound.estimate + _ROUNDING)


def _nice_top(values: Sequence[float]) -> float:
    most = max((v for v in values if math.isfinite(v)), default=1.0) * 1.15
    if most <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= most)
