"""How sure a count makes us: exact binomial intervals, one-sided. No torch."""

from __future__ import annotations

from scipy.stats import beta, binom


def clopper_pearson_lower(successes: int, n: int, confidence: float) -> float:
    """The largest p that ``successes`` of ``n`` refute from below with ``confidence`` (one-sided).

    Source: Clopper & Pearson, Biometrika 26 (1934). ``n = 0`` says nothing: 0.
    """
    _check(successes, n, confidence)
    return 0.0 if successes == 0 else float(beta.ppf(1 - confidence, successes, n - successes + 1))


def clopper_pearson_upper(successes: int, n: int, confidence: float) -> float:
    """The smallest p that ``successes`` of ``n`` refute from above with ``confidence`` (one-sided).

    Source: Clopper & Pearson, Biometrika 26 (1934). ``n = 0`` says nothing: 1.
    """
    _check(successes, n, confidence)
    return 1.0 if successes == n else float(beta.ppf(confidence, successes + 1, n - successes))


def median_rank(n: int, confidence: float) -> int:
    """The largest ``k`` such that the k-th smallest of ``n`` values (from 0) is at most the median, that surely.

    By symmetry the k-th largest is at least the median. −1 where no value is.
    """
    _check(0, n, confidence)
    return int(binom.ppf(1 - confidence, n, 0.5)) - 1  # P(Bin ≤ k) ≤ 1 − confidence, for the values below the median


def _check(successes: int, n: int, confidence: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n; got {successes} of n = {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1; got {confidence}")
