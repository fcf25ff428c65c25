"""Many examples in one run: how often membership can be guessed under a claim. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom

from assay.privacy.auditing.gaussian import last_true, mu_of


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
