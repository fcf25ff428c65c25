"""The report as Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from assay.evidence.record import Evidence
from assay.reports import words
from assay.reports.bracket import Bracket
from assay.reports.document import Band, Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~@!])")
_LINK = re.compile(r"(?i)\b(https?|www)(?=[:.])")


def to_markdown(report: Report) -> str:
    """Verdict, claims, one table row a bracket, doubts, what could not run, and what was not covered."""
    meta = report.meta
    lines = [f"## {escape(report.headline)}", ""]
    for text in report.contradictions:
        lines += ["> [!CAUTION]", f"> **Contradiction (DBT120): {escape(text)}.** One of the two is wrong.", ""]
    if report.rest:
        lines += [escape(report.rest), ""]
    if report.claims:
        lines += ["| verdict | claim | why |", "| --- | --- | --- |"]
        for claim in report.claims:
            name = f"**{escape(claim.id)}**" + (f" {escape(claim.claim)}" if claim.claim != claim.id else "")
            why = f"{claim.note}. {claim.because}" if claim.note else claim.because
            lines.append(f"| **{claim.verdict}** | {name} | {escape(why)} |")
        lines.append("")
    lines += [*_supply(report)]
    for band in report.bands:
        lines += [*_band(band), ""]
    uncovered = [cover.wing for stage in report.stages for cover in stage.wings if not cover.ran]
    lines += [f"Not covered: {escape(words.listing(uncovered, most=20))}.", ""] if uncovered else []
    date = f" · {escape(meta.date)}" if meta.date else ""
    lines.append(f"<sub>Assay {escape(meta.version)}{date} · {escape(meta.plan)}</sub>")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown takes as it is: no markup, no mention, no link, no new line."""
    flat = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    flat = flat.replace("\\@", "@\N{WORD JOINER}").replace("\\<", "&lt;").replace("\\>", "&gt;")
    return _LINK.sub("\\1\N{WORD JOINER}", flat)


def _supply(report: Report) -> Iterator[str]:
    if not report.supply:
        return
    yield from ("### Supply chain", "", "| weights | scan | exfiltration |", "| --- | --- | --- |")
    for row in report.supply:
        name = f"{escape(row.target)} {escape(row.format)} `{escape(row.fingerprint[:16])}`"
        cells = ["; ".join(escape(str(s)) for s in sights) for sights in (row.scan, row.leaks)]
        yield f"| {name} | {cells[0] or 'not scanned'} | {cells[1] or 'nothing hidden on purpose'} |"
    yield ""


def _band(band: Band) -> Iterator[str]:
    yield f"### {escape(band.target)}: {escape(band.game)}, {escape(band.budget)}"
    yield ""
    if band.brackets:
        yield "| quantity | proved | shown | unknown | clean |"
        yield "| --- | --- | --- | --- | --- |"
        yield from (_row(b) for b in band.brackets)
        yield ""
    for e in band.missing:
        yield f"- ❌ **NOT RUN: {escape(e.attack)}**: {escape(words.first_line(e.error))}"
    for doubt in band.doubts:
        yield f"- ⚠️ **{escape(doubt.code)} {escape(doubt.finding.title)}**: {escape(doubt.text)}"
    for e in band.ran:
        yield f"- {_cost(e)}"


def _row(bracket: Bracket) -> str:
    shown, proven = (bracket.lower, bracket.upper) if bracket.rising else (bracket.upper, bracket.lower)
    said = [f"{e.short} by {e.by}" if e else "nothing" for e in (proven, shown)]
    unknown = words.figure(bracket.unknown * bracket.top, bracket.unit)
    clean = words.figure(bracket.clean.bound.estimate, bracket.unit) if bracket.clean else "–"
    return f"| {escape(bracket.quantity)} | {escape(said[0])} | {escape(said[1])} | {unknown} | {clean} |"


def _cost(evidence: Evidence) -> str:
    return f"{escape(evidence.attack)}: {words.spent(evidence)}; `{evidence.id}`, seed {evidence.seed}"
