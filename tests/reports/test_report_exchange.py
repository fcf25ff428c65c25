"""What machines read: JSON and its schema, SARIF, JUnit, Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator
from sample_audit import Audit, lost, played

from assay.evidence.bound import AT_MOST, Bound
from assay.evidence.claim import Judgment
from assay.evidence.record import Cost, Doubt, Threat
from assay.reports import Meta, build, schema, to_json, to_junit, to_markdown, to_sarif

GOLDEN = Path(__file__).parent / "golden" / "schema.json"


def test_the_schema_is_the_published_one() -> None:
    """Other people's programs read this: change the golden file only together with a new version."""
    assert schema() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_schema_is_valid_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(schema())
    assert not list(_undescribed(schema()))
    cost = schema()["$defs"]["cost"]["properties"]
    assert "divide by n" in cost["forwards"]["description"]


def test_the_schema_names_exactly_what_evidence_has(typical: Audit) -> None:
    defs = schema()["$defs"]
    evidence, judgment = typical.evidence[0], typical.judgments[0]
    assert list(defs["evidence"]["properties"]) == list(evidence.to_json())
    assert list(defs["claim"]["properties"]) == list(judgment.to_json())
    for name, kind in {"bound": Bound, "cost": Cost, "doubt": Doubt, "threat": Threat}.items():
        assert set(defs[name]["properties"]) == {f.name for f in fields(kind)}


@pytest.mark.parametrize("name", ["typical", "incomplete", "contradictory"])
def test_real_evidence_validates(name: str, request: pytest.FixtureRequest) -> None:
    audit: Audit = request.getfixturevalue(name)
    whole = json.loads(json.dumps(to_json(audit.evidence, audit.judgments), allow_nan=False))
    Draft202012Validator(schema()).validate(whole)
    assert [e["id"] for e in whole["evidence"]] == [e.id for e in audit.evidence]
    assert whole["claims"][0]["verdict"] == audit.judgments[0].verdict


def test_the_schema_refuses_other_words_and_infinity_is_null() -> None:
    unlimited = replace(played().bounds[0], quantity="epsilon", side=AT_MOST, estimate=math.inf, value=math.inf)
    whole = to_json([replace(played(), bounds=(unlimited,))], [])
    assert whole["evidence"][0]["bounds"][0]["value"] is None
    Draft202012Validator(schema()).validate(whole)
    wrong = to_json([], [Judgment(id="A", claim="c", verdict="safe", because="b")])
    assert not Draft202012Validator(schema()).is_valid(wrong)


def test_sarif_levels_rules_and_places(typical: Audit) -> None:
    (run,) = _sarif(typical)["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    found = {(r["ruleId"], r["level"]) for r in run["results"]}
    assert found == {("ASSAY-CLAIM", "error"), ("DBT109", "warning")}
    assert all(rules[r["ruleIndex"]] == r["ruleId"] for r in run["results"])
    claim = next(r for r in run["results"] if r["ruleId"] == "ASSAY-CLAIM")
    assert claim["message"]["text"].startswith("ROB-1 is broken: robust accuracy >= 0.45. APGD(steps=100) shows")
    place = claim["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "audits/digits.toml"}, "region": {"startLine": 12}}
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]


def test_sarif_of_what_is_incomplete_or_contradictory(incomplete: Audit, contradictory: Audit) -> None:
    (run,) = _sarif(incomplete)["runs"]
    assert {(r["ruleId"], r["level"]) for r in run["results"]} == {
        ("ASSAY-CLAIM", "warning"), ("DBT103", "warning"), ("THR105", "error")}
    assert run["invocations"] == [{"executionSuccessful": False}]
    assert any(r["message"]["text"].startswith("NOT RUN: SquareAttack") for r in run["results"])
    (run,) = _sarif(contradictory)["runs"]
    assert ("DBT120", "error") in {(r["ruleId"], r["level"]) for r in run["results"]}
    (run,) = to_sarif(build([replace(lost(), error="OSError: gone")], [], meta=Meta(plan="a b.toml")))["runs"]
    assert run["results"][0]["ruleId"] == "ASSAY-NOT-RUN"
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.toml"


def test_sarif_knows_an_alert_again_when_only_the_numbers_change(typical: Audit) -> None:
    other = replace(typical, judgments=tuple(replace(j, because="other numbers") for j in typical.judgments))
    prints = [[r["partialFingerprints"] for r in _sarif(a)["runs"][0]["results"]] for a in (typical, other)]
    assert prints[0] == prints[1]


def test_junit_counts(typical: Audit, incomplete: Audit, contradictory: Audit) -> None:
    assert _counts(typical) == {"tests": 4, "failures": 1, "errors": 0}
    assert _counts(incomplete) == {"tests": 3, "failures": 0, "errors": 2}
    assert _counts(contradictory)["errors"] == 1
    suite = ElementTree.fromstring(to_junit(incomplete.report()))
    error = suite.find("testcase[@classname='assay.evasion']/error")
    assert error is not None
    assert error.get("message") == "NOT RUN: THR105 SquareAttack(queries=1000) does not play under l0 5"
    said = ElementTree.fromstring(to_junit(typical.report())).findtext("testcase[@classname='assay.evasion']/system-out")
    assert said == str(typical.evidence[0])


def test_junit_survives_hostile_text(hostile: Audit) -> None:
    suite = ElementTree.fromstring(to_junit(hostile.report()))
    assert suite.find(".//script") is None
    assert suite.findall("testcase")[0].get("name") == "<img src=x>: <script>alert(1)</script>\ufffd[31m|`@org`"


def test_markdown_has_a_table_a_claim_and_a_bracket(typical: Audit) -> None:
    text = to_markdown(typical.report())
    lines = text.splitlines()
    assert lines[0] == "## 1 of 2 claims is broken: ROB-1."
    assert "| verdict | claim | why |" in lines
    assert any(line.startswith("| **broken** | **ROB-1** robust accuracy &gt;= 0.45 | APGD(steps=100) shows") for line in lines)
    assert ("| robust accuracy | at least 31.2% by CROWN() | at most 38.0% by APGD(steps=100) | 6.8% | 94.6% |") in lines
    assert any("DBT109" in line and line.startswith("- ⚠️") for line in lines)
    assert "Not covered: poisoning, privacy" in text


def test_markdown_is_loud_about_what_did_not_run_and_what_contradicts(incomplete: Audit, contradictory: Audit) -> None:
    assert "- ❌ **NOT RUN: SquareAttack(queries=1000)**: THR105" in to_markdown(incomplete.report())
    assert "> **Contradiction (DBT120): robust accuracy: CROWN() says" in to_markdown(contradictory.report())


def test_markdown_keeps_hostile_text_inside_its_cell(hostile: Audit) -> None:
    text = to_markdown(hostile.report())
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"@org", text)
    rows = [line for line in text.splitlines() if line.startswith("| **undecided**")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 4


def _sarif(audit: Audit) -> dict:
    return json.loads(json.dumps(to_sarif(audit.report())))


def _counts(audit: Audit) -> dict[str, int]:
    suite = ElementTree.fromstring(to_junit(audit.report()))
    counts = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors")}
    assert counts["tests"] == len(suite.findall("testcase"))
    assert counts["failures"] == len(suite.findall("testcase/failure"))
    assert counts["errors"] == len(suite.findall("testcase/error"))
    return counts


def _undescribed(node: object, path: str = "") -> Iterator[str]:
    for name, child in node.get("properties", {}).items() if isinstance(node, dict) else ():
        if "description" not in child and "$ref" not in child:
            yield f"{path}/{name}"
        yield from _undescribed(child, f"{path}/{name}")
    for name, child in node.get("$defs", {}).items() if isinstance(node, dict) else ():
        if "description" not in child:
            yield name
        yield from _undescribed(child, name)
