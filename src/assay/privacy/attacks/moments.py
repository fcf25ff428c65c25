"""How the adversary's own models are distributed around each example: means and variances of those in and out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from assay.errors import DataError
from assay.privacy.signals import Signals, Values


class Moments(NamedTuple):
    """Of one world: float64 ``[examples, augmentations]``, and the counts ``[examples, 1]``."""

    mean: Values
    squares: Values
    """The sum of squared deviations from the mean."""
    models: Values

    @property
    def variance(self) -> Values:
        """Of each example by itself, unbiased."""
        return self.squares / np.maximum(self.models - 1, 1)

    @property
    def pooled(self) -> Values:
        """One variance an augmentation, within examples: ``[1, augmentations]``."""
        return np.asarray(self.squares.sum(0, keepdims=True) / max(float((self.models - 1).sum()), 1.0))


def moments(signals: Signals, *, inside: bool) -> Moments:
    """Of the models trained on each example, or of those that were not.

    Raises:
        DataError: PRV111 where some example has no such model.
    """
    keep = signals.keep if inside else ~signals.keep
    count = keep.sum(0).astype(np.float64)[:, None]
    if count.min() < 1:
        which = "trained on" if inside else "not trained on"
        raise DataError("PRV111", f"no shadow model was {which} example {int(count.argmin())}")
    values = signals.values.astype(np.float64)
    weights = keep[..., None].astype(np.float64)
    mean = np.einsum("mea,mek->ea", values, weights) / count
    squares = np.einsum("mea,mek->ea", (values - mean) ** 2, weights)
    return Moments(mean, squares, count)


FLOOR = 1e-12
"""Below this a variance is taken for rounding: no Gaussian is narrower than what float32 signals can tell."""
