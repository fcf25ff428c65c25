"""Gaussian differential privacy: a single number μ, and the whole curve of (ε, δ) that it stands for. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import log_ndtr, ndtr, ndtri

_TOP = 2.0**60
"""Beyond any epsilon or μ that means something."""


def delta_of(mu: float, epsilon: float) -> float:
    """The δ that belongs to ε under μ-GDP: ``Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)``.

    Source: Dong, Roth & Su, JRSS B 84 (2022), Corollary 1; the second term by its logarithm, which does not overflow.
    """
    if mu <= 0:
        return 0.0
    first = float(log_ndtr(-epsilon / mu + mu / 2))
    second = min(epsilon + float(log_ndtr(-epsilon / mu - mu / 2)), first)
    return -math.exp(first) * math.expm1(second - first)


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest ε ≥ 0 with :func:`delta_of` at most ``delta``: 4.377 for μ = 1 and δ = 1e-5. Infinite for δ = 0."""
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    return last_true(lambda epsilon: delta_of(mu, epsilon) > delta) if delta > 0 else math.inf


def mu_of(epsilon: float, delta: float) -> float:
    """The largest μ whose mechanism is (ε, δ)-private: the Gaussian that a claim still allows. 0 for δ = 0."""
    return last_true(lambda mu: delta_of(mu, epsilon) <= delta) if delta > 0 else 0.0


def advantage_of(mu: float) -> float:
    """The largest share of right guesses about one fair coin under μ-GDP: ``Φ(μ/2)``, whatever the guess is made of."""
    return float(ndtr(mu / 2))


def mu_of_advantage(share: float) -> float:
    """The inverse of :func:`advantage_of`; 0 where the share is no better than the coin."""
    return max(0.0, 2 * float(ndtri(share)))


def last_true(holds: Callable[[float], bool], *, first: float = 0.0) -> float:
    """The largest number from ``first`` on at which a condition still holds that fails from somewhere on, by bisection.

    ``first`` where it never holds, infinite where it never fails.
    """
    if not holds(first):
        return first
    width = 1.0
    while holds(first + width):
        width *= 2
        if width > _TOP:
            return math.inf
    low, high = first + width / 2 if width > 1 else first, first + width
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
