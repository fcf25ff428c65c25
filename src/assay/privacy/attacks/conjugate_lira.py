"""LiRA for small budgets: each example's Gaussian is shrunk toward what is usual of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.special import digamma, polygamma
from scipy.stats import t as student

from assay.privacy.attacks.moments import FLOOR, Moments, moments
from assay.privacy.methods import Sight
from assay.privacy.signals import Values
from assay.targets.access import Access

MOST = 1e6
"""Degrees of freedom from which on a prior is as good as certain."""


@dataclass(frozen=True, kw_only=True)
class ConjugateLiRA:
    """A ratio of predictive Student distributions, their prior learned from all examples: between global and own.

    *Paper*: the normal-inverse-gamma prior of Gelman et al., "Bayesian Data Analysis", §3.3; its variance part fitted
    as by Smyth, "Linear Models and Empirical Bayes Methods", 2004, §6.2; the ratio is LiRA's (Carlini et al., S&P
    2022, algorithm 1).

    *Needs*: scores, and shadow models, some trained on each example and some not.

    *Cost*: ``shadows`` trainings; one query an example and augmentation.

    *Blind spots*: those of LiRA; a prior says little where examples come from several very different populations.

    *Held to*: with 8 models never below LiRA with either variance by more than 0.005 AUC, and above LiRA with own
    variances by more than 0.02, in Gaussian worlds of equal and of unequal spreads.

    *Measured*: on 5 seeds of each world in `tests/privacy/test_membership.py`.

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> rng = np.random.default_rng(0)
        >>> keep = privacy.balanced_keep(9, 4000, seed=0)
        >>> signals = privacy.Signals(2 * rng.normal(size=4000) + rng.normal(size=keep.shape) + 2 * keep, keep)
        >>> attack, own = privacy.ConjugateLiRA(shadows=8), privacy.LiRA(variance="example", shadows=8)
        >>> better, worse = (privacy.judge(a, target=signals.models([8]), shadows=signals.models(slice(8))).auc()
        ...                  for a in (attack, own))
        >>> better > worse + 0.02
        True

    Attributes:
        shadows: how many models to train.
    """

    needs: ClassVar[Access] = Access.SCORES

    shadows: int = 16

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """Log ratios of predictive densities, mean over augmentations: float64 ``[targets, examples]``."""
        out, inside = (moments(sight.models, inside=side) for side in (False, True))
        alone = float((out.models + inside.models).max()) <= 2
        shared = _pooled(out, inside) if alone else None
        outside = _Prior.of(out, np.broadcast_to(out.mean.mean(0), out.mean.shape), shared)
        # How an example does when it was seen is best guessed from how it does when it was not.
        seen = _Prior.of(inside, _regression(out.mean, inside.mean), shared)
        ratio = seen.predictive(sight.signals, inside) - outside.predictive(sight.signals, out)
        return np.asarray(ratio.mean(-1))


class _Prior(NamedTuple):
    """Mean ``[examples, augmentations]``, its weight in models, the variance and its degrees of freedom."""

    mean: Values
    weight: Values
    variance: Values
    freedom: Values

    @classmethod
    def of(cls, world: Moments, mean: Values, shared: Values | None) -> _Prior:
        pooled = np.maximum(world.pooled[0] if shared is None else shared, FLOOR)
        variance, freedom = _variances(world, pooled)
        beyond = ((world.mean - mean) ** 2).mean(0) - pooled / world.models.mean(0)
        weight = np.where(beyond > 0, pooled / np.maximum(beyond, FLOOR), MOST)
        return cls(mean, np.minimum(weight, MOST), variance, freedom)

    def predictive(self, signals: Values, world: Moments) -> Values:
        """The log density of a further model's signal, given this world's (Gelman et al., equation 3.10 on)."""
        total, freedom = self.weight + world.models, self.freedom + world.models
        mean = (self.weight * self.mean + world.models * world.mean) / total
        between = self.weight * world.models / total * (world.mean - self.mean) ** 2
        squares = self.freedom * self.variance + world.squares + between
        scale = np.sqrt(np.maximum(squares / freedom * (total + 1) / total, FLOOR))
        return np.asarray(student.logpdf(signals, freedom, loc=mean, scale=scale))


def _pooled(out: Moments, inside: Moments) -> Values:
    """One variance an augmentation where no example has its own: of what regression leaves, shared by both worlds."""
    return np.asarray(((inside.mean - _regression(out.mean, inside.mean)) ** 2 / 2).mean(0))


def _variances(world: Moments, pooled: Values) -> tuple[Values, Values]:
    """The prior of the variances, by matching the mean and variance of their logarithms: ``[augmentations]`` each."""
    free = float(np.median(world.models)) - 1
    if free < 1:
        return pooled, np.full_like(pooled, MOST)
    logs = np.log(np.maximum(world.variance, FLOOR)) - digamma(free / 2) + np.log(free / 2)
    excess = logs.var(0) - polygamma(1, free / 2)
    freedom = np.array([2 * _inverse_trigamma(v) if v > polygamma(1, MOST / 2) else MOST for v in excess])
    variance = np.exp(logs.mean(0) + digamma(freedom / 2) - np.log(freedom / 2))
    return np.maximum(variance, FLOOR), freedom


def _inverse_trigamma(value: float) -> float:
    """Newton's method on 1/trigamma, which is convex and nearly linear (Smyth, 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        tri = float(polygamma(1, x))
        step = tri * (1 - tri / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x


def _regression(out: Values, inside: Values) -> Values:
    """What least squares makes of the mean inside from the one outside, for each augmentation."""
    centered = out - out.mean(0)
    slope = (centered * inside).sum(0) / np.maximum((centered**2).sum(0), FLOOR)
    return np.asarray(inside.mean(0) + slope * centered)
