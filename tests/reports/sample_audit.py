"""A realistic audit of a digits classifier, from which every test of a renderer starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from assay.errors import ConfigError
from assay.evidence.bound import AT_LEAST, AT_MOST, CLEAN, ROBUST, Bound, quantity_at
from assay.evidence.claim import Claim, Judgment
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Threat, content_hash, not_run
from assay.reports import Meta, Report, WorstCases, build

N = 500
RADII = (0.02, 0.05, 0.1, 0.15)
BROKEN = {0.02: 441, 0.05: 372, 0.1: 190, 0.15: 61}
PROVED = {0.02: 402, 0.05: 301, 0.1: 156, 0.15: 12}
CLEAN_COUNT = 473
MAIN = 0.1


@dataclass(frozen=True)
class Audit:
    """Evidence, judgments, examples and meta, as an audit hands them over."""

    evidence: tuple[Evidence, ...]
    judgments: tuple[Judgment, ...]
    examples: dict[str, WorstCases]
    meta: Meta

    def report(self) -> Report:
        return build(self.evidence, self.judgments, examples=self.examples, meta=self.meta)


def threat(radius: float = MAIN) -> Threat:
    return Threat(goal="misclassify", access="gradients", budget=f"linf {radius:g}", knows=("model",))


def bounds(counts: dict[float, int], side: str, method: str, n: int = N) -> tuple[Bound, ...]:
    clean = [Bound.of_count(CLEAN, s, CLEAN_COUNT, n, method="evaluation") for s in (AT_MOST, AT_LEAST)]
    at = [
        Bound.of_count(ROBUST if r == MAIN else quantity_at(ROBUST, f"linf {r:g}"), side, k, n, method=method)
        for r, k in counts.items()
    ]
    return (*clean, *at)


def played(attack: str = "APGD(steps=100)", *, target: str = "digits-cnn", counts: dict[float, int] | None = None,
           doubts: tuple[Doubt, ...] = (), seed: int = 0, data: str = "d1") -> Evidence:
    counts = BROKEN if counts is None else counts
    return Evidence(
        kind="played", game="evasion", trial=content_hash("played", attack, target, seed, data), target=target,
        threat=threat(), attack=attack, seed=seed, bounds=bounds(counts, AT_MOST, attack), doubts=doubts,
        cost=Cost(forwards=61_540, backwards=59_020, queries=61_540, seconds=14.2),
        artefacts={"points": Artefact({"correct": np.ones(N, np.uint8)})},
        provenance={"data": content_hash(data), "model": content_hash("model"), "torch": "2.13.0+cpu"},
    )


def proved(proof: str = "CROWN()", *, target: str = "digits-cnn", counts: dict[float, int] | None = None) -> Evidence:
    counts = PROVED if counts is None else counts
    return Evidence(
        kind="proved", game="evasion", trial=content_hash("proved", proof, target), target=target, threat=threat(),
        attack=proof, seed=0, bounds=bounds(counts, AT_LEAST, proof),
        cost=Cost(forwards=3_000, backwards=1_500, seconds=2.3),
        provenance={"data": content_hash("d1"), "model": content_hash("model"), "torch": "2.13.0+cpu"},
    )


def lost(attack: str = "SquareAttack(queries=1000)", *, target: str = "digits-cnn") -> Evidence:
    error = ConfigError("THR105", f"{attack} does not play under l0 5")
    return not_run(game="evasion", trial=content_hash("lost", attack, target), target=target, threat=threat(),
                   attack=attack, seed=0, error=error)


def cases(k: int = 6) -> WorstCases:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[:k] / 16)[:, None].astype(np.float32)
    step = 0.1 * np.sign(np.random.default_rng(0).normal(size=x.shape)).astype(np.float32)
    return WorstCases(
        originals=x, adversarial=(x + step).clip(0, 1), labels=[int(t) for t in digits.target[:k]],
        predicted=[(int(t) + 3) % 10 for t in digits.target[:k]], points=list(range(10, 10 + k)),
    )


def audit(*evidence: Evidence, claims: dict[str, str] | None = None) -> Audit:
    claims = {"ROB-1": "robust accuracy >= 0.45", "ROB-2": "robust accuracy >= 0.30"} if claims is None else claims
    judgments = tuple(Claim.parse(text, id=id).judge(evidence) for id, text in claims.items())
    examples = {e.id: cases() for e in evidence if e.kind == "played"}
    meta = Meta(title="Digits classifier, release 4", date="2025-03-14", plan="audits/digits.toml", lines={"ROB-1": 12})
    return Audit(evidence, judgments, examples, meta)


@pytest.fixture
def typical() -> Audit:
    """One broken and one standing claim, both sides of the bracket, a curve and a doubt that voids nothing."""
    weak = Doubt("DBT109", "190 of 500 points are few for a claim of 0.45")
    return audit(played(doubts=(weak,)), proved())


@pytest.fixture
def incomplete() -> Audit:
    """A doubted attack, and another one that could not run."""
    return audit(
        played(doubts=(Doubt("DBT103", "34% of 64 points have a zero or non-finite gradient"),)), lost(),
        claims={"ROB-1": "robust accuracy >= 0.30"},
    )


@pytest.fixture
def contradictory() -> Audit:
    """A proof of more than an attack left."""
    return audit(played(), proved(counts={r: k + 60 for r, k in PROVED.items()}))


@pytest.fixture
def hostile() -> Audit:
    """Evidence whose every free string tries to be markup, an escape sequence or a mention."""
    nasty = "<script>alert(1)</script>\x1b[31m|`@org`\n</table>"
    e = played(f"Attack({nasty})", target=nasty, doubts=(Doubt("DBT103", nasty), Doubt("XYZ999", "<b>new</b>")))
    e = replace(e, provenance={**e.provenance, "note": nasty})
    judgments = (Judgment(id="<img src=x>", claim=nasty, verdict="undecided", because=nasty),)
    return Audit((e, lost(nasty, target=nasty)), judgments, {}, Meta(title=nasty, plan="a b.toml"))
