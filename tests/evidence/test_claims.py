"""What a claim's sentence means, and the verdict on it for each kind of evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from assay.errors import ConfigError
from assay.evidence.bound import AT_LEAST, AT_MOST, ROBUST, Bound, quantity_at
from assay.evidence.claim import VOIDING, Claim
from assay.evidence.compare import compare
from assay.evidence.contradiction import with_contradictions
from assay.evidence.record import Cost, Doubt, Evidence, Threat, not_run

THREAT = Threat(goal="misclassify", access="gradients", budget="linf 0.1")


def played(robust: int, n: int = 1000, *, doubts: tuple[str, ...] = (), budget: str = "linf 0.1", quantity: str = ROBUST) -> Evidence:
    bound = Bound.of_count(quantity, AT_MOST, robust, n, method="PGD()")
    return Evidence(kind="played", game="evasion", trial="a" * 64, target="net", threat=replace(THREAT, budget=budget),
                    attack="PGD()", seed=0, bounds=(bound,), doubts=tuple(Doubt(code, "seen") for code in doubts))


def proved(certified: int, n: int = 1000, *, budget: str = "linf 0.1") -> Evidence:
    bound = Bound.of_count(ROBUST, AT_LEAST, certified, n, method="CROWN()")
    return Evidence(kind="proved", game="evasion", trial="b" * 64, target="net", threat=replace(THREAT, budget=budget),
                    attack="CROWN()", seed=0, bounds=(bound,))


def missing() -> Evidence:
    return not_run(game="evasion", trial="c" * 64, target="net", threat=THREAT, attack="FAB()", seed=0,
                   error=RuntimeError("boom"))


@pytest.mark.parametrize(
    ("text", "quantity", "op", "level"),
    [
        ("robust accuracy >= 0.40", "robust accuracy", ">=", 0.4),
        ("robust accuracy >= 40 %", "robust accuracy", ">=", 0.4),
        ("robust accuracy>=40%", "robust accuracy", ">=", 0.4),
        ("  Robust Accuracy  <=  1e-1 ", "robust accuracy", "<=", 0.1),
        ("epsilon@delta=1e-5 <= 3", "epsilon@delta=1e-05", "<=", 3.0),
        ("tpr@fpr=0.001 <= 0.5 %", "tpr@fpr=0.001", "<=", 0.005),
        ("robust accuracy @ linf 0.03 >= .5".replace(" .5", " 0.5"), "robust accuracy @ linf 0.03", ">=", 0.5),
    ],
)
def test_a_claim_is_read(text: str, quantity: str, op: str, level: float) -> None:
    claim = Claim.parse(text)
    assert (claim.quantity, claim.op) == (quantity, op)
    assert claim.level == pytest.approx(level, rel=1e-15)
    assert Claim.parse(str(claim)) == claim


@pytest.mark.parametrize(
    "text",
    ["", "robust accuracy", "robust accuracy = 0.4", "robust accuracy > 0.4", ">= 0.4", "robust accuracy >= ", "a >= 0.4 0.5",
     "a >= forty", "a >= -1", "a >= 0.4 <= 0.5", "a =>= 0.4", "a >= nan", "0.4 <= robust accuracy"],
)
def test_what_is_no_claim_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Claim.parse(text, id="c1")
    assert caught.value.code == "CFG120"
    assert caught.value.where == "claim c1"


def test_a_judgment_carries_what_it_is_about() -> None:
    claim = Claim.parse("robust accuracy >= 0.5", id="C", about="points", budget="linf 0.1")
    verdict = claim.judge([played(800)])
    assert (verdict.id, verdict.claim, verdict.about, verdict.budget) == ("C", "robust accuracy >= 0.5", "points", "linf 0.1")
    assert set(verdict.to_json()) >= {"id", "claim", "verdict", "because"}
    assert Claim.parse("robust accuracy >= 0.5").judge([]).id == "robust accuracy >= 0.5"


TABLE = {
    "broken": ("broken", [played(100)]),
    "broken beside a proof of less": ("broken", [played(100), proved(50)]),
    "standing": ("standing", [played(800)]),
    "proven": ("proven", [proved(600)]),
    "proven, whatever the attack's doubts": ("proven", [played(800, doubts=("DBT103",)), proved(600)]),
    "standing, for a proof of too little": ("standing", [played(800), proved(300)]),
    "a proof alone that does not suffice": ("undecided", [proved(300)]),
    "nothing": ("undecided", []),
    "not run": ("undecided", [missing()]),
    "not run beside what stands": ("undecided", [played(800), missing()]),
    "not run beside what broke": ("broken", [played(100), missing()]),
    "not run beside a proof": ("proven", [missing(), proved(600)]),
    "another quantity": ("undecided", [played(800, quantity=quantity_at(ROBUST, "linf 0.03"))]),
    "contradiction": ("undecided", [played(100, doubts=("DBT120",)), proved(600)]),
    "one sound attack suffices": ("standing", [played(800, doubts=("DBT103",)), played(810)]),
    "too few points": ("undecided", [played(9, 20)]),
    "exactly the level": ("standing", [played(500)]),
}


@pytest.mark.parametrize("case", TABLE)
def test_verdicts(case: str) -> None:
    verdict, found = TABLE[case]
    assert Claim.parse("robust accuracy >= 0.5").judge(found).verdict == verdict


def test_too_few_points_are_named() -> None:
    claim = Claim.parse("robust accuracy >= 0.5")
    few = played(9, 20)
    assert few.bounds[0].estimate == 0.45
    assert few.bounds[0].value > 0.5
    assert claim.judge([few]).because.startswith("DBT109")
    assert replace(claim, about="points").judge([few]).verdict == "broken"


def test_points_and_distribution_differ_for_proofs_too() -> None:
    claim = Claim.parse("robust accuracy >= 0.5")
    found = [proved(11, 20)]
    assert found[0].bounds[0].value < 0.5
    assert claim.judge(found).verdict == "undecided"
    assert replace(claim, about="points").judge(found).verdict == "proven"


@pytest.mark.parametrize("code", sorted(VOIDING))
def test_doubt_voids_a_stand_but_not_a_break(code: str) -> None:
    claim = Claim.parse("robust accuracy >= 0.5")
    assert claim.judge([played(800, doubts=(code,))]).verdict == "undecided"
    assert code in claim.judge([played(800, doubts=(code,))]).because
    assert claim.judge([played(100, doubts=(code,))]).verdict == "broken"


def test_the_largest_break_is_told() -> None:
    said = Claim.parse("robust accuracy >= 0.5").judge([played(400), replace(played(100), attack="FAB()")]).because
    assert said.startswith("FAB() shows robust accuracy at most 0.1 on 1000 points")


def test_only_the_budget_that_is_meant_counts() -> None:
    found = [played(100, budget="linf 0.2"), played(800)]
    assert Claim.parse("robust accuracy >= 0.5").judge(found).verdict == "broken"
    assert Claim.parse("robust accuracy >= 0.5", budget="linf 0.1").judge(found).verdict == "standing"
    assert Claim.parse("robust accuracy >= 0.5", budget="l2 9").judge(found).verdict == "undecided"


def test_an_upper_claim_turns_the_sides_round() -> None:
    claim = Claim.parse("robust accuracy <= 0.5")
    assert claim.judge([played(100)]).verdict == "proven"
    assert claim.judge([proved(600)]).verdict == "broken"
    assert claim.judge([proved(100)]).verdict == "standing"


@given(n=st.integers(1, 3000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.9999))
def test_what_is_implied_is_clopper_pearson(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    high = Bound.of_count("q", AT_MOST, k, n, method="m", confidence=confidence)
    low = Bound.of_count("q", AT_LEAST, k, n, method="m", confidence=confidence)
    exact_high = binomtest(k, n, alternative="less").proportion_ci(confidence, method="exact").high
    exact_low = binomtest(k, n, alternative="greater").proportion_ci(confidence, method="exact").low
    assert high.value == pytest.approx(exact_high, rel=1e-9, abs=1e-12)
    assert low.value == pytest.approx(exact_low, rel=1e-9, abs=1e-12)
    assert low.value <= low.estimate == high.estimate == k / n <= high.value


def test_bounds_at_the_ends() -> None:
    assert Bound.of_count("q", AT_MOST, 10, 10, method="m").value == 1.0
    assert Bound.of_count("q", AT_LEAST, 0, 10, method="m").value == 0.0
    assert Bound.of_count("q", AT_LEAST, 10, 10, method="m").value == pytest.approx(0.05 ** (1 / 10), rel=1e-9)
    assert Bound.of_count("q", AT_MOST, 0, 0, method="m").estimate == 1.0
    assert Bound.of_count("q", AT_LEAST, 0, 0, method="m").estimate == 0.0


def test_shares_contradict_only_where_they_are_about_the_same() -> None:
    same = {"model": "m", "data": "d"}
    attack, proof = replace(played(400), provenance=same), replace(proved(600), provenance=same)
    assert [[d.code for d in e.doubts] for e in with_contradictions([attack, proof])] == [["DBT120"], ["DBT120"]]
    other = replace(proof, provenance={"model": "other", "data": "d"})
    assert [e.doubts for e in with_contradictions([attack, other])] == [(), ()]
    assert [e.doubts for e in with_contradictions([replace(attack, threat=replace(THREAT, budget="linf 0.2")), proof])] == [(), ()]
    assert [e.doubts for e in with_contradictions([replace(played(600), provenance=same), proof])] == [(), ()]


def test_evidence_side_by_side_costs_a_point() -> None:
    rows = compare(replace(played(400), cost=Cost(forwards=5000, backwards=2000, seconds=2.0)), missing()).rows
    assert (rows[0].forwards, rows[0].backwards, rows[0].seconds, rows[0].doubts) == (5.0, 2.0, 2.0, ())
    assert (rows[1].forwards, rows[1].bounds, rows[1].doubts) == (0.0, (), ("NOT RUN",))


def test_evidence_names_the_bounds_it_has() -> None:
    assert played(400)[ROBUST].estimate == 0.4
    with pytest.raises(KeyError, match="robust accuracy"):
        played(400)["clean accuracy"]
    assert missing().error == "RUN101  RuntimeError: boom"
    assert missing().error_exit == 3


def leaking(side: str, value: float, kind: str, *, procedure: str = "p", quantity: str = "epsilon@delta=1e-05",
            budget: str = "epsilon 1 delta 1e-05") -> Evidence:
    bound = Bound(quantity=quantity, side=side, estimate=value, value=value, confidence=0.95, n=1000, method="m")
    return Evidence(kind=kind, game="privacy.audit", trial="d" * 64, target="fit", attack=f"{kind}()", seed=0, bounds=(bound,),
                    threat=Threat(goal="membership", access="scores", budget=budget), provenance={"procedure": procedure})


def test_more_leakage_demonstrated_than_proved_possible_is_a_contradiction() -> None:
    """Tramer et al. (2022): an accountant said 0.21, 200,000 trainings show 2.79."""
    attack, proof = with_contradictions([leaking(AT_LEAST, 2.79, "played"), leaking(AT_MOST, 0.21, "proved")])
    assert [doubt.code for doubt in attack.doubts + proof.doubts] == ["DBT120", "DBT120"]
    assert proof.doubts[0].text == "played() shows epsilon@delta=1e-05 at least 2.79 where at most 0.21 is proved (proved())"


@pytest.mark.parametrize("attack", [
    leaking(AT_LEAST, 0.2, "played"),
    leaking(AT_LEAST, 2.79, "played", procedure="another"),
    leaking(AT_LEAST, 2.79, "played", quantity="epsilon@delta=1e-06"),
    leaking(AT_MOST, 2.79, "played"),
], ids=["below", "another procedure", "another delta", "the same side"])
def test_what_is_no_contradiction_about_leakage(attack: Evidence) -> None:
    assert not any(one.doubts for one in with_contradictions([attack, leaking(AT_MOST, 0.21, "proved")]))


def test_an_epsilon_is_about_every_example_but_a_rate_about_those_asked() -> None:
    canaries = {"budget": "mislabeled 100"}
    assert with_contradictions([leaking(AT_LEAST, 2.79, "played", **canaries), leaking(AT_MOST, 0.21, "proved")])[0].doubts
    rate = {"quantity": "tpr@fpr=0.01"}
    assert not with_contradictions([leaking(AT_LEAST, 0.5, "played", **rate, **canaries), leaking(AT_MOST, 0.2, "proved", **rate)])[0].doubts
