"""Suites: how many points and which methods, for plans that do not say, or for a quick look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.audits.plan import Method, Plan, TrialPlan
from assay.errors import ConfigError, nearest


@dataclass(frozen=True)
class Suite:
    """A named effort.

    Attributes:
        points: at most so many examples; ``None`` for all.
        attacks: by wing and by the access granted, for trials that name none; by labels, evasion plays in L2 and Linf.
        proofs: of evasion, where the weights are at hand.
    """

    name: str
    points: int | None
    attacks: Mapping[str, Mapping[str, tuple[Method, ...]]]
    proofs: tuple[Method, ...]


def _privacy(shadows: int) -> dict[str, tuple[Method, ...]]:
    lira: Method = {"name": "conjugate-lira" if shadows < 64 else "lira", "shadows": shadows}
    return {"scores": ("loss-threshold", lira), "labels": ("gap",)}


SUITES = {
    suite.name: suite
    for suite in (
        Suite("quick", 100, {"evasion": {
            "gradients": ({"name": "apgd", "steps": 20, "loss": "dlr"},),
            "scores": ({"name": "square", "queries": 500},),
            "labels": ({"name": "hop-skip-jump", "queries": 500},),
        }, "privacy": _privacy(8)}, ("crown-ibp",)),
        Suite("standard", None, {"evasion": {
            "gradients": ("auto-attack",),
            "scores": ("square",),
            "labels": ("hop-skip-jump",),
        }, "privacy": _privacy(16)}, ("crown",)),
        Suite("thorough", None, {"evasion": {
            "gradients": ({"name": "auto-attack", "version": "plus"},),
            "scores": ({"name": "square", "queries": 10_000},),
            "labels": ({"name": "hop-skip-jump", "queries": 20_000},),
        }, "privacy": _privacy(64)}, ("crown",)),
    )
}
"""Every suite by name."""


def find(name: str) -> Suite:
    """The suite of this name. Raises CFG131."""
    if name not in SUITES:
        raise ConfigError("CFG131", f"there is no suite called {name!r}{nearest(name, SUITES)}", where="--suite")
    return SUITES[name]


_DOWN = {"weights": ("gradients", "scores", "labels"), "gradients": ("gradients", "scores", "labels"),
         "scores": ("scores", "labels"), "labels": ("labels",)}
"""What an adversary of this access can play with, the strongest first."""


def filled(trial: TrialPlan, suite: Suite, *, proofs: bool) -> TrialPlan:
    """The trial with the suite's methods where it names none."""
    if trial.attacks or trial.proofs:
        return trial
    wing = trial.game.partition(".")[0]
    known = suite.attacks.get(wing, {})
    attacks = next((known[access] for access in _DOWN[trial.threat.access] if access in known), ())
    proved = suite.proofs if proofs and wing == "evasion" else ()
    return trial.model_copy(update={"attacks": list(attacks), "proofs": list(proved)})


def needed(plan: Plan) -> str:
    """The suite that a plan without methods falls back to."""
    return "standard" if any(not (t.attacks or t.proofs) for t in plan.trial) else ""
