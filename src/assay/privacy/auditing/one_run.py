"""Many examples in one run: how often membership can be guessed under a claim. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom

from assay.evidence.bound import CONFIDENCE, Bound
from assay.privacy.accounting.gaussian import mu_of
from assay.privacy.auditing.gaussian import last_true
from assay.privacy.auditing.result import AuditResult


class Guesses(NamedTuple):
    """Guesses about the memberships of ``m`` examples, each of them decided by a fair coin of its own.

    Attributes:
        m: how many examples there were.
        made: about how many of them a guess was made; how many is fixed before anything is seen.
        right: how many of the guesses were right.
    """

    m: int
    made: int
    right: int

    def __str__(self) -> str:
        return f"{self.right} of {self.made} guesses right about {self.m} canaries of one run"


def one_run_p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    """The chance of so many right guesses, at most, under an (ε, δ)-private procedure.

    Source: Steinke, Nasr & Jagielski (NeurIPS 2023), Theorem 5.2 as Appendix D computes it: under pure ε every guess
    is right with at most ``q = 1/(1 + e^−ε)``, and δ shifts ``m`` of the chances by ``2δα``. All shifts at once.
    """
    m, made, right = guesses
    q = float(expit(epsilon))
    beyond = float(binom.sf(right - 1, made, q))
    if delta == 0 or right == 0:
        return min(1.0, beyond)
    shift = np.arange(1, right + 1)
    alpha = float(((binom.sf(right - shift - 1, made, q) - beyond) / shift).max())
    return min(1.0, beyond + 2 * m * delta * max(0.0, alpha))


def one_run_epsilon(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """The ε up to which every (ε, δ)-claim is refuted by these guesses."""
    error = 1 - confidence
    return last_true(lambda epsilon: one_run_p_value(guesses, epsilon=epsilon, delta=delta) < error)


def gaussian_one_run_p_value(guesses: Guesses, *, epsilon: float, delta: float) -> float:
    """The same where the procedure's privacy curve is a Gaussian's: the one that the claim allows.

    Source: Mahloujifar, Melis & Chaudhuri (ICML 2025), Algorithm 3 for guesses between two: the smallest error
    probability at which the recursion leaves too little room for so many guesses.
    """
    mu = mu_of(epsilon, delta)

    def impossible(logarithm: float) -> bool:
        return _impossible(guesses, mu, float(np.exp(logarithm)))

    if not impossible(0.0):
        return 1.0
    low, high = -690.0, 0.0
    if impossible(low):
        return float(np.exp(low))
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if impossible(middle) else (middle, high)
    return float(np.exp(high))


def gaussian_one_run_epsilon(guesses: Guesses, *, delta: float, confidence: float) -> float:
    """The ε up to which these guesses refute every procedure with a Gaussian's privacy curve."""
    if guesses.right == 0:
        return 0.0
    return last_true(lambda epsilon: _impossible(guesses, mu_of(epsilon, delta), 1 - confidence))


def _impossible(guesses: Guesses, mu: float, error: float) -> bool:
    """Whether the chance of so many right guesses is below ``error`` under μ-GDP.

    If it were not, the masses ``right`` and ``wrong`` (r and h in the paper) of the outcomes with more than i right
    guesses would have to grow, as i falls, by at least what the curve demands, and they end above the share guessed.
    """
    m, made, correct = guesses
    right, wrong = error * correct / m, error * (made - correct) / m
    for i in range(correct - 1, -1, -1):
        grown = max(wrong, float(ndtr(ndtri(min(right, 1.0)) - mu)))
        if grown == wrong:  # nothing grows any more
            break
        right, wrong = right + i / (made - i) * (grown - wrong), grown
    return right + wrong > made / m


@dataclass(frozen=True)
class OneRun:
    """How one run is judged: guess "in" of the highest scores and "out" of the lowest, and abstain between.

    How many are guessed is fixed before anything is seen; of several numbers each pays its part of the error.

    Attributes:
        gaussian: whether the procedure's privacy curve is taken to be a Gaussian's, which shows far more.
        shares: of the examples, about which a guess is made.
    """

    gaussian: bool = False
    shares: tuple[float, ...] = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)

    @property
    def label(self) -> str:
        """What evidence calls it."""
        return "one run, Gaussian curve" if self.gaussian else "one run"

    def guesses(self, scores: NDArray[np.float64], member: NDArray[np.bool_]) -> list[Guesses]:
        """What every share guesses, of scores that are the higher, the likelier the example was in."""
        order, m = np.argsort(scores, kind="stable"), len(scores)
        if m < 2:
            return [Guesses(m, 0, 0)]
        halves = sorted({min(max(1, int(share * m / 2)), m // 2) for share in self.shares})
        return [Guesses(m, 2 * half, int(member[order[-half:]].sum() + (~member[order[:half]]).sum()))
                for half in halves]

    def epsilon(self, guesses: Guesses, *, delta: float, error: float) -> float:
        """The ε up to which every claim at ``delta`` is refuted by these guesses, but for a chance of ``error``."""
        estimate = gaussian_one_run_epsilon if self.gaussian else one_run_epsilon
        return estimate(guesses, delta=delta, confidence=1 - error)

    def p_value(self, guesses: Guesses, *, epsilon: float, delta: float) -> float:
        """The chance of such guesses, at most, if the claim were true."""
        chance = gaussian_one_run_p_value if self.gaussian else one_run_p_value
        return chance(guesses, epsilon=epsilon, delta=delta)

    def bound(self, scores: NDArray[np.float64], member: NDArray[np.bool_], *, delta: float,
              confidence: float = CONFIDENCE) -> Bound:
        """``epsilon@delta=…`` at least …, from the scores of one model about examples that fair coins put in.

        Args:
            scores: float ``[m]``, the higher, the likelier a member.
            member: bool ``[m]``, each by an independent fair coin, known to whoever judges and not to whoever scored.
        """
        return self.judged(np.asarray(scores, dtype=np.float64), np.asarray(member, dtype=bool), (0.0, delta),
                           confidence).bound()

    def judged(self, scores: NDArray[np.float64], member: NDArray[np.bool_], claim: tuple[float, float],
               confidence: float) -> AuditResult:
        """An audit of one run's scores."""
        epsilon, delta = claim
        made = self.guesses(scores, member)
        error = (1 - confidence) / len(made)
        found = [self.epsilon(one, delta=delta, error=error) for one in made]
        best = int(np.argmax(found))
        ceiling = max(self.epsilon(one._replace(right=one.made), delta=delta, error=error) for one in made)
        p_value = len(made) * min(self.p_value(one, epsilon=epsilon, delta=delta) for one in made)
        return AuditResult(epsilon=found[best], delta=delta, claim=epsilon, ceiling=ceiling,
                           p_value=min(1.0, p_value), confidence=confidence, n=made[best].made,
                           guesses=str(made[best]), method=self.label)
