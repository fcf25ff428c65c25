"""One-sided knowledge: what was seen on n points, and what it implies beyond them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assay.numerics.intervals import clopper_pearson_lower, clopper_pearson_upper, median_rank

Side = Literal["at most", "at least"]

AT_MOST: Side = "at most"
AT_LEAST: Side = "at least"

CONFIDENCE = 0.95
"""The one-sided confidence of a bound, where the caller names no other."""

CLEAN = "clean accuracy"
ROBUST = "robust accuracy"
NAIVE = "non-adaptive robust accuracy"


def quantity_at(quantity: str, budget: str) -> str:
    """The name of a quantity at one budget of a curve: ``robust accuracy @ linf 0.03``."""
    return f"{quantity} @ {budget}"


_PARAMETER = re.compile(r"(?<==)[0-9.]+(?:e[-+]?[0-9]+)?", re.IGNORECASE)


def canonical(quantity: str) -> str:
    """The one spelling of a quantity with a number in it: ``epsilon@delta=0.00001`` is ``epsilon@delta=1e-05``."""
    return _PARAMETER.sub(lambda found: f"{float(found[0]):g}", quantity)


def outward(value: float, side: Side) -> float:
    """The value to four decimals, rounded so that the printed bound still holds: up of at most, down of at least."""
    if not math.isfinite(value):
        return value
    return math.ceil(value * 1e4 - 1e-9) / 1e4 if side == AT_MOST else math.floor(value * 1e4 + 1e-9) / 1e4


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Security evidence is one-sided: an attack shows ``at most``, a certificate or an audit ``at least``.

    Attributes:
        quantity: what is bounded, such as ``"robust accuracy"``.
        side: ``"at most"`` or ``"at least"``.
        estimate: the fact about the ``n`` points that were tested.
        value: what it implies, at ``confidence``, for the distribution that the points were drawn from.
        confidence: one-sided, strictly between 0 and 1.
        n: how many points.
        method: what established it.
    """

    quantity: str
    side: Side
    estimate: float
    value: float
    confidence: float
    n: int
    method: str

    @classmethod
    def of_count(
        cls, quantity: str, side: Side, successes: int, n: int, *, method: str, confidence: float = CONFIDENCE
    ) -> Bound:
        """The bound that ``successes`` of ``n`` independent points give, exactly (Clopper & Pearson, 1934)."""
        implied = clopper_pearson_upper if side == "at most" else clopper_pearson_lower
        return cls(
            quantity=quantity,
            side=side,
            estimate=successes / n if n else (1.0 if side == "at most" else 0.0),
            value=implied(successes, n, confidence),
            confidence=confidence,
            n=n,
            method=method,
        )

    @classmethod
    def of_median(
        cls, quantity: str, side: Side, values: Sequence[float], *, method: str, confidence: float = CONFIDENCE
    ) -> Bound:
        """The median of independent values, and the order statistic that bounds the distribution's, exactly.

        Source: the number of values above the median is binomial with chance one half (David & Nagaraja, 2003, §7.1).
        """
        ordered, n = sorted(values), len(values)
        if not n:
            return cls(quantity=quantity, side=side, estimate=math.inf if side == AT_MOST else 0.0,
                       value=math.inf if side == AT_MOST else 0.0, confidence=confidence, n=0, method=method)
        rank = median_rank(n, confidence)
        if side == AT_MOST:
            estimate, value = ordered[n // 2], ordered[n - 1 - rank] if rank >= 0 else math.inf
        else:
            estimate, value = ordered[(n - 1) // 2], ordered[rank] if rank >= 0 else 0.0
        return cls(quantity=quantity, side=side, estimate=estimate, value=value, confidence=confidence, n=n,
                   method=method)

    def __str__(self) -> str:
        if not (0 <= self.estimate <= 1 and 0 <= self.value <= 1) or self.quantity.startswith("median"):
            return (
                f"{self.quantity} {self.side} {self.estimate:.4g} on these {self.n} points, "
                f"{self.side} {self.value:.4g} beyond them ({self.confidence:.0%} confidence, {self.method})"
            )
        value = outward(self.value, self.side)
        return (
            f"{self.quantity} {self.side} {self.estimate:.2%} on these {self.n} points, "
            f"{self.side} {value:.2%} beyond them ({self.confidence:.0%} confidence, {self.method})"
        )
