"""The Gaussian mechanism, exactly: δ as a function of ε, both ways."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr


def delta_of_gaussian(mu: float, epsilon: float) -> float:
    """``δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)``: the least δ at which μ-Gaussian DP is (ε, δ)-DP.

    Source: Balle & Wang (ICML 2018), Theorem 8; Dong, Roth & Su (2022), Corollary 2.13.
    """
    if mu == 0:
        return max(0.0, -math.expm1(epsilon))
    if math.isinf(mu):
        return 1.0
    upper, lower = -epsilon / mu + mu / 2, -epsilon / mu - mu / 2
    return max(float(ndtr(upper)) - math.exp(min(epsilon + float(log_ndtr(lower)), 0.0)), 0.0)


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """The least ε ≥ 0 at which μ-Gaussian DP is (ε, δ)-DP; ``inf`` where δ = 0 and μ > 0."""
    if mu == 0 or delta_of_gaussian(mu, 0.0) <= delta:
        return 0.0
    if math.isinf(mu) or delta <= 0:
        return math.inf
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # P(loss > high) ≤ δ already
    return _root(lambda epsilon: delta_of_gaussian(mu, epsilon) - delta, 0.0, high)


def mu_of(epsilon: float, delta: float) -> float:
    """The largest μ at which μ-Gaussian DP is (ε, δ)-DP."""
    high = 1.0
    while delta_of_gaussian(high, epsilon) < delta:
        high *= 2
    return _root(lambda mu: delta_of_gaussian(mu, epsilon) - delta, 0.0, high)


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(f, low, high, xtol=1e-12, rtol=1e-12))
