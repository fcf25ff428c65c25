"""The supply chain in the report: one row a set of weights, alarms where there is a reason, the caveat always."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from assay.evidence.bound import AT_LEAST, Bound
from assay.evidence.record import Doubt, Evidence, Threat
from assay.reports import Meta, build, to_html, to_markdown
from assay.reports.supply import LEAK, SCAN, supply
from assay.reports.terminal import to_terminal

THREAT = Threat(goal="hide data in the weights", access="weights", budget="100 bytes")


def scan(*doubts: Doubt, weights: str = "aa" * 32, target: str = "vendor.safetensors") -> Evidence:
    return Evidence(kind="played", game=SCAN, trial="1" * 64 + weights, target=target, threat=THREAT,
                    attack="WeightScan()", seed=0, doubts=doubts,
                    provenance={"weights": weights, "format": "safetensors", "parameters": "9,802 weights"})


def leak(right: int, *, weights: str = "aa" * 32, n: int = 1000) -> Evidence:
    bound = Bound.of_count("payload bytes recovered", AT_LEAST, right, n, method="LowBits()")
    return Evidence(kind="played", game=LEAK, trial=f"{right:064d}", target="recipe", threat=THREAT, attack="LowBits()",
                    seed=0, bounds=(bound,), provenance={"weights": weights})


def printed(*evidence: Evidence) -> str:
    out = StringIO()
    Console(file=out, width=100).print(to_terminal(build(evidence, []), 100))
    return out.getvalue()


def test_scan_and_leak_of_the_same_weights_share_a_row():
    rows = supply([scan(), leak(1000), leak(4, weights="bb" * 32)])
    assert [(row.target, len(row.scan), len(row.leaks)) for row in rows] == [
        ("vendor.safetensors", 1, 1), ("recipe", 0, 1),
    ]


def test_what_is_right_by_chance_is_no_alarm():
    """4 of 1,000 bytes are what a guess gets; 20 are not (p < 1e-8), and all are bit-exact."""
    seen = [supply([leak(right)])[0].leaks[0] for right in (4, 20, 1000)]
    assert [s.alarming for s in seen] == [False, True, True]
    assert [s.head for s in seen] == ["4 of 1,000 bytes right, as by chance", "20 of 1,000 bytes right", "Back bit-exact"]


def test_findings_are_told_with_their_code_in_every_rendering():
    report = build([scan(Doubt("PRV610", "25 readable bytes"))], [], meta=Meta(date="2026-01-01"))
    assert report.rest == "A scan of the weights found PRV610."
    for text in (to_html(report), to_markdown(report), printed(scan(Doubt("PRV610", "25 readable bytes")))):
        assert "Supply chain" in text
        assert "PRV610" in text
        assert "25 readable bytes" in text
        assert "aaaaaaaaaaaaaaaa" in text


def test_a_clean_scan_is_no_clean_bill():
    page = to_html(build([scan()], []))
    assert "a clean scan does not make weights clean" in page
    assert "nothing was hidden on purpose" in page


def test_without_scans_there_is_no_such_section(typical):
    assert "Supply chain" not in to_html(typical.report())
    assert "Supply chain" not in to_markdown(typical.report())


def test_markup_in_evidence_stays_text():
    nasty = "<script>alert(1)</script>"
    page = to_html(build([scan(Doubt("XYZ999", nasty), target=nasty)], []))
    assert nasty not in page
    assert "XYZ999" in page
