"""From an outcome to what a report is built of: the worst cases behind the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.evidence.record import Evidence
from assay.reports import WorstCases


def worst_cases(
    evidence: Sequence[Evidence],
    samples: Mapping[str, NDArray[np.generic]],
    bounds: tuple[float, float],
    *,
    k: int = 6,
) -> dict[str, WorstCases]:
    """Of each attack, the ``k`` points that fell at the smallest change, beside what felled them."""
    cases: dict[str, WorstCases] = {}
    for e in evidence:
        if "adversarial" not in e.artefacts or "x" not in samples:
            continue
        stored = e.artefacts["adversarial"].arrays
        index = stored["index"].astype(np.int64)
        x, z = samples["x"][index].astype(np.float64), stored["x"].astype(np.float64)
        order = np.lexsort((np.abs(z - x).reshape(len(x), -1).sum(1), stored["radius"].astype(np.float64)))[:k]
        cases[e.id] = WorstCases(
            originals=x[order],
            adversarial=z[order],
            labels=samples["y"][index][order].tolist(),
            predicted=stored["predicted"][order].tolist(),
            bounds=bounds,
            points=index[order].tolist(),
        )
    return cases
