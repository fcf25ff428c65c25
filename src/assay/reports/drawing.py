"""Where everything in a drawing lies: across in percent of the width, so that text keeps its size; down in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from assay.reports import words
from assay.reports.bracket import Bracket, Curve, CurvePoint, End

Anchor = Literal["start", "middle", "end"]

BAR = 30
"""The bar's height in pixels."""
_ROW = 19
_TURN = 55.0
"""From this percentage on, a label is written to the left of its mark, to stay inside."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Text at a mark."""

    text: str
    kind: str
    x: float
    y: float
    anchor: Anchor

    @property
    def dx(self) -> int:
        """A little away from the mark."""
        return {"start": 6, "middle": 0, "end": -6}[self.anchor]


@dataclass(frozen=True)
class Rect:
    """An area; across in percent, down in pixels (bracket) or percent (curve)."""

    part: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A line; units as in :class:`Rect`."""

    kind: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class BracketDrawing:
    """A bracket's bar with its marks, labels and axis."""

    height: int
    spoken: str
    rects: tuple[Rect, ...]
    lines: tuple[Line, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A measured point of a curve, in percent, and how far its confidence bound reaches."""

    kind: str
    x: float
    y: float
    implied: float


@dataclass(frozen=True, kw_only=True)
class CurveDrawing:
    """A curve's areas, steps, points and axes, all in percent of its field."""

    spoken: str
    norm: str
    rects: tuple[Rect, ...]
    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, str], ...]


def draw_bracket(bracket: Bracket) -> BracketDrawing:
    """The bar, from top to bottom: labels of clean accuracy and the upper end, the bar, the lower end, claims, axis."""
    top = _ROW * ((bracket.clean is not None) + (bracket.upper is not None)) + 10
    lines: list[Line] = []
    labels: list[Label] = []
    row = 14
    if bracket.clean:
        text = f"clean {words.figure(bracket.clean.bound.estimate, bracket.unit)}"
        _mark(bracket, bracket.clean.bound.estimate, "clean", text, row, top + BAR, lines, labels)
        row += _ROW
    if bracket.upper:
        kind = "proved" if bracket.rising else "broken"
        _mark(bracket, bracket.upper.bound.estimate, kind, bracket.upper.short, row, top + BAR, lines, labels)
        _whisker(bracket, bracket.upper, kind, top - 5, lines)
    row = top + BAR + 22
    if bracket.lower:
        kind = "broken" if bracket.rising else "proved"
        _mark(bracket, bracket.lower.bound.estimate, kind, bracket.lower.short, row, top, lines, labels)
        _whisker(bracket, bracket.lower, kind, top + BAR + 5, lines)
        row += _ROW
    for level in bracket.levels:
        text = f"{level.id}: {words.pretty(level.op)} {words.figure(level.level, bracket.unit)}"
        _mark(bracket, level.level, "claim", text, row, top - 4, lines, labels)
        row += _ROW
    lines.append(Line("axis", 0, row - 8, 100, row - 8))
    for quarter in range(5):
        anchor: Anchor = "start" if quarter == 0 else "end" if quarter == 4 else "middle"
        text = words.figure(bracket.top * quarter / 4, bracket.unit).replace(".0%", "%")
        lines.append(Line("axis", 25 * quarter, row - 8, 25 * quarter, row - 4))
        labels.append(Label(text=text, kind="axis", x=25 * quarter, y=row + 9, anchor=anchor))
    rects = tuple(Rect(s.part, 100 * s.start, top, 100 * s.length, BAR) for s in bracket.segments)
    return BracketDrawing(
        height=row + 14, spoken=_spoken(bracket), rects=rects, lines=tuple(lines), labels=tuple(labels)
    )


def draw_curve(curve: Curve) -> CurveDrawing:
    """Areas between the steps, the steps, and the measured points."""
    wide = 100 / curve.reach
    ceiling = curve.clean.bound.estimate if curve.clean else 1.0
    rects: list[Rect] = []
    lines: list[Line] = []
    before: dict[str, float] = {}
    for step in curve.steps:
        x, width = step.start * wide, (step.stop - step.start) * wide
        low, high = sorted((step.lower, step.upper))
        middle = "contradiction" if step.lower > step.upper + 1e-12 else "unknown"
        roof = max(ceiling, high)
        cuts = [("proved", 0.0, low), (middle, low, high), ("broken", high, roof), ("wrong", roof, 1.0)]
        rects += [Rect(part, x, 100 * (1 - b), width, 100 * (b - a)) for part, a, b in cuts if b > a + 1e-12]
        for kind, value in (("broken", step.upper), ("proved", step.lower)):
            y, last = 100 * (1 - value), 100 * (1 - before.get(kind, value))
            lines.append(Line(kind, x, y, x + width, y))
            if last != y:
                lines.append(Line(kind, x, last, x, y))
            before[kind] = value
    said = "; ".join(_at(p.radius, p.lower, p.upper) for p in curve.points)
    return CurveDrawing(
        spoken=f"{curve.quantity} over the radius: {said}", norm=curve.norm, rects=tuple(rects), lines=tuple(lines),
        dots=tuple(dot for p in curve.points for dot in _dots(p, wide)), ticks=_ticks(curve, wide),
    )


def _mark(bracket: Bracket, value: float, kind: str, text: str, y: int, to: int,
          lines: list[Line], labels: list[Label]) -> None:
    """A line through the bar at the value, and its label, on the side where there is room."""
    x = 100 * bracket.at(value)
    lines.append(Line(kind, x, y - 11 if y < to else y + 2, x, to))
    labels.append(Label(text=text, kind=kind, x=x, y=y, anchor="end" if x > _TURN else "start"))


def _whisker(bracket: Bracket, end: End, kind: str, y: int, lines: list[Line]) -> None:
    """From the fact to what it implies beyond these points."""
    x, far = (100 * bracket.at(v) for v in (end.bound.estimate, end.bound.value))
    lines.append(Line(f"whisker {kind}", x, y, far, y))
    lines.append(Line(f"whisker {kind}", far, y - 4, far, y + 4))


def _spoken(bracket: Bracket) -> str:
    ends = [e.sentence for e in (bracket.lower, bracket.upper) if e]
    return f"{bracket.quantity}: " + ("; ".join(ends) or "nothing is known")


def _at(radius: float, lower: End | None, upper: End | None) -> str:
    return f"at {words.radius(radius)} " + " and ".join(e.short for e in (lower, upper) if e)


def _dots(point: CurvePoint, wide: float) -> Iterator[Dot]:
    for kind, end in (("broken", point.upper), ("proved", point.lower)):
        if end:
            y, implied = (100 * (1 - v) for v in (end.bound.estimate, end.bound.value))
            yield Dot(kind="contradiction" if point.crossed else kind, x=point.radius * wide, y=y, implied=implied)


def _ticks(curve: Curve, wide: float) -> tuple[tuple[float, str], ...]:
    """A label at 0 and at every measured radius that is not too close to the one before."""
    ticks = [(0.0, "0")]
    for point in curve.points:
        x = point.radius * wide
        if x - ticks[-1][0] >= 11:
            ticks.append((x, words.radius(point.radius)))
    return tuple(ticks)
