"""How right a guesser can be under Gaussian differential privacy, and the search that audits share. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]

_TOP = 2.0**60
"""Beyond any epsilon that means something."""


def advantage_of(mu: float) -> float:
    """The largest share of right guesses about one fair coin under μ-GDP: ``Φ(μ/2)``, whatever the guess is made of."""
    return float(ndtr(mu / 2))


def mu_of_advantage(share: Floats) -> Floats:
    """The inverse of :func:`advantage_of`, of many at once; 0 where a share is no better than the coin."""
    return np.asarray(np.maximum(0.0, 2 * ndtri(share)))


def last_true(holds: Callable[[float], bool]) -> float:
    """The largest number from 0 on at which a condition still holds that fails from somewhere on, by bisection.

    0 where it never holds, infinite where it never fails.
    """
    if not holds(0.0):
        return 0.0
    high = 1.0
    while holds(high):
        high *= 2
        if high > _TOP:
            return math.inf
    low = high / 2 if high > 1 else 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
