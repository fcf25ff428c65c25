"""Exposure: how many bits of a secret a model gives away, by its rank among secrets that could have been.

Source: Carlini, Liu, Erlingsson, Kos & Song (USENIX Security 2019), §4.
"""

from __future__ import annotations

from math import log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest, skewnorm

from assay.errors import DataError


class Extrapolated(NamedTuple):
    """Exposure read off a curve that was fitted to the references.

    Attributes:
        bits: what the curve says, at most the secret's own entropy.
        fit: the Kolmogorov-Smirnov p-value of the fit: a small one says that the curve is wrong.
        beyond: whether ``bits`` is more than the references could have shown.
    """

    bits: float
    fit: float
    beyond: bool


def by_rank(score: float, references: NDArray[np.floating]) -> float:
    """``log2 |R| − log2 rank``: bits, never more than log2 of the number of references.

    Args:
        score: of the secret; the higher, the likelier memorized.
        references: of secrets drawn in the same way and not inserted. Ties count against the secret.

    Of a secret that was not memorized every rank is equally likely: the mean is 1 / ln 2 = 1.44 bits, and the chance of
    ``b`` bits or more is 2^−b. Raises ``DataError`` (PRV420) without references.
    """
    if not len(references):
        raise DataError("PRV420", "no references to rank the secret among")
    if np.isnan(score) or np.isnan(references).any():
        raise DataError("PRV102", f"{int(np.isnan(references).sum()) + int(np.isnan(score))} scores are NaN")
    rank = 1 + int((references >= score).sum())
    return log2(len(references)) - log2(min(rank, len(references)))


def extrapolated(score: float, references: NDArray[np.floating], *, space: int) -> Extrapolated:
    """``−log2 P(a reference scores as high)``, the references' scores taken as skew-normal (§4.3).

    Args:
        space: how many secrets there could have been; there are no more bits than log2 of it.

    Raises:
        DataError: PRV420 where there are fewer than 100 references, or all score the same.
    """
    values = -np.asarray(references, dtype=np.float64)
    if len(values) < 100 or np.ptp(values) == 0:
        raise DataError("PRV420", f"{len(values)} references with {len(np.unique(values))} different scores")
    center, scale = values.mean(), values.std()
    curve = skewnorm(*skewnorm.fit((values - center) / scale))
    tail = float(curve.cdf((-score - center) / scale))
    bits = min(-log2(tail), log2(space)) if tail > 0 else log2(space)
    fit = float(kstest((values - center) / scale, curve.cdf).pvalue)
    return Extrapolated(bits=bits, fit=fit, beyond=bits > log2(len(values)))
