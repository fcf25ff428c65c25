"""What right and wrong guesses about one example say of ε, every guess about a run or a step of its own. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainccinv, betaincinv
from scipy.stats import binom

from assay.privacy.accounting.gaussian import epsilon_of_gaussian, mu_of
from assay.privacy.auditing.gaussian import advantage_of, mu_of_advantage
from assay.privacy.auditing.steps import LEAST_NOISE, Steps

Floats = NDArray[np.float64]

_LEAST = 1e-100
"""No p-value below this is told from it."""


class Counts(NamedTuple):
    """Guesses "it was in", among the runs that had the example and those that had not.

    Attributes:
        true: how many of the runs with it were guessed so.
        false: how many of the runs without.
        inside, outside: how many runs there were of either kind.
    """

    true: int
    false: int
    inside: int
    outside: int

    @property
    def right(self) -> int:
        """How many guesses were right, of both kinds."""
        return self.true + self.outside - self.false

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return self.inside + self.outside

    @property
    def arrays(self) -> tuple[Floats, Floats]:
        """True and false as arrays without an axis."""
        return np.asarray(self.true, dtype=np.float64), np.asarray(self.false, dtype=np.float64)

    def said(self, unit: str) -> str:
        """The counts in words, of ``"runs"`` or ``"steps"``."""
        return f"guessed in {self.true} of {self.inside} {unit} with it and {self.false} of {self.outside} without"


class Rates(NamedTuple):
    """True and false positive rates bounded from below and above, and their complements: each at half of an error.

    Source: Clopper & Pearson (Biometrika 26, 1934); written out, since one minus an error below 1e-16 is 1. Floats, or
    arrays of them for many counts at once.
    """

    true: Floats
    false: Floats
    missed: Floats
    spared: Floats

    @classmethod
    def of(cls, true: Floats, false: Floats, inside: int, outside: int, error: float) -> Rates:
        """The bounds that these counts give; they need not be whole."""
        half = error / 2
        return cls(
            np.where(true > 0, betaincinv(true, inside - true + 1, half), 0.0),
            np.where(false < outside, betainccinv(false + 1, outside - false, half), 1.0),
            np.where(true > 0, betainccinv(inside - true + 1, true, half), 1.0),
            np.where(false < outside, betaincinv(outside - false, false + 1, half), 0.0),
        )

    def epsilon(self, delta: float) -> Floats:
        """ln((TPR − δ)/FPR) or ln((TNR − δ)/FNR), whichever is larger, and never below 0."""
        return np.maximum(0.0, np.maximum(_log_ratio(self.true - delta, self.false),
                                          _log_ratio(self.spared - delta, self.missed)))


@dataclass(frozen=True)
class Exact:
    """With no assumption about the mechanism: true and false positive rates, each in its exact interval.

    (ε, δ)-privacy means TPR ≤ e^ε FPR + δ and 1 − FPR ≤ e^ε (1 − TPR) + δ (Kairouz, Oh & Viswanath, ICML 2015); both
    inequalities read the same two bounds. The most that N runs of either kind can show is about ln(N/3.7).
    """

    label: ClassVar[str] = "exact rates"
    unit: ClassVar[str] = "runs"
    symmetric: ClassVar[bool] = False

    def merit(self, true: Floats, false: Floats, inside: int, outside: int, delta: float, error: float) -> Floats:
        """What such counts would show, to choose a threshold by: of any number of counts at once."""
        return Rates.of(true, false, inside, outside, error).epsilon(delta)

    def best(self, inside: int, outside: int) -> Counts:
        """What a guesser who is always right would have counted."""
        return Counts(inside, 0, inside, outside)

    def epsilon(self, counts: Counts, *, delta: float, error: float) -> float:
        """The ε up to which every claim at ``delta`` is refuted by these guesses, but for a chance of ``error``."""
        return float(Rates.of(*counts.arrays, counts.inside, counts.outside, error).epsilon(delta))

    def p_value(self, counts: Counts, *, epsilon: float, delta: float) -> float:
        """The smallest ``error`` at which the claim is refuted; 1 where none is."""
        return smallest_error(lambda error: self.epsilon(counts, delta=delta, error=error) > epsilon)


@dataclass(frozen=True)
class GaussianCurve:
    """Of a procedure whose privacy curve is a Gaussian's: one number μ says it all, and few runs suffice.

    Under μ-GDP no guesser is right more than ``Φ(μ/2)`` of the time about a fair coin. The number of right guesses is
    at most as spread as a binomial (Hoeffding, Ann. Math. Stat. 27, 1956), so that one exact one-sided interval
    bounds μ from below: no confidence is lost on two rates. Runs with and without must be equally many.

    Holds for full-batch noisy gradient descent. DP-SGD that samples its batches is not Gaussian: :class:`PerStep`.
    """

    label: ClassVar[str] = "Gaussian curve"
    unit: ClassVar[str] = "runs"
    symmetric: ClassVar[bool] = True

    def merit(self, true: Floats, false: Floats, inside: int, outside: int, delta: float, error: float) -> Floats:
        """See :class:`Exact`."""
        return true / inside - false / outside

    def best(self, inside: int, outside: int) -> Counts:
        """See :class:`Exact`."""
        return Counts(inside, 0, inside, outside)

    def epsilon(self, counts: Counts, *, delta: float, error: float) -> float:
        """See :class:`Exact`."""
        share = _share_right(*counts.arrays, counts.inside, counts.outside, error)
        return epsilon_of_gaussian(float(mu_of_advantage(share)), delta)

    def p_value(self, counts: Counts, *, epsilon: float, delta: float) -> float:
        """The chance of so many right guesses under the largest μ that the claim allows."""
        return float(binom.sf(counts.right - 1, counts.runs, advantage_of(mu_of(epsilon, delta))))


@dataclass(frozen=True)
class PerStep:
    """Of a procedure made of equal noisy steps: every step is a guess, and a handful of runs suffice.

    The guesses bound the noise of a step from above, by its trade-off curve; that much noise, composed over the
    run, gives ε. Source: Nasr et al. (USENIX Security 2023), with the curve of the sampled Gaussian where
    ``rate`` is below 1, for which a plain Gaussian's would be wrong. At full rate the share of right guesses
    suffices, as in :class:`GaussianCurve`.

    Attributes:
        steps: the hypothesis.
    """

    label: ClassVar[str] = "per step"
    unit: ClassVar[str] = "steps"

    steps: Steps

    @property
    def symmetric(self) -> bool:
        """Whether the trade-off curve treats both errors alike."""
        return self.steps.rate >= 1

    def merit(self, true: Floats, false: Floats, inside: int, outside: int, delta: float, error: float) -> Floats:
        """See :class:`Exact`: the least 1/σ."""
        if self.symmetric:
            return mu_of_advantage(_share_right(true, false, inside, outside, error))
        rates = Rates.of(true, false, inside, outside, error)
        return self.steps.leak(rates.missed, rates.false)

    def best(self, inside: int, outside: int) -> Counts:
        """Every step that had the example, which of those of a run with it is the rate."""
        return Counts(round(self.steps.rate * inside), 0, inside, outside)

    def epsilon(self, counts: Counts, *, delta: float, error: float) -> float:
        """See :class:`Exact`."""
        leak = float(self.merit(*counts.arrays, counts.inside, counts.outside, delta, error))
        return self.steps.epsilon(max(1 / leak, LEAST_NOISE), delta) if leak > 0 else 0.0

    def p_value(self, counts: Counts, *, epsilon: float, delta: float) -> float:
        """See :class:`Exact`."""
        allowed = 1 / self.steps.noise_for(epsilon, delta)
        return smallest_error(
            lambda error: float(self.merit(*counts.arrays, counts.inside, counts.outside, delta, error)) > allowed)


Method = Exact | GaussianCurve | PerStep
"""How guesses about runs, or about steps, become an ε."""

EXACT = Exact()
"""What is assumed where nothing is said: nothing."""


def _share_right(true: Floats, false: Floats, inside: int, outside: int, error: float) -> Floats:
    """The chance of a right guess, from below: one exact one-sided interval."""
    right, runs = true + outside - false, inside + outside
    return np.where(right > 0, betaincinv(right, runs - right + 1, error), 0.0)


def smallest_error(refutes: Callable[[float], bool]) -> float:
    """The smallest error probability from which a test on refutes, by bisection of its logarithm; 1 for none."""
    if not refutes(1.0):
        return 1.0
    low, high = math.log(_LEAST), 0.0
    if refutes(_LEAST):
        return _LEAST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if refutes(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _log_ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((above > 0) & (below > 0), np.log(np.maximum(above, 0)) - np.log(below), -np.inf)
