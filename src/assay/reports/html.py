"""The report as one HTML file: no network, no script, printable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from assay.evidence.record import Evidence
from assay.reports import words
from assay.reports.bracket import Bracket, Curve
from assay.reports.cases import Shown, amplification, show
from assay.reports.document import Band, Gallery, Report
from assay.reports.drawing import BracketDrawing, CurveDrawing, draw_bracket, draw_curve
from assay.reports.supply import SCAN

_SHOWN = 6
_NAMES = {"wrong": "clean error"}


@dataclass(frozen=True)
class Row:
    """One line of a bracket's legend: what part of the scale, how long it is, and why."""

    part: str
    name: str
    share: str
    because: str


@dataclass(frozen=True)
class Spent:
    """One line of the cost table, as text."""

    attack: str
    kind: str
    cells: tuple[tuple[str, str], ...]
    seconds: str


@dataclass(frozen=True, kw_only=True)
class GalleryView:
    """Worst cases with their pictures made."""

    attack: str
    shown: tuple[Shown, ...]
    total: int
    scale: str


@dataclass(frozen=True, kw_only=True)
class BandView:
    """A band with its drawings made."""

    band: Band
    brackets: tuple[tuple[Bracket, BracketDrawing, tuple[Row, ...]], ...]
    curves: tuple[tuple[Curve, CurveDrawing], ...]
    galleries: tuple[GalleryView, ...]
    spent: tuple[Spent, ...]


def to_html(report: Report) -> str:
    """The whole page; whatever evidence says is escaped."""
    page = Environment(
        loader=PackageLoader("assay.reports"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )
    return page.get_template("report.html.j2").render(
        report=report, views=[_view(band) for band in report.bands], words=words, scanned=SCAN
    )


def legend(bracket: Bracket, missing: Sequence[Evidence] = ()) -> tuple[Row, ...]:
    """What each part of the bar means, from the proved side to the clean error."""
    gaps = " NOT RUN: " + words.listing(e.attack for e in missing) + "." if missing else ""
    shown, proven = (bracket.lower, bracket.upper) if bracket.rising else (bracket.upper, bracket.lower)
    because = {
        "proved": f"{proven.sentence}." if proven else "",
        "unknown": "Neither broken nor proved." + gaps,
        "broken": f"{shown.sentence}." if shown else "",
        "wrong": "Wrong without any attack.",
        "contradiction": "Both broken and proved: one side is wrong.",
    }
    rows = []
    for segment in bracket.segments:
        end = {"proved": proven, "broken": shown}.get(segment.part) if bracket.unit == "number" else None
        share = end.short if end else words.figure(segment.length * bracket.top, bracket.unit)
        rows.append(Row(segment.part, _NAMES.get(segment.part, segment.part), share, because[segment.part]))
    parts, nothing = {row.part for row in rows}, words.figure(0, bracket.unit)
    if "proved" not in parts:
        rows.insert(0, Row("proved", "proved", nothing, because["proved"] or "No proof ran."))
    if "broken" not in parts:
        rows.append(Row("broken", "broken", nothing, because["broken"] or "No attack ran."))
    return tuple(rows)


def _view(band: Band) -> BandView:
    return BandView(
        band=band,
        brackets=tuple((b, draw_bracket(b), legend(b, band.missing)) for b in band.brackets),
        curves=tuple((c, draw_curve(c)) for c in band.curves),
        galleries=tuple(_gallery(g) for g in band.galleries),
        spent=tuple(_spent(e) for e in band.ran),
    )


def _gallery(gallery: Gallery) -> GalleryView:
    return GalleryView(
        attack=gallery.attack, shown=show(gallery.cases, _SHOWN), total=len(gallery.cases),
        scale=f"{amplification(gallery.cases, _SHOWN):g}",
    )


def _spent(evidence: Evidence) -> Spent:
    n, cost = words.points(evidence), evidence.cost
    totals = (cost.forwards, cost.backwards, cost.queries)
    return Spent(
        attack=evidence.attack, kind=evidence.kind,
        cells=tuple((words.per_point(total, n), f"{total:,}") for total in totals),
        seconds=words.seconds(cost.seconds),
    )
