"""What a person sees while and after an audit runs: progress on stderr, results on stdout, files where asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.errors import ConfigError, nearest

if TYPE_CHECKING:
    from assay.audits.run import Outcome
    from assay.evidence.record import Evidence
    from assay.games import Progress
    from assay.reports import Report

FORMATS = {
    "html": "report.html",
    "json": "report.json",
    "junit": "junit.xml",
    "markdown": "report.md",
    "sarif": "assay.sarif",
}
"""Formats and the file each is written to."""


def follow(events: Iterable[Progress | Evidence | Outcome], *, quiet: bool) -> Outcome:
    """Draws progress on a terminal's stderr, one line a method elsewhere; returns the outcome."""
    from assay.audits.run import Outcome
    from assay.evidence.record import Evidence

    live = sys.stderr.isatty() and not quiet
    last = ""
    for event in events:
        if isinstance(event, Outcome):
            if live:
                click.echo("\r\x1b[K", nl=False, err=True)
            return event
        if isinstance(event, Evidence):
            continue
        if live:
            click.echo(f"\r\x1b[K{_line(event)}", nl=False, err=True)
        elif not quiet and event.method and event.method != last:
            click.echo(_line(event), err=True)
            last = event.method
    raise AssertionError("an audit ends with its outcome")


def _line(event: Progress) -> str:
    share = f"{event.done}/{event.total}" if event.total else ""
    return f"  {share:>13}  {event.method:<40.40}  {event.note}"


def document(outcome: Outcome, *, bounds: tuple[float, float], plan: str, replay: str, title: str = "") -> Report:
    """The report of an outcome, dated now."""
    from assay.audits.output import worst_cases
    from assay.reports import Meta, build

    meta = Meta(
        title=title or f"Security audit of {plan}",
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        plan=plan,
        replay=replay,
    )
    cases = worst_cases(outcome.evidence, outcome.samples, bounds)
    return build(outcome.evidence, outcome.judgments, examples=cases, meta=meta)


def show(report: Report, outcome: Outcome, *, as_json: bool) -> None:
    """The result on stdout: one JSON object, or the summary a person reads."""
    if as_json:
        from assay.reports import to_json

        click.echo(json.dumps(to_json(outcome.evidence, outcome.judgments), indent=2))
        return
    from rich.console import Console

    from assay.reports import to_terminal

    console = Console(highlight=False)
    console.print(to_terminal(report, console.width))


def formats(text: str) -> list[str]:
    """The formats in a comma-separated list. Raises ``ConfigError`` (CFG107)."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise ConfigError("CFG107", f"there is no format {name!r}{nearest(name, FORMATS)}", where="--format")
    return names


def render(report: Report, outcome: Outcome, name: str) -> str:
    """The report in one format."""
    from assay.reports import to_html, to_json, to_junit, to_markdown, to_sarif

    if name == "json":
        return json.dumps(to_json(outcome.evidence, outcome.judgments), indent=2) + "\n"
    if name == "sarif":
        return json.dumps(to_sarif(report), indent=2) + "\n"
    return {"html": to_html, "junit": to_junit, "markdown": to_markdown}[name](report)


def write(report: Report, outcome: Outcome, names: Iterable[str], folder: Path) -> None:
    """Writes the formats asked for, and says where."""
    for name in names:
        path = folder / FORMATS[name]
        save(path, render(report, outcome, name))
        click.echo(f"wrote {path}", err=True)


def save(path: Path, text: str) -> None:
    """Writes a file. Raises ``ConfigError`` (CFG108)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("CFG108", f"cannot write {path}: {error.strerror}") from error
