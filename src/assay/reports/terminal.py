"""The report for a terminal: compact, and in ASCII where the terminal has nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment as Piece
from rich.table import Table
from rich.text import Text

from assay.reports import words
from assay.reports.bracket import Bracket
from assay.reports.document import Band, Report

_STYLE = {
    "broken": "bold red", "contradiction": "bold white on red", "undecided": "bold yellow", "standing": "bold blue",
    "proven": "bold green", "none": "bold",
}
_PARTS = {
    "proved": ("█", "#", "green"), "unknown": ("░", "?", "dim"), "broken": ("▓", "x", "red"),
    "wrong": ("·", ".", "dim"), "contradiction": ("▚", "!", "bold white on red"),
}
_PLAIN = str.maketrans({"≥": ">=", "≤": "<=", "·": "-", "–": "-", "—": "-", "→": "->", "…": "...", "×": "x"})


@dataclass(frozen=True)
class Page:
    """The report as something rich can print; it looks at the console's encoding itself."""

    report: Report
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain, width = options.ascii_only, min(self.width, options.max_width)
        for part in _page(self.report, width, plain):
            for piece in console.render(part, options.update(width=width)):
                yield Piece(_ascii(piece.text), piece.style, piece.control) if plain else piece


def to_terminal(report: Report, width: int = 100) -> RenderableType:
    """A renderable no wider than ``width`` columns."""
    return Page(report, width)


def bar(bracket: Bracket, width: int, *, ascii: bool = False) -> Text:
    """The bracket in so many characters; a part that is there has at least one, however short it is."""
    text = Text()
    for part, size in _cells([(s.part, s.length) for s in bracket.segments], width):
        full, plain, style = _PARTS[part]
        text.append((plain if ascii else full) * size, style=style)
    return text


def _cells(parts: list[tuple[str, float]], width: int) -> Iterator[tuple[str, int]]:
    """Characters for each part, ``width`` in all: by largest remainder, none of them empty."""
    exact = [length * width for _, length in parts]
    sizes = [max(1, int(e)) for e in exact]
    while sum(sizes) < width:
        at = max(range(len(sizes)), key=lambda i: exact[i] - sizes[i])
        sizes[at] += 1
    while sum(sizes) > width and max(sizes) > 1:
        at = max(range(len(sizes)), key=lambda i: (sizes[i] > 1, sizes[i] - exact[i]))
        sizes[at] -= 1
    return zip((part for part, _ in parts), sizes)


def _page(report: Report, width: int, plain: bool) -> Iterator[RenderableType]:
    if report.contradictions:
        said = "\n".join((*report.contradictions, "One side is wrong: replay both (DBT120)."))
        yield Panel(Text(said), title="CONTRADICTION", style="bold white on red", width=width)
    yield Text(report.headline, style=_STYLE[report.tone])
    if report.rest:
        yield Text(report.rest)
    if report.claims:
        yield Text()
        yield _claims(report)
    if report.supply:
        yield Text()
        yield from _supply(report)
    for band in report.bands:
        yield Text()
        yield from _band(band, width, plain)
    yield Text()
    yield from _coverage(report)


def _claims(report: Report) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=14)
    table.add_column()
    for claim in report.claims:
        why = Text(words.pretty(claim.claim)) if claim.claim != claim.id else Text()
        why.append(f"\n{claim.note}" if claim.note else "", style="bold")
        why.append(f"\n{claim.because}", style="dim")
        table.add_row(Text(claim.verdict, style=_STYLE[claim.verdict]), Text(claim.id, style="bold"), why)
    return table


def _supply(report: Report) -> Iterator[RenderableType]:
    yield Text("Supply chain", style="bold")
    for row in report.supply:
        about = " · ".join(filter(None, [row.format, row.parameters, f"sha256 {row.fingerprint[:16]}"]))
        yield Text(f"  {row.target} · {about}")
        for sights, nothing in ((row.scan, "not scanned"), (row.leaks, "")):
            if nothing and not sights:
                yield Text(f"    {nothing}", style="dim")
            for sight in sights:
                said = Text.assemble((f"{sight.head}: ", "bold red" if sight.alarming else ""), sight.text)
                yield Padding(said, (0, 0, 0, 4))


def _band(band: Band, width: int, plain: bool) -> Iterator[RenderableType]:
    about = " · ".join(["", band.game, band.budget, band.threat.access])
    yield Text.assemble((words.first_line(band.target), "bold"), about)
    for e in band.missing:
        lost = Text(f"NOT RUN  {e.attack}: {words.first_line(e.error)}", style="bold white on red")
        yield Padding(lost, (0, 0, 0, 2))
    if not band.ran:
        yield Text("  nothing ran: of this threat nothing is known", style="bold red")
    for bracket in band.brackets:
        yield from _bracket(bracket, width, plain)
    for doubt in band.doubts:
        said = Text.assemble((f"! {doubt.code} {doubt.finding.title}: ", "bold yellow"), doubt.text)
        yield Padding(said, (0, 0, 0, 2))
    for e in band.ran:
        yield Padding(Text(f"{e.attack}: {words.spent(e)}; {e.id}", style="dim"), (0, 0, 0, 2))


def _bracket(bracket: Bracket, width: int, plain: bool) -> Iterator[RenderableType]:
    low, high = (f"{e.short}" if e else "" for e in (bracket.lower, bracket.upper))
    head = Text(f"  {bracket.quantity}  ")
    tail = f"  {', '.join(filter(None, [low, high]))}"
    room = width - head.cell_len - len(tail)
    line = bar(bracket, max(10, min(50, room)), ascii=plain)
    yield Text.assemble(head, line, (tail, "bold"))
    for end in (bracket.lower, bracket.upper):
        if end:
            yield Padding(Text(end.sentence), (0, 0, 0, 4))
    key = Text("    ")
    for segment in bracket.segments:
        full, simple, style = _PARTS[segment.part]
        key.append(simple if plain else full, style=style)
        key.append(f" {'clean error' if segment.part == 'wrong' else segment.part}  ", style="dim")
    yield key


def _coverage(report: Report) -> Iterable[Text]:
    covers = [cover for stage in report.stages for cover in stage.wings]
    covered = [f"{c.wing} ({c.text})" for c in covers if c.state != "not covered"]
    missing = [c.wing for c in covers if c.state == "not covered"]
    lost = any(c.missing for c in covers)
    yield Text(f"Covered: {words.listing(covered, most=20) or 'nothing'}.", style="bold red" if lost else "")
    if missing:
        yield Text(f"Not covered: {words.listing(missing, most=20)}.")


def _ascii(text: str) -> str:
    return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii")
