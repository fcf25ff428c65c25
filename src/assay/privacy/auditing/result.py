"""What an audit found: an ε at least so large, what it could have found, and what becomes of the claim. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.evidence.bound import AT_LEAST, Bound


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """The outcome of an audit.

    Attributes:
        epsilon: the procedure is not (ε, δ)-private for any ε below this, at ``confidence``.
        delta: the δ that all of these ε go with.
        claim: the ε that was claimed.
        ceiling: the most that the same effort could have shown, every guess being right. A claim above it could not
            have been refuted: that it stands says nothing.
        p_value: the chance of such evidence, at most, if the claim were true.
        confidence: one-sided.
        n: how many guesses were judged; those that chose the threshold are not among them.
        guesses: what was counted.
        method: how the count became ε.
        adversary: who guessed, and about which canary.
    """

    epsilon: float
    delta: float
    claim: float
    ceiling: float
    p_value: float
    confidence: float
    n: int
    guesses: str
    method: str
    adversary: str = ""

    @property
    def refuted(self) -> bool:
        """Whether the claim is false, at this confidence."""
        return self.epsilon > self.claim

    @property
    def blind(self) -> bool:
        """Whether the claim could not have been refuted by any guesses on so many runs."""
        return self.ceiling <= self.claim

    def bound(self) -> Bound:
        """``epsilon@delta=…`` at least …, as evidence keeps it."""
        return Bound(quantity=f"epsilon@delta={self.delta:g}", side=AT_LEAST, estimate=self.epsilon,
                     value=self.epsilon, confidence=self.confidence, n=self.n,
                     method=f"{self.adversary}, {self.method}".removeprefix(", "))

    def __str__(self) -> str:
        found = f"epsilon is at least {_down(self.epsilon)} at delta = {self.delta:g}"
        if self.refuted:
            verdict = f"the claim of {self.claim:g} is refuted (p = {self.p_value:.2g})"
        elif self.blind:
            verdict = f"the claim of {self.claim:g} could not have been refuted by so few guesses"
        else:
            verdict = f"the claim of {self.claim:g} stands"
        how = f"{self.guesses}; {self.method}, {self.confidence:.10g} confidence"
        return f"{found} and could have been shown to be {_down(self.ceiling)} at most, so {verdict} [{how}]."


def _down(value: float) -> str:
    """Two decimals, rounded so that "at least" still holds."""
    return f"{math.floor(value * 100) / 100:.2f}" if math.isfinite(value) else "infinite"
