"""Suites: how many points and which methods, for plans that do not say, or for a quick look."""

from __future__ import annotations

from dataclasses import dataclass

from assay.audits.plan import Method, Plan, TrialPlan
from assay.errors import ConfigError, nearest


@dataclass(frozen=True)
class Suite:
    """A named effort.

    Attributes:
        points: at most so many examples; ``None`` for all.
        attacks: evasion attacks by the access granted, for trials that name none; those by labels play in L2 and Linf.
        proofs: likewise, where the weights are at hand.
    """

    name: str
    points: int | None
    attacks: dict[str, tuple[Method, ...]]
    proofs: tuple[Method, ...]


SUITES = {
    suite.name: suite
    for suite in (
        Suite("quick", 100, {
            "gradients": ({"name": "apgd", "steps": 20, "loss": "dlr"},),
            "scores": ({"name": "square", "queries": 500},),
            "labels": ({"name": "hop-skip-jump", "queries": 500},),
        }, ("crown-ibp",)),
        Suite("standard", None, {
            "gradients": ("auto-attack",),
            "scores": ("square",),
            "labels": ("hop-skip-jump",),
        }, ("crown",)),
        Suite("thorough", None, {
            "gradients": ({"name": "auto-attack", "version": "plus"},),
            "scores": ({"name": "square", "queries": 10_000},),
            "labels": ({"name": "hop-skip-jump", "queries": 20_000},),
        }, ("crown",)),
    )
}
"""Every suite by name."""


def find(name: str) -> Suite:
    """The suite of this name. Raises CFG131."""
    if name not in SUITES:
        raise ConfigError("CFG131", f"there is no suite called {name!r}{nearest(name, SUITES)}", where="--suite")
    return SUITES[name]


def filled(trial: TrialPlan, suite: Suite, *, proofs: bool) -> TrialPlan:
    """The trial with the suite's methods where it names none."""
    if trial.attacks or trial.proofs:
        return trial
    access = "gradients" if trial.threat.access in ("gradients", "weights") else trial.threat.access
    attacks, proved = suite.attacks[access], suite.proofs if proofs else ()
    return trial.model_copy(update={"attacks": list(attacks), "proofs": list(proved)})


def needed(plan: Plan) -> str:
    """The suite that a plan without methods falls back to."""
    return "standard" if any(not (t.attacks or t.proofs) for t in plan.trial) else ""
