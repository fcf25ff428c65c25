"""Poisson-subsampled Gaussian steps: the trade-off curve of one, and the ε of many in a row. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp, ndtr, ndtri

from assay.privacy.accounting.gaussian import epsilon_of_gaussian, mu_of
from assay.privacy.auditing.gaussian import last_true

_TAIL = 1e-15
"""The mass that a step may leave out, and the mass of a run that may fold over: 1e-10 of the smallest δ in use."""
_BINS, _FINE, _MOST = 4000, 8, 1 << 16
"""Into so many the outputs of a step are merged, so many more for each step, and so many at most."""
_SLACK = 0.05
"""By how much of a bin the loss of merged outputs may lie below the middle of its bin."""
LEAST_NOISE, _MOST_NOISE = 0.05, 512.0
"""The noise multipliers that are told apart."""

Floats = NDArray[np.float64]


class Losses(NamedTuple):
    """A distribution of privacy losses: ``mass[i]`` at ``first + i · width``, from below."""

    first: float
    width: float
    mass: Floats


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a training does to one example: ``count`` releases, each of them of the example with chance ``rate``.

    The hypothesis under which single steps say something of the whole run: noise is Gaussian, drawn afresh each step,
    and of the same size in all of them. The example is added to the data or left out.

    Attributes:
        rate: the chance that the example is in a step's batch.
        count: how many steps a run has.
    """

    rate: float
    count: int

    def epsilon(self, noise: float, delta: float) -> float:
        """The run's ε at ``delta`` under a noise multiplier: exact without subsampling, else from below.

        From below, since it speaks of a demonstrated leak: outputs are merged into bins, which can only lose
        privacy loss, and every bin's loss is rounded down. The accountants' ε is from above.
        """
        if self.rate >= 1:
            return epsilon_of_gaussian(math.sqrt(self.count) / noise, delta)
        return max(_epsilon_on(_composed(_single(self, noise, way), self.count), delta) for way in (True, False))

    def leak(self, missed: Floats | float, false: Floats | float) -> Floats:
        """The least ``1/σ`` under which a step can be missed and falsely alarmed about no oftener: float64.

        The best test of ``(1 − q) N(0, σ²) + q N(1, σ²)`` against ``N(0, σ²)`` is a threshold, for their likelihood
        ratio is monotone. Hence the trade-off curve ``f(α) = (1 − q)(1 − α) + q Φ(Φ⁻¹(1 − α) − 1/σ)``, here solved.
        """
        share = (np.asarray(missed) - (1 - self.rate) * (1 - np.asarray(false))) / self.rate
        return np.asarray(ndtri(1 - np.asarray(false)) - ndtri(np.clip(share, 0.0, 1.0)))

    def noise_for(self, epsilon: float, delta: float) -> float:
        """The noise multiplier at which a run is just (ε, δ)-private, and above which the claim may be true."""
        if self.rate >= 1:
            return math.sqrt(self.count) / max(mu_of(epsilon, delta), 1e-300)
        low, high = map(math.log, (LEAST_NOISE, _MOST_NOISE))
        if self.epsilon(math.exp(low), delta) <= epsilon:
            return math.exp(low)
        if self.epsilon(math.exp(high), delta) > epsilon:
            return math.inf
        return math.exp(brentq(lambda noise: self.epsilon(math.exp(noise), delta) - epsilon, low, high, xtol=1e-4))


def _single(steps: Steps, noise: float, removed: bool) -> Losses:
    """One step's loss where the example is removed (the mixture against the plain Gaussian), or added.

    The outputs between two edges are one output, its loss ``ln P/Q`` of the two masses.
    """
    q = steps.rate
    far = float(-ndtri(_TAIL)) * noise
    top = math.log1p(q * math.expm1(min(600.0, (0.5 + far) / noise**2)))
    bins = min(_BINS + _FINE * steps.count, _MOST)
    edges = np.linspace(max(math.log1p(-q), -top), top, bins + 1)
    at = np.r_[-np.inf, _output(edges[1:-1], q, noise), np.inf]
    plain, mixed = _between(at / noise), (1 - q) * _between(at / noise) + q * _between((at - 1) / noise)
    real = (plain > 1e-280) & (mixed > 1e-280)
    loss, mass = np.log(mixed[real]) - np.log(plain[real]), mixed[real] if removed else plain[real]
    loss = loss if removed else -loss
    width = (edges[-1] - edges[0]) / bins
    anchor = (edges[0] if removed else -edges[-1]) + (0.5 - _SLACK) * width
    place = np.floor((loss - anchor) / width).astype(np.int64)
    return Losses(anchor + int(place.min()) * width, width, np.bincount(place - place.min(), mass).astype(np.float64))


def _output(loss: Floats, rate: float, noise: float) -> Floats:
    """The output at which ``ln((1 − q) + q e^{(2x − 1)/(2σ²)})`` is this loss."""
    return np.asarray(noise**2 * np.log1p(np.expm1(loss) / rate) + 0.5)


def _between(x: Floats) -> Floats:
    """The normal mass between neighbors, from the tail in which it keeps its digits."""
    return np.asarray(np.where(x[:-1] > 0, ndtr(-x[:-1]) - ndtr(-x[1:]), ndtr(x[1:]) - ndtr(x[:-1])))


def _composed(one: Losses, count: int) -> Losses:
    """The loss of the whole run: a power of the Fourier transform, on a window that all but the tail falls into.

    Source: Koskela, Jälkö & Honkela (AISTATS 2020).
    """
    loss = one.first + one.width * np.arange(len(one.mass), dtype=np.float64)
    low, high = -_farthest(-loss, one.mass, count), _farthest(loss, one.mass, count)
    start = math.floor((low - count * one.first) / one.width)
    size = 1 << max(1, math.ceil((high - low) / one.width) + 2).bit_length()
    folded = np.bincount(np.arange(len(one.mass)) % size, one.mass, minlength=size)
    mass = np.fft.irfft(np.fft.rfft(folded) ** count, size)
    return Losses(count * one.first + start * one.width, one.width, np.maximum(np.roll(mass, -(start % size)), 0.0))


def _farthest(loss: Floats, mass: Floats, count: int) -> float:
    """How far the sum of so many losses reaches but for the tail, by Chernoff's bound."""
    rates = np.exp(np.linspace(math.log(1e-3), math.log(1e3), 60))
    moments = np.array([float(logsumexp(rate * loss, b=mass)) for rate in rates])
    return float(((count * moments - math.log(_TAIL)) / rates).min())


def _epsilon_on(losses: Losses, delta: float) -> float:
    """The least ε ≥ 0 with ``Σ_{l > ε} (1 − e^{ε − l}) p(l) ≤ δ``."""
    grid = losses.first + losses.width * np.arange(len(losses.mass))
    grid, mass = grid[grid > 0], losses.mass[grid > 0]
    return last_true(lambda epsilon: float((mass * -np.expm1(np.minimum(epsilon - grid, 0.0))).sum()) > delta)
