"""Where the demonstrated side crosses the proved side: the loudest finding there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from assay.evidence.bound import AT_LEAST, AT_MOST
from assay.evidence.record import Doubt, Evidence

CODE = "DBT120"


def with_contradictions(found: Sequence[Evidence]) -> list[Evidence]:
    """The same evidence, with doubt DBT120 on both sides of every contradiction.

    Two records contradict each other if they speak of the same model or procedure, data and norm, and a point that
    one proves safe up to a radius was broken by the other within it; or, where the arrays are not at hand, if a proved
    share of the points exceeds a demonstrated one; or if more leakage is demonstrated than is proved possible.
    """
    marked = list(found)
    for i, proof in enumerate(found):
        for j, attack in enumerate(found):
            if proof.kind == "proved" and attack.kind == "played" and (text := _crossing(proof, attack)):
                said = f"{attack.attack} {text} ({proof.attack})"
                marked[i], marked[j] = _doubt(marked[i], said), _doubt(marked[j], said)
    return marked


def _doubt(evidence: Evidence, text: str) -> Evidence:
    return replace(evidence, doubts=(*evidence.doubts, Doubt(CODE, text)))


def _crossing(proof: Evidence, attack: Evidence) -> str:
    same = ("model", "procedure", "data")
    if any(proof.provenance.get(key) != attack.provenance.get(key) for key in same):
        return ""
    if proof.target != attack.target or proof.threat.goal != attack.threat.goal:
        return ""
    if proof.threat.budget.split()[0] == attack.threat.budget.split()[0] and _has_points(proof) and _has_points(attack):
        certified = proof.artefacts["points"].arrays["certified_at"].astype(np.float64)
        broken = attack.artefacts["points"].arrays["broken_at"].astype(np.float64)
        correct = attack.artefacts["points"].arrays["correct"].astype(bool)
        crossed = np.flatnonzero(correct & (broken <= certified))
        if not len(crossed):
            return ""
        return f"broke {len(crossed)} points that are proved safe, the first is point {crossed[0]}"
    for low in (b for b in proof.bounds if b.side == AT_LEAST):
        for high in (b for b in attack.bounds if b.side == AT_MOST and b.quantity == low.quantity):
            if proof.threat.budget == attack.threat.budget and high.n == low.n and low.estimate > high.estimate:
                return f"shows {high.quantity} at most {high.estimate:.4g} where at least {low.estimate:.4g} is proved"
    return _leaking(proof, attack)


def _leaking(proof: Evidence, attack: Evidence) -> str:
    """Of quantities that attacks bound from below, such as epsilon: what both sides say of all runs, not of n points.

    An epsilon is about every pair of data sets, whatever example the adversary added.
    """
    for high in (b for b in proof.bounds if b.side == AT_MOST):
        for low in (b for b in attack.bounds if b.side == AT_LEAST and b.quantity == high.quantity):
            comparable = proof.threat.budget == attack.threat.budget or high.quantity.startswith("epsilon@")
            if comparable and low.value > high.value:
                return f"shows {low.quantity} at least {low.value:.4g} where at most {high.value:.4g} is proved"
    return ""


def _has_points(evidence: Evidence) -> bool:
    return "points" in evidence.artefacts
