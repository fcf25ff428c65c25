"""How membership attacks trade members found against false alarms, on two logarithmic axes, ready to be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.evidence.record import Evidence
from assay.reports import words

_STEPS = 160
"""Into how many steps the false positive rate is cut, evenly on its logarithm."""


@dataclass(frozen=True)
class Trace:
    """One attack's curve: percent of the field's width and height, left to right."""

    by: str
    dots: tuple[tuple[float, float], ...]
    found: str
    """What it finds at the lowest false positive rate that the others can resolve."""

    @property
    def path(self) -> str:
        """As SVG writes it, in a field of 100 by 100."""
        return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in self.dots)


@dataclass(frozen=True)
class Roc:
    """The curves of all attacks on the same targets.

    Attributes:
        decades: the exponent at which both axes begin: 10⁻ᵈ.
        others: how many examples were no members: what lies below one in so many cannot be seen.
    """

    decades: int
    others: int
    traces: tuple[Trace, ...]

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Where the powers of ten lie, in percent of an axis, and how they are written."""
        return tuple((100 * (1 - power / self.decades), f"{100 * 10.0**-power:g}%")
                     for power in range(self.decades, -1, -1))

    @property
    def spoken(self) -> str:
        """The drawing in words."""
        return "true against false positive rate, both logarithmic: " + "; ".join(
            f"{trace.by} finds {trace.found}" for trace in self.traces)


def roc(found: Sequence[Evidence]) -> Roc | None:
    """The curves of evidence that kept its scores and the truth; ``None`` where none did."""
    kept = [(e.attack, *pair) for e in found if (pair := _scores(e)) is not None]
    if not kept:
        return None
    others = min(int((~members).sum()) for _, _, members in kept)
    decades = max(1, math.ceil(math.log10(others) - 1e-9))
    return Roc(decades, others, tuple(_trace(by, values, members, decades, others) for by, values, members in kept))


def _scores(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    kept = evidence.artefacts.get("scores")
    if kept is None or not {"values", "members"} <= set(kept.arrays):
        return None
    values = np.asarray(kept.arrays["values"], dtype=np.float64).ravel()
    members = np.asarray(kept.arrays["members"]).astype(bool).ravel()
    usable = len(values) == len(members) and 0 < members.sum() < len(members) and not np.isnan(values).any()
    return (values, members) if usable else None


def _trace(by: str, values: NDArray[np.float64], members: NDArray[np.bool_], decades: int, others: int) -> Trace:
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(values[order]) != 0, True])
    tp, fp = np.cumsum(members[order])[last], np.cumsum(~members[order])[last]
    tpr, fpr = np.r_[0.0, tp / tp[-1]], np.r_[0.0, fp / fp[-1]]
    rates = 10.0 ** np.linspace(-math.log10(others), 0, _STEPS)
    at = np.searchsorted(fpr, rates * (1 + 1e-9), side="right") - 1
    dots = [(_across(x, decades), 100 - _across(float(tpr[i]), decades)) for x, i in zip(rates, at)]
    low = 1 / others
    return Trace(by, tuple(dots), f"{words.figure(float(tpr[at[0]]), 'share')} of members at {100 * low:.2g}% alarms")


def _across(rate: float, decades: int) -> float:
    return 100 * max(0.0, 1 + math.log10(max(rate, 10.0**-decades)) / decades)
