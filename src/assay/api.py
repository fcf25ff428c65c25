"""The same as the command line, from Python: audit a plan, report evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from assay.audits.plan import Plan
from assay.audits.run import Outcome, perform
from assay.evidence.claim import Claim
from assay.evidence.contradiction import with_contradictions
from assay.evidence.ledger import Ledger
from assay.evidence.record import Evidence
from assay.reports import Meta, build, to_html, to_junit, to_markdown

if TYPE_CHECKING:
    from assay.reports import Report


@dataclass(frozen=True)
class Document:
    """A report that can be saved; ``.html``, ``.md`` or ``.xml`` (JUnit) by its suffix."""

    report: Report

    def save(self, path: str | Path) -> Path:
        """Writes the report; returns where. Raises ``ValueError`` for another suffix."""
        path = Path(path)
        makers = {".html": to_html, ".md": to_markdown, ".xml": to_junit}
        if path.suffix not in makers:
            raise ValueError(f"a report is saved as one of {', '.join(makers)}; got {path.name!r}")
        path.write_text(makers[path.suffix](self.report), encoding="utf-8")
        return path


def report(evidence: Sequence[Evidence], *, claims: Sequence[Claim] = (), title: str = "Security audit") -> Document:
    """The report of this evidence, with the claims judged on it."""
    found = with_contradictions(evidence)
    meta = Meta(title=title, date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
    return Document(build(found, [claim.judge(found) for claim in claims], meta=meta))


def audit(plan: str | Path, *, suite: str = "", ledger: str | Path | None = None) -> Outcome:
    """Runs a plan to its end, as ``assay run`` does; evidence goes to ``assay-ledger`` beside the plan.

    Args:
        plan: the TOML file.
        suite: ``"quick"``, ``"standard"`` or ``"thorough"``; empty for what the plan says.
        ledger: another folder for the evidence.

    Raises:
        AssayError: where plan, data or target cannot be used.
    """
    path = Path(plan)
    parsed = Plan.read(path)
    with Ledger.open(ledger or path.parent / "assay-ledger") as book:
        book.plan(path.read_text(encoding="utf-8"), folder=str(path.parent.resolve()))
        for event in perform(parsed, folder=path.parent, ledger=book, suite=suite):
            if isinstance(event, Outcome):
                return event
    raise AssertionError("an audit ends with its outcome")
