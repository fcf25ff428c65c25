"""The report as SARIF 2.1.0, for code scanning: broken claims and trials that could not run are errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from assay.errors import Finding, findings
from assay.reports import words
from assay.reports.document import CONTRADICTION, Report, finding_of

Level = Literal["error", "warning"]

CLAIM = "ASSAY-CLAIM"
NOT_RUN = "ASSAY-NOT-RUN"

_OWN = {
    CLAIM: Finding(CLAIM, "A claim is broken or cannot be decided", "Evidence shows that what must hold does not, or "
                   "does not suffice to tell.", "Read the report; mend the model, or claim what holds."),
    NOT_RUN: Finding(NOT_RUN, "A trial could not run", "What was not tried is not known; it is neither a pass nor a "
                     "failure of the model.", "Mend what the error names and run the audit again."),
}


@dataclass(frozen=True)
class Result:
    """One finding of the report; ``subject`` stays the same from run to run, so that an alert is not raised anew."""

    rule: str
    level: Level
    subject: str
    text: str
    line: int = 1


def to_sarif(report: Report) -> dict[str, object]:
    """The log as plain data; every result points at the plan, at the claim's line where it is known."""
    results = list(dict.fromkeys(_results(report)))
    rules = sorted({r.rule for r in results} | {CLAIM})
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "Assay", "version": report.meta.version,
                "rules": [_rule(code) for code in rules],
            }},
            "automationDetails": {"id": f"assay/{report.meta.plan}"},
            "invocations": [{"executionSuccessful": not report.missing}],
            "results": [_result(r, rules.index(r.rule), report.meta.plan) for r in results],
        }],
    }


def _results(report: Report) -> Iterator[Result]:
    for claim in report.claims:
        if claim.verdict in ("broken", "undecided"):
            level: Level = "error" if claim.verdict == "broken" else "warning"
            text = f"{claim.id} is {claim.verdict}: {claim.claim}. {claim.because}"
            yield Result(CLAIM, level, claim.id, text, report.meta.lines.get(claim.id, 1))
    for band in report.bands:
        where = f"{band.target} ({band.budget})"
        for text in band.contradictions:
            yield Result(CONTRADICTION, "error", where, f"{where}: {text}")
        for doubt in band.doubts:
            if doubt.code != CONTRADICTION:
                yield Result(doubt.code, "warning", where, f"{where}: {doubt.text} [{words.listing(doubt.by)}]")
        for e in band.missing:
            code = e.error.partition(" ")[0]
            rule = code if code in findings() else NOT_RUN
            what = f"{e.attack} against {where}"
            yield Result(rule, "error", what, f"NOT RUN: {what}: {words.first_line(e.error)}")


def _rule(code: str) -> dict[str, object]:
    finding = _OWN.get(code) or finding_of(code)
    why = finding.why or finding.title
    return {
        "id": code,
        "name": code,
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": why},
        "help": {
            "text": f"{finding.title}. {why} {finding.fix}",
            "markdown": f"**{finding.title}.** {why}\n\n{finding.fix}",
        },
        "defaultConfiguration": {"level": "warning" if code.startswith("DBT") and code != CONTRADICTION else "error"},
        "properties": {"tags": ["security", "machine-learning"], "precision": "high"},
    }


def _result(result: Result, index: int, plan: str) -> dict[str, object]:
    same = hashlib.sha256(f"{result.rule} {result.subject}".encode()).hexdigest()[:16]
    return {
        "ruleId": result.rule,
        "ruleIndex": index,
        "level": result.level,
        "message": {"text": result.text},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": quote(plan, safe="/:")},
            "region": {"startLine": max(1, result.line)},
        }}],
        "partialFingerprints": {"assay/v1": same},
    }
