"""How well members are told from others: rates with exact intervals, the ROC curve, never a bare number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound
from assay.numerics.intervals import clopper_pearson_lower, clopper_pearson_upper


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of ``n`` independent trials, and the exact two-sided interval around it (Clopper & Pearson, 1934).

    Attributes:
        successes, n: the count.
        confidence: of the interval, both sides together.
    """

    successes: int
    n: int
    confidence: float = CONFIDENCE

    @property
    def estimate(self) -> float:
        """The share on these trials."""
        return self.successes / self.n if self.n else float("nan")

    @property
    def lower(self) -> float:
        """The interval's lower end."""
        return clopper_pearson_lower(self.successes, self.n, (1 + self.confidence) / 2)

    @property
    def upper(self) -> float:
        """The interval's upper end."""
        return clopper_pearson_upper(self.successes, self.n, (1 + self.confidence) / 2)

    def __contains__(self, value: float) -> bool:
        """Whether the interval covers this value."""
        return self.lower <= value <= self.upper

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.lower:.4g}, {self.upper:.4g}] of {self.n}"


class Operating(NamedTuple):
    """A point of the ROC curve: everything scored above ``threshold`` is called a member."""

    tpr: Rate
    fpr: Rate
    threshold: float

    def __str__(self) -> str:
        return f"TPR {self.tpr} at FPR {self.fpr}"


class Curve(NamedTuple):
    """The whole ROC curve: float64, one entry a distinct threshold, from (0, 0) to (1, 1)."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """What an attack says of each example, and the truth.

    Attributes:
        values: float ``[n]`` or ``[models, n]``; the higher, the likelier a member. All are pooled.
        members: bool, the shape of ``values``.
        confidence: of every interval, two-sided.

    Raises:
        DataError: PRV101 where there are no members or no others, PRV102 where a score is not a number.
    """

    values: NDArray[np.floating]
    members: NDArray[np.bool_]
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64).ravel()
        members = np.asarray(self.members, dtype=bool).ravel()
        if values.shape != members.shape:
            raise DataError("PRV101", f"{len(values)} scores for {len(members)} memberships")
        if not members.any() or members.all():
            raise DataError("PRV101", f"{int(members.sum())} of {len(members)} examples are members")
        if np.isnan(values).any():
            raise DataError("PRV102", f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "members", members)

    @property
    def positives(self) -> NDArray[np.float64]:
        """The members' scores."""
        return np.asarray(self.values[self.members], dtype=np.float64)

    @property
    def negatives(self) -> NDArray[np.float64]:
        """The others' scores."""
        return np.asarray(self.values[~self.members], dtype=np.float64)

    def roc(self) -> Curve:
        """The curve through every distinct threshold; equal scores are called together."""
        order = np.argsort(-self.values, kind="stable")
        values, members = self.values[order], self.members[order]
        last = np.flatnonzero(np.r_[np.diff(values) != 0, True])
        tp, fp = np.cumsum(members)[last], np.cumsum(~members)[last]
        return Curve(np.r_[0.0, fp / fp[-1]], np.r_[0.0, tp / tp[-1]], np.r_[np.inf, values[last]])

    def auc(self) -> float:
        """The area under the curve: the chance that a member outscores another, ties counted half."""
        curve = self.roc()
        return float(np.trapezoid(curve.tpr, curve.fpr))

    def balanced_accuracy(self) -> float:
        """The best mean of true positive and true negative rate over all thresholds."""
        curve = self.roc()
        return float((curve.tpr + 1 - curve.fpr).max() / 2)

    def tpr(self, *, fpr: float) -> Operating:
        """The most members found at a false positive rate of at most ``fpr`` on these examples.

        Where k of n others lie above it, the threshold is just above the (k + 1)-th largest of their scores: it owes
        nothing to the members, whose interval is therefore exact, and the chance of a further other above it is
        distributed as Beta(k + 1, n − k), whose quantile is the upper end of the rate's interval: exact, too. Both
        hold for independent scores; those that one model gives are nearly so.

        Raises:
            DataError: PRV103 where there are too few others to tell such a rate from none: fewer than 1/fpr.
        """
        others = int((~self.members).sum())
        if others * fpr < 1 - 1e-9:
            raise DataError("PRV103", f"{others} others cannot resolve a false positive rate of {fpr:g}",
                            fix=f"Use at least {int(np.ceil(1 / fpr - 1e-9))} examples that are no members.")
        curve = self.roc()
        at = int(np.flatnonzero(curve.fpr <= fpr + 1e-12)[-1])
        return self.at(float(curve.thresholds[at]))

    def at(self, threshold: float) -> Operating:
        """Both rates where everything scored at or above ``threshold`` is called a member."""
        positives, negatives = self.positives, self.negatives
        return Operating(
            Rate(successes=int((positives >= threshold).sum()), n=len(positives), confidence=self.confidence),
            Rate(successes=int((negatives >= threshold).sum()), n=len(negatives), confidence=self.confidence),
            threshold,
        )

    def bound(self, *, fpr: float, method: str, confidence: float = CONFIDENCE) -> Bound:
        """``tpr@fpr=…`` at least …, one-sided, as evidence keeps it. Raises as :meth:`tpr`."""
        rate = self.tpr(fpr=fpr).tpr
        return Bound.of_count(f"tpr@fpr={fpr:g}", AT_LEAST, rate.successes, rate.n, method=method,
                              confidence=confidence)

    def area(self, *, method: str, confidence: float = CONFIDENCE) -> Bound:
        """``auc`` at least …, one-sided: exact in the sense that it holds for any distributions.

        Source: Hoeffding (1963), §5b: a two-sample mean over independent pairs of the smaller side.
        """
        auc, n = self.auc(), int(min(self.members.sum(), (~self.members).sum()))
        lower = max(0.0, auc - float(np.sqrt(np.log(1 / (1 - confidence)) / (2 * n))))
        return Bound(quantity="auc", side=AT_LEAST, estimate=auc, value=lower, confidence=confidence,
                     n=len(self.values), method=method)
