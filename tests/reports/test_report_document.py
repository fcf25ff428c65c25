"""What the one intermediate structure makes of evidence: groups, brackets, curves, verdict, coverage."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sample_audit import CLEAN_COUNT, MAIN, Audit, N, audit, lost, played, proved

from assay.evidence.bound import AT_LEAST, AT_MOST, ROBUST, Bound
from assay.evidence.claim import Judgment
from assay.evidence.record import Artefact, Doubt
from assay.reports import build, words
from assay.reports.bracket import bracket, curve


def test_both_sides_on_the_same_points_make_one_band_with_the_tightest_ends(typical: Audit) -> None:
    weaker = played("FGSM()", counts={MAIN: 260})
    report = build([*typical.evidence, weaker], [])
    (band,) = report.bands
    (robust,) = band.brackets
    assert robust.upper
    assert robust.lower
    assert (robust.upper.by, robust.upper.bound.estimate) == ("APGD(steps=100)", 190 / N)
    assert (robust.lower.by, robust.lower.bound.estimate) == ("CROWN()", 156 / N)
    assert robust.unknown == pytest.approx((190 - 156) / N)
    assert set(band.facts) == {"clean accuracy"}


def test_other_target_threat_or_data_make_other_bands() -> None:
    other = replace(played("B()"), threat=replace(played().threat, access="labels"))
    bands = build([played(), played(target="mlp"), played(data="d2"), other], []).bands
    assert len(bands) == 4


def test_the_segments_fill_the_scale_in_order() -> None:
    parts = bracket(ROBUST, [played(), proved()]).segments
    assert [s.part for s in parts] == ["proved", "unknown", "broken", "wrong"]
    assert [s.start for s in parts] == pytest.approx([0, 156 / N, 190 / N, CLEAN_COUNT / N])
    assert parts[-1].stop == 1
    assert all(a.stop == b.start for a, b in pairwise(parts))


@pytest.mark.parametrize(("evidence", "parts"), [
    ([played()], ["unknown", "broken", "wrong"]),
    ([proved()], ["proved", "unknown", "wrong"]),
])
def test_a_missing_side_leaves_its_part_unknown(evidence: list, parts: list[str]) -> None:
    assert [s.part for s in bracket(ROBUST, evidence).segments] == parts


def test_leakage_is_broken_from_below_and_proved_from_above() -> None:
    def one(kind: str, side: str, value: float):
        bound = Bound(quantity="epsilon@delta=1e-5", side=side, estimate=value, value=value, confidence=0.95, n=100, method="m")
        return replace(played(), kind=kind, bounds=(bound,))

    found = bracket("epsilon@delta=1e-5", [one("played", AT_LEAST, 1.5), one("proved", AT_MOST, 4.0)])
    assert found.rising
    assert found.unit == "number"
    assert found.top == 5.0
    assert [(s.part, round(s.start, 9)) for s in found.segments] == [("broken", 0), ("unknown", 0.3), ("proved", 0.8)]


def test_a_curve_says_only_what_monotonicity_implies() -> None:
    found = curve(ROBUST, [played(counts={0.1: 200, 0.05: 400}), proved(counts={0.1: 100, 0.05: 300})])
    assert found
    assert [p.radius for p in found.points] == [0.05, 0.1]
    assert [(s.start, s.lower, s.upper) for s in found.steps] == [
        (0.0, 0.6, CLEAN_COUNT / N), (0.05, 0.2, 0.8), (0.1, 0.0, 0.4),
    ]
    assert curve(ROBUST, [played(counts={0.1: 200})]) is None


def test_crossed_sides_are_a_contradiction(contradictory: Audit) -> None:
    report = contradictory.report()
    assert report.tone == "contradiction"
    assert report.headline.startswith("The evidence contradicts itself")
    assert "CROWN() says at least 43.2%, APGD(steps=100) says at most 38.0%" in report.contradictions[0]
    assert all("not to be trusted" in claim.note for claim in report.claims)
    assert "contradiction" in {s.part for s in report.bands[0].brackets[0].segments}


def test_points_both_broken_and_proved_are_a_contradiction_even_where_the_sums_agree() -> None:
    attack = replace(played(), artefacts={"points": Artefact(
        {"correct": np.array([1, 1, 0], np.uint8), "broken_at": np.array([0.1, np.inf, 0.1])})})
    proof = replace(proved(), artefacts={"points": Artefact(
        {"correct": np.array([1, 1, 0], np.uint8), "certified_at": np.array([0.1, 0.1, 0.1])})})
    (said,) = build([attack, proof], []).contradictions
    assert said == "1 point that CROWN() proved safe fell to APGD(steps=100) within the budget"
    assert not build([attack, replace(proof, artefacts={})], []).contradictions


def test_a_contradiction_that_the_evidence_states_is_passed_on() -> None:
    report = build([played(doubts=(Doubt("DBT120", "point 7 is both"),))], [])
    assert report.contradictions == ("point 7 is both",)


def test_a_trial_that_could_not_run_joins_the_band_it_was_meant_for_and_is_never_a_pass(incomplete: Audit) -> None:
    report = incomplete.report()
    (band,) = report.bands
    assert [e.attack for e in band.missing] == ["SquareAttack(queries=1000)"]
    assert "1 trial could not run" in report.rest
    (evasion,) = [c for s in report.stages for c in s.wings if c.wing == "evasion"]
    assert (evasion.state, evasion.text) == ("partly", "1 trial, 1 NOT RUN")
    alone = build([lost()], [Judgment(id="A", claim="a >= 1", verdict="proven", because="x")])
    assert alone.tone == "undecided"
    assert [c.state for s in alone.stages for c in s.wings if c.wing == "evasion"] == ["not run"]


def test_the_headline_counts_and_standing_is_never_called_safe(typical: Audit) -> None:
    report = typical.report()
    assert report.headline == "1 of 2 claims is broken: ROB-1."
    assert report.rest.startswith("1 of 2 claims is standing, not broken and not proven: ROB-2.")
    standing = audit(played(), claims={"A": "robust accuracy >= 0.3"}).report()
    assert standing.headline == "The claim is standing, not broken and not proven: A."
    assert standing.claims[0].note == "not broken by APGD(steps=100), not proven"
    assert build([], []).headline == "No claim was made: this is evidence without a verdict."


def test_wings_without_evidence_are_shown_as_not_covered_and_unknown_games_are_kept() -> None:
    stages = build([played(), replace(played("C()"), game="sorcery")], []).stages
    assert [s.name for s in stages] == ["data", "training", "model", "serving", "other"]
    states = {c.wing: c.state for s in stages for c in s.wings}
    assert len(states) == 9
    assert {w for w, s in states.items() if s == "covered"} == {"evasion", "sorcery"}


def test_claims_are_marked_on_the_bracket_unless_several_budgets_leave_open_which(typical: Audit) -> None:
    (robust,) = typical.report().bands[0].brackets
    assert [(level.id, level.op, level.level) for level in robust.levels] == [("ROB-1", ">=", 0.45), ("ROB-2", ">=", 0.3)]
    other = replace(played("B()"), threat=replace(played().threat, budget="l2 1"))
    report = build([*typical.evidence, other], typical.judgments)
    assert all(not b.levels for band in report.bands for b in band.brackets)


def test_control_and_direction_characters_do_not_survive(hostile: Audit) -> None:
    report = hostile.report()
    assert all("\x1b" not in text for e in report.evidence for text in (e.attack, e.target, e.error))
    assert "\x1b" not in report.meta.title + report.claims[0].because + report.claims[0].claim
    assert words.clean("a\u202eb\x00") == "a\ufffdb\ufffd"


@pytest.mark.parametrize(("value", "text"), [(0.38, "38.0%"), (0.9999, "99.99%"), (1.0, "100.0%"), (0.0, "0.0%"), (0.0004, "0.04%")])
def test_a_figure_never_rounds_to_a_certainty_it_is_not(value: float, text: str) -> None:
    assert words.figure(value, "share") == text


def test_implied_bounds_are_rounded_outward() -> None:
    assert words.implied(0.41723, AT_MOST, "share") == "41.8%"
    assert words.implied(0.27799, AT_LEAST, "share") == "27.7%"
    assert words.implied(0.5, AT_MOST, "share") == "50.0%"


def test_the_adversary_is_said_in_words() -> None:
    threat = replace(played().threat, budget="linf 0.0313725 uint8", queries=1000)
    said = words.adversary(threat)
    assert "may change every input value by at most 8/255" in said
    assert "8 bits" in said
    assert said.endswith("and may query at most 1,000 times per point.")


def test_reporting_does_not_import_torch() -> None:
    code = (
        "import sys; from importlib import import_module; r = import_module('assay.reports')\n"
        "[getattr(r, name) for name in r.__all__]\n"
        "assert callable(r.schema) and callable(r.schema)\n"
        "r.to_html(r.build([], [])); r.to_sarif(r.build([], []))\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
