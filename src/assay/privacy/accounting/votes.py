"""Noisy elections: what naming the winner of a vote gives away when one voter may change her mind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

from assay.privacy.accounting.renyi import ORDERS
from assay.privacy.mechanisms import Gaussian, Renyi

Noise = Literal["gaussian", "laplace"]
Floats = NDArray[np.float64]


def beforehand(noise: Noise, scale: float, queries: int) -> Gaussian | Renyi:
    """The guarantee of this many winners, whatever the votes: one vote moves, so two counts change by one.

    Args:
        scale: standard deviation of Gaussian noise, or the parameter b of Laplace noise.

    Source: Papernot et al. (ICLR 2018), Proposition 8; for Laplace noise each winner is 2/b-DP (Papernot et al., ICLR
    2017), and no mechanism of that kind diverges more than randomized response.
    """
    if noise == "gaussian":
        return Gaussian(mu=math.sqrt(2 * queries) / scale if scale else math.inf)
    curve = queries * _randomized_response(2 / scale, np.asarray(ORDERS))
    return Renyi(orders=ORDERS, divergences=tuple(curve.tolist()))


def in_hindsight(votes: NDArray[np.generic], noise: Noise, scale: float, orders: Sequence[float] = ORDERS) -> Renyi:
    """The guarantee of these winners given the votes ``[queries, classes]``: where teachers agree, little is told.

    It depends on the votes, so it is as secret as they are.

    Source: Papernot et al. (ICLR 2018), Theorem 6 with the orders of Proposition 10; for Laplace noise Papernot et al.
    (ICLR 2017), Theorem 3.
    """
    log_q = log_upset(np.asarray(votes, dtype=np.float64), noise, scale)[:, None]
    a = np.asarray(orders, dtype=np.float64)[None]
    each = _gaussian(log_q, scale, a) if noise == "gaussian" else _laplace(log_q, 2 / scale, a)
    return Renyi(orders=tuple(orders), divergences=tuple(each.sum(0).tolist()))


def log_upset(votes: Floats, noise: Noise, scale: float) -> Floats:
    """The logarithm of the chance, at most, that noise elects another than the true winner: ``[queries]``.

    Source: a union bound over the others (Papernot et al., 2018, Proposition 7; 2017, Lemma 4).
    """
    behind = np.sort(votes, axis=1)[:, -1:] - np.sort(votes, axis=1)[:, :-1]
    if noise == "gaussian":
        beaten = log_ndtr(-behind / (scale * math.sqrt(2)))
    else:
        beaten = np.log(2 + behind / scale) - math.log(4) - behind / scale
    union: Floats = np.minimum(logsumexp(beaten, axis=1), math.log1p(-1 / votes.shape[1]))
    return union


def _gaussian(log_q: Floats, scale: float, a: Floats) -> Floats:
    """Theorem 6: the mechanism's own divergences at two higher orders bound that of α where upsets are rare."""
    plain = a / scale**2
    high2 = np.maximum(scale * np.sqrt(-log_q), 1 + 1e-9)
    high1 = high2 + 1
    own1, own2 = high1 / scale**2, high2 / scale**2
    rare = log_q <= (high2 - 1) * own2 - high2 * (np.log(high1 / (high1 - 1)) + np.log(high2 / (high2 - 1)))
    holds = (a < high1) & (scale * np.sqrt(-log_q) > 1) & rare & (log_q + own2 < 0)
    log_p = np.log1p(-np.exp(log_q))
    shrunk = np.minimum((log_q + own2) * (high2 - 1) / high2, -1e-300)
    log_a = log_p - np.log(-np.expm1(shrunk))
    log_b = own1 - log_q / (high1 - 1)
    found = np.logaddexp(log_p + (a - 1) * log_a, log_q + (a - 1) * log_b) / (a - 1)
    return np.where(holds, np.clip(found, 0, plain), plain)


def _laplace(log_q: Floats, epsilon: float, a: Floats) -> Floats:
    """Theorem 3, for any mechanism that is ε-DP and whose outcome is another with chance at most q."""
    plain = np.broadcast_to(_randomized_response(epsilon, a), np.broadcast_shapes(log_q.shape, a.shape))
    holds = log_q < -np.logaddexp(0, epsilon)
    log_p = np.log1p(-np.exp(log_q))
    ratio = log_p - np.log(-np.expm1(np.minimum(epsilon + log_q, -1e-12)))
    found = np.logaddexp(log_p + (a - 1) * ratio, log_q + (a - 1) * epsilon) / (a - 1)
    return np.where(holds, np.clip(found, 0, plain), plain)


def _randomized_response(epsilon: float, a: Floats) -> Floats:
    """The divergence of order α between a coin with odds e^ε and its mirror image: the most of any ε-DP mechanism."""
    log_p, log_q = -np.logaddexp(0, -epsilon), -np.logaddexp(0, epsilon)
    curve: Floats = np.logaddexp(a * log_p + (1 - a) * log_q, a * log_q + (1 - a) * log_p) / (a - 1)
    return curve
