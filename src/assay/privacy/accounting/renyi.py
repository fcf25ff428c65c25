"""Rényi differential privacy: a curve of divergences, and the ε that follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr, logsumexp

from assay.privacy.mechanisms import Gaussian, Mechanism, Part, Renyi, SampledGaussian

Conversion = Literal["classic", "improved"]
Floats = NDArray[np.float64]

ORDERS: tuple[float, ...] = (
    *(1 + k / 10 for k in range(1, 100)), *map(float, range(11, 64)), *map(float, range(64, 256, 8)), 256.0, 384.0,
    512.0, 768.0, 1024.0,
)
"""The orders at which curves are looked at: fractional where the optimum of large budgets lies."""


def divergences(mechanism: Mechanism, orders: Sequence[float] = ORDERS) -> Floats:
    """The Rényi divergence of every order, at most, over all neighbors: float64, the length of ``orders``.

    Composition adds them (Mironov, CSF 2017, Proposition 1). An order at which a :class:`Renyi` part is not known
    is ``inf``.
    """
    total = np.zeros(len(orders))
    for part in mechanism.parts:
        total += _of(part, orders)
    return total


def epsilon_of(
    orders: Sequence[float], divergence: Floats, delta: float, conversion: Conversion
) -> tuple[float, float]:
    """The least ε that the curve proves at δ, and the order that proves it.

    Args:
        conversion: ``"classic"``: ``ρ + ln(1/δ)/(α−1)`` (Mironov, CSF 2017, Proposition 3). ``"improved"``:
            ``ρ + ln((α−1)/α) − (ln δ + ln α)/(α−1)`` (Canonne, Kamath & Steinke, NeurIPS 2020, Proposition 12;
            Balle et al., AISTATS 2020, Theorem 21), which is never more.
    """
    if not divergence.any():  # nothing was released
        return 0.0, math.inf
    a = np.asarray(orders, dtype=np.float64)
    epsilon = divergence - math.log(delta) / (a - 1)
    if conversion == "improved":
        epsilon = epsilon + np.log1p(-1 / a) - np.log(a) / (a - 1)
    best = int(np.argmin(epsilon))
    return max(float(epsilon[best]), 0.0), float(a[best])


def _of(part: Part, orders: Sequence[float]) -> Floats:
    match part:
        case Gaussian(mu=mu):
            return np.asarray(orders) * mu**2 / 2
        case Renyi():
            known = dict(zip(part.orders, part.divergences, strict=True))
            return np.asarray([known.get(order, math.inf) for order in orders])
        case SampledGaussian(noise=noise, rate=rate, steps=steps):
            if noise == 0:
                return np.full(len(orders), math.inf if steps else 0.0)
            return steps * np.asarray([_log_moment(order, rate, noise) / (order - 1) for order in orders])


def _log_moment(order: float, q: float, noise: float) -> float:
    """``ln E[(p/p₀)^α]`` of one sampled release (Mironov, Talwar & Zhang, 2019, Theorem 4 and §3.3)."""
    return _integer(int(order), q, noise) if float(order).is_integer() else _fractional(order, q, noise)


def _integer(a: int, q: float, noise: float) -> float:
    """``ln Σ_k C(α,k) (1−q)^{α−k} q^k exp((k²−k)/2σ²)``, all terms positive."""
    k = np.arange(a + 1)
    terms = _log_binomial(a, k) + k * math.log(q) + (a - k) * math.log1p(-q) + (k * k - k) / (2 * noise**2)
    return float(logsumexp(terms))


def _fractional(a: float, q: float, noise: float) -> float:
    """The same for any α: two binomial series, split where the two densities cross.

    Each side's terms alternate in sign beyond ``α`` and shrink there, so the sum is cut once they are below 1e-16 of
    it.
    """
    crossing = noise**2 * math.log(1 / q - 1) + 0.5
    count = int(a) + 64
    while True:
        k = np.arange(count)
        binomial, sign = _log_binomial(a, k), _sign(a, k)
        j = a - k
        left = k * math.log(q) + j * math.log1p(-q) + (k * k - k) / (2 * noise**2) + log_ndtr((crossing - k) / noise)
        right = j * math.log(q) + k * math.log1p(-q) + (j * j - j) / (2 * noise**2) + log_ndtr((j - crossing) / noise)
        terms = np.logaddexp(left, right) + binomial
        total = float(logsumexp(terms, b=sign))
        if terms[-1] < total - 37 or count > 20_000:
            return total
        count *= 2


def _log_binomial(a: float, k: NDArray[np.int64]) -> Floats:
    """``ln |C(α, k)|``."""
    return np.asarray(gammaln(a + 1) - gammaln(k + 1) - gammaln(a - k + 1), dtype=np.float64)


def _sign(a: float, k: NDArray[np.int64]) -> Floats:
    """The sign of ``C(α, k)``: it alternates once k exceeds α + 1."""
    beyond = np.maximum(k - math.ceil(a), 0)
    return np.where(beyond % 2 == 0, 1.0, -1.0)
