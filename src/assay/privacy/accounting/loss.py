"""Privacy loss distributions: the loss of every release on one grid, composed by FFT, never below the truth.

Sources: Koskela, Jälkö & Honkela (AISTATS 2020); Doroshenko et al. (PoPETs 2022) for the grid that dominates.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter
from scipy.special import logsumexp, ndtr

from assay.errors import ConfigError
from assay.privacy.mechanisms import Gaussian, Mechanism, Renyi, SampledGaussian

Floats = NDArray[np.float64]
Direction = Literal["remove", "add"]
Release = Gaussian | SampledGaussian

DIRECTIONS: tuple[Direction, Direction] = ("remove", "add")
"""Whether the released data set has the example and its neighbor has not, or the other way around."""

_EXCESS = 2e-5
"""By how much the grid may raise the mean loss of the whole composition: at most h²/8 a release."""

_COARSEST = 1e-3
"""The longest step, where losses are not too far apart for it."""

_POINTS = 1 << 20
"""The longest grid of one release. Where losses reach farther, it is coarser: still valid, less tight."""

_REACH = 10.0
"""Standard deviations beyond which a release's loss counts as infinite: a chance of 8e-24."""


@dataclass(frozen=True, eq=False)
class PrivacyLoss:
    """The distribution of ``ln p(o)/q(o)`` for outputs ``o`` drawn from ``p``.

    Attributes:
        step: the grid's.
        first: the least loss, in steps.
        masses: the chance of each loss on the grid, from ``first`` up: float64.
        infinite: the chance of a loss beyond any ε.
    """

    step: float
    first: int
    masses: Floats
    infinite: float

    @property
    def losses(self) -> Floats:
        """The grid: float64, the length of ``masses``."""
        return np.arange(self.first, self.first + len(self.masses), dtype=np.float64) * self.step

    def delta(self, epsilon: float) -> float:
        """``E[(1 − e^{ε − L})₊]``: the least δ that goes with ε in this direction."""
        beyond = self.losses > epsilon
        loss = self.losses[beyond]
        return min(self.infinite - float(self.masses[beyond] @ np.expm1(epsilon - loss)), 1.0)

    def epsilon(self, delta: float) -> float:
        """The least ε ≥ 0 that goes with δ in this direction."""
        if self.infinite > delta:
            return math.inf
        positive = self.losses > 0
        loss, mass = self.losses[positive], self.masses[positive]
        if not len(loss):
            return 0.0
        above = self.infinite + np.cumsum(mass[::-1])[::-1]  # P(L ≥ loss)
        weight = lfilter([1.0], [1.0, -math.exp(-self.step)], mass[::-1])[::-1]  # Σ of e^{loss − L} for L ≥ loss
        fits = np.flatnonzero(above - weight <= delta)  # δ at each loss; between losses it is linear in e^ε
        at = int(fits[0]) if len(fits) else len(loss) - 1
        over = (float(above[at]) - delta) / max(float(weight[at]), 1e-300)
        return max(float(loss[at]) + math.log(over), 0.0) if over > 0 else 0.0


def privacy_loss(mechanism: Mechanism, direction: Direction, *, tail: float = 1e-12) -> PrivacyLoss:
    """The loss of the whole mechanism in one direction.

    Args:
        tail: the mass that the composition may leave off its grid; it is added to ``infinite``.

    Raises:
        ConfigError: PRV202 where a part is known by its Rényi divergences only.
    """
    releases = _releases(mechanism)
    step = _grid(releases)
    if step == 0:
        return PrivacyLoss(1.0, 0, np.ones(1) if all(map(_private, releases)) else np.zeros(1),
                           0.0 if all(map(_private, releases)) else 1.0)
    singles = [(_single(release, direction, step), count) for release, count in releases.items()]
    return _composed(singles, tail)


def _releases(mechanism: Mechanism) -> Mapping[Release, int]:
    """Every different release and how often it is made; plain Gaussians amount to one."""
    squares, sampled = 0.0, defaultdict[Release, int](int)
    for part in mechanism.parts:
        match part:
            case Renyi():
                raise ConfigError("PRV202", "a mechanism known by its Rényi divergences has no privacy loss here")
            case Gaussian(mu=mu):
                squares += mu**2
            case SampledGaussian(noise=noise, rate=rate, steps=steps) if steps:
                sampled[SampledGaussian(noise=noise, rate=rate, steps=1)] += steps
    if squares:
        sampled[Gaussian(mu=math.sqrt(squares))] = 1
    return sampled


def _private(release: Release) -> bool:
    return math.isfinite(release.mu) if isinstance(release, Gaussian) else release.noise > 0


def _grid(releases: Mapping[Release, int]) -> float:
    """The step; 0 where there is nothing to put on a grid."""
    if not releases or not all(map(_private, releases)):
        return 0.0
    widest = max(np.ptp(_support(release, "remove")) for release in releases)
    coarse = max(min(math.sqrt(8 * _EXCESS / sum(releases.values())), _COARSEST), float(widest) / _POINTS)
    fine = max(min(map(_spread, releases)) / 4, float(widest) / (_POINTS / 4))  # for releases that tell little
    return min(coarse, fine)


def _spread(release: Release) -> float:
    """About the standard deviation of one release's loss."""
    if isinstance(release, Gaussian):
        return release.mu
    return release.rate * math.sqrt(math.expm1(min(1 / release.noise**2, 50.0)))


def _support(release: Release, direction: Direction) -> Floats:
    """The least and the largest loss that count."""
    if isinstance(release, Gaussian):
        middle = release.mu**2 / 2
        return np.array([middle - _REACH * release.mu, middle + _REACH * release.mu])
    outputs = np.array([-_REACH * release.noise, 1 + _REACH * release.noise])
    likelier = np.logaddexp(math.log1p(-release.rate),
                            math.log(release.rate) + (2 * outputs - 1) / (2 * release.noise**2))
    return likelier if direction == "remove" else -likelier[::-1]


def _single(release: Release, direction: Direction, step: float) -> PrivacyLoss:
    """One release on the grid: the mass between two losses is split so that both p's and q's mass is kept.

    The hockey-stick divergence is then exact at the grid and, being convex in e^ε, no less between.
    """
    low, high = _support(release, direction)
    first, last = math.floor(low / step), math.ceil(high / step)
    loss = np.arange(first, last + 1) * step
    p, q = _between(release, direction, loss)
    up = np.clip((p - np.exp(loss[:-1]) * q) / -math.expm1(-step), 0.0, p)
    masses = np.zeros(len(loss))
    masses[:-1] += p - up
    masses[1:] += up
    below, above = _beyond(release, direction, loss[0], loss[-1])
    masses[0] += below
    return PrivacyLoss(step, first, masses, above)


def _between(release: Release, direction: Direction, loss: Floats) -> tuple[Floats, Floats]:
    """The mass of p and of q on outputs whose loss lies between neighbors of the grid."""
    if isinstance(release, Gaussian):
        x = loss / release.mu
        return _normal(x - release.mu / 2), _normal(x + release.mu / 2)
    with_it, without = _densities(release, _output(release, loss if direction == "remove" else -loss[::-1]))
    return (with_it, without) if direction == "remove" else (without[::-1], with_it[::-1])


def _beyond(release: Release, direction: Direction, low: float, high: float) -> tuple[float, float]:
    """p's mass on losses below and above these."""
    if isinstance(release, Gaussian):
        return float(ndtr(low / release.mu - release.mu / 2)), float(ndtr(release.mu / 2 - high / release.mu))
    if direction == "add":
        x = _output(release, np.array([-high, -low])) / release.noise
        return float(ndtr(-x[1])), float(ndtr(x[0]))
    x, q, shift = _output(release, np.array([low, high])) / release.noise, release.rate, 1 / release.noise
    return (float((1 - q) * ndtr(x[0]) + q * ndtr(x[0] - shift)),
            float((1 - q) * ndtr(-x[1]) + q * ndtr(shift - x[1])))


def _output(release: SampledGaussian, loss: Floats) -> Floats:
    """The output at which ``ln(1 − q + q e^{(2x−1)/2σ²})`` is this; −∞ where it is always more."""
    likelier = np.expm1(loss) + release.rate
    with np.errstate(divide="ignore"):
        return release.noise**2 * np.log(np.maximum(likelier, 0.0) / release.rate) + 0.5


def _densities(release: SampledGaussian, outputs: Floats) -> tuple[Floats, Floats]:
    """The mass between neighboring outputs with the example in the data and without."""
    x = outputs / release.noise
    without = _normal(x)
    return (1 - release.rate) * without + release.rate * _normal(x - 1 / release.noise), without


def _normal(x: Floats) -> Floats:
    """Φ of every next value minus Φ of this one, from the tail in which it loses no digits."""
    left, right = ndtr(x), ndtr(-x)
    tails: Floats = np.where(x[:-1] > 0, right[:-1] - right[1:], left[1:] - left[:-1])
    return tails


def _composed(singles: list[tuple[PrivacyLoss, int]], tail: float) -> PrivacyLoss:
    """The sum of all losses: a product of Fourier transforms, on a window that all but ``tail`` falls into."""
    step = singles[0][0].step
    low, high = -_farthest(singles, -1, tail / 2), _farthest(singles, +1, tail / 2)
    first = math.floor(low / step)
    size = 1 << max(math.ceil(high / step) - first, 1).bit_length()
    spectrum, finite, offset = np.ones(size // 2 + 1, dtype=np.complex128), 0.0, 0
    for single, count in singles:
        folded = np.bincount(np.arange(len(single.masses)) % size, single.masses, minlength=size)
        spectrum *= np.fft.rfft(folded) ** count
        finite += count * math.log1p(-single.infinite)
        offset += count * single.first
    masses = np.maximum(np.roll(np.fft.irfft(spectrum, size), (offset - first) % size), 0.0)
    return PrivacyLoss(step, first, masses, min(tail - math.expm1(finite), 1.0))


def _farthest(singles: list[tuple[PrivacyLoss, int]], sign: int, tail: float) -> float:
    """How far ``sign`` times the total loss reaches but for ``tail`` of its mass, by Chernoff's bound."""
    def bound(log_rate: float) -> float:
        rate = math.exp(log_rate)
        moment = sum(count * float(logsumexp(sign * rate * single.losses, b=single.masses))
                     for single, count in singles)
        return (moment + math.log(1 / tail)) / rate

    found = minimize_scalar(bound, bounds=(math.log(1e-3), math.log(1e3)), method="bounded", options={"xatol": 0.02})
    return float(found.fun)
