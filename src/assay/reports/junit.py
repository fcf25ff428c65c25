"""The report as JUnit XML: a test case for every claim and every trial."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from assay.evidence.record import Evidence
from assay.reports import words
from assay.reports.document import ClaimRow, Report

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped."""


def to_junit(report: Report) -> str:
    """One suite. A broken claim fails; an undecided one, and a trial that could not run, is an error."""
    cases = [*(_claim(c) for c in report.claims), *(_trial(e) for e in report.evidence)]
    if report.contradictions:
        cases.append(_contradiction(report.contradictions))
    suite = ElementTree.Element("testsuite", {
        "name": _safe(report.meta.title),
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": "0",
        "time": f"{sum(e.cost.seconds for e in report.evidence):.3f}",
    })
    suite.extend(cases)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _claim(claim: ClaimRow) -> ElementTree.Element:
    case = _case("assay.claims", f"{claim.id}: {claim.claim}" if claim.claim != claim.id else claim.id, 0.0)
    if claim.verdict == "broken":
        _add(case, "failure", claim.because, message=f"broken: {claim.because}", type="broken")
    elif claim.verdict == "undecided":
        _add(case, "error", claim.because, message=f"undecided: {claim.because}", type="undecided")
    said = f"{claim.verdict}: {claim.note or claim.because}"
    _add(case, "system-out", f"{said}\n{claim.because}" if claim.note else said)
    return case


def _trial(evidence: Evidence) -> ElementTree.Element:
    name = f"{evidence.attack} against {evidence.target} ({words.budget(evidence.threat.budget)}, seed {evidence.seed})"
    case = _case(f"assay.{evidence.game}", name, evidence.cost.seconds)
    if evidence.kind == "not run":
        _add(case, "error", evidence.error, message=f"NOT RUN: {words.first_line(evidence.error)}", type="not run")
    _add(case, "system-out", str(evidence))
    return case


def _contradiction(texts: tuple[str, ...]) -> ElementTree.Element:
    case = _case("assay.evidence", "the evidence does not contradict itself", 0.0)
    _add(case, "error", "\n".join(texts), message=f"CONTRADICTION: {texts[0]}", type="DBT120")
    return case


def _case(group: str, name: str, seconds: float) -> ElementTree.Element:
    name = words.first_line(name)
    attributes = {"classname": _safe(group), "name": _safe(name), "time": f"{seconds:.3f}"}
    return ElementTree.Element("testcase", attributes)


def _add(case: ElementTree.Element, tag: str, text: str, *, message: str = "", type: str = "") -> None:
    attributes = {"message": _safe(message), "type": type} if message else {}
    ElementTree.SubElement(case, tag, attributes).text = _safe(text)


def _safe(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
