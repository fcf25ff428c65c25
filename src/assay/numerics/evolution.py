"""Evolutionary search without gradients, many problems in lock-step: differential evolution and CMA-ES.

Every row is a problem of its own. ``ask`` gives candidates ``[rows, members, n]``, the caller finds their losses
``[rows, members]`` (lower is better; ``inf`` for a candidate that was not tried), ``tell`` returns the next state.
Only the order of the losses matters. All state is in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, Self

import torch
from torch import Tensor

from assay.numerics.balls import rowwise
from assay.numerics.seeds import Stream


class Evolution(Protocol):
    """A search in the middle of its course."""

    @property
    def members(self) -> int:
        """How many candidates there are in a generation."""

    def ask(self, rng: Stream) -> Tensor:
        """The next generation's candidates."""

    def tell(self, candidates: Tensor, losses: Tensor) -> Self:
        """The state after these candidates turned out to have these losses."""

    def keep(self, mask: Tensor) -> Self:
        """The searches under the mask."""

    def renewed(self, mask: Tensor, other: Self) -> Self:
        """This search with the rows under the mask those of another one of the same size."""


@dataclass(frozen=True, eq=False)
class DifferentialEvolution:
    """Differential evolution in the unit cube (Storn & Price, J. Global Optimization 1997), without crossover.

    Attributes:
        population: ``[rows, members, n]``.
        losses: of the population, ``[rows, members]``; ``inf`` before the first generation.
        weight: of the difference that is added to another member (F): drawn between these two for each generation,
            for with one weight alone small populations come to rest before they arrive.
        greedy: whether it is added to the best member (``best/1``) or to a random one (``rand/1``).
    """

    population: Tensor
    losses: Tensor
    weight: tuple[float, float] = (0.5, 1.0)
    greedy: bool = False

    @classmethod
    def start(
        cls, population: Tensor, *, weight: tuple[float, float] = (0.5, 1.0), greedy: bool = False
    ) -> DifferentialEvolution:
        """A search from this first generation of at least 4 members."""
        if population.shape[1] < 4:
            raise ValueError(f"differential evolution needs at least 4 members; got {population.shape[1]}")
        losses = torch.full(population.shape[:2], torch.inf, dtype=torch.float64, device=population.device)
        return cls(population.double(), losses, weight, greedy)

    @property
    def members(self) -> int:
        """How many candidates there are in a generation."""
        return self.population.shape[1]

    def ask(self, rng: Stream) -> Tensor:
        """A mutant for each member: another one plus a weighted difference; what leaves the cube is drawn anew.

        Of a row of which nothing was judged yet, the population itself.
        """
        base, plus, minus = (self._pick(column) for column in self._others(rng.fold("others")))
        if self.greedy:
            base = self._pick(self.losses.argmin(1, keepdim=True).expand_as(self.losses))
        low, high = self.weight
        weight = low + (high - low) * rng.fold("weight").uniform(1, 1, dtype=torch.float64)
        mutants = base + weight * (plus - minus)
        fresh = rng.fold("fresh").uniform(*mutants.shape[1:], dtype=torch.float64)
        mutants = torch.where((mutants < 0) | (mutants > 1), fresh, mutants)
        judged = torch.isfinite(self.losses).any(1)
        return torch.where(judged[:, None, None], mutants, self.population)

    def tell(self, candidates: Tensor, losses: Tensor) -> DifferentialEvolution:
        """Each candidate takes the place of its parent where it is better."""
        better = losses < self.losses
        return replace(self, population=torch.where(better[:, :, None], candidates, self.population),
                       losses=torch.where(better, losses.double(), self.losses))

    def keep(self, mask: Tensor) -> DifferentialEvolution:
        """The searches under the mask."""
        return replace(self, population=self.population[mask], losses=self.losses[mask])

    def renewed(self, mask: Tensor, other: DifferentialEvolution) -> DifferentialEvolution:
        """This search with the rows under the mask those of ``other``."""
        return replace(self, population=torch.where(mask[:, None, None], other.population, self.population),
                       losses=torch.where(mask[:, None], other.losses, self.losses))

    def _pick(self, index: Tensor) -> Tensor:
        return self.population.gather(1, index[:, :, None].expand_as(self.population))

    def _others(self, rng: Stream) -> tuple[Tensor, Tensor, Tensor]:
        """Three members for each, all different and none itself, ``[rows, members]`` each."""
        count = self.members
        u = rng.uniform(3, count, dtype=torch.float64)
        first, second, third = ((u[:, i] * (count - 1 - i)).long() for i in range(3))  # of those not yet taken
        second = second + (second >= first)
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        third = third + (third >= low)
        third = third + (third >= high)
        own = torch.arange(count, device=u.device)
        return (own + 1 + first) % count, (own + 1 + second) % count, (own + 1 + third) % count


@dataclass(frozen=True)
class _Rates:
    """The default strategy parameters of Hansen's tutorial (arXiv 1604.00772), Table 1."""

    weights: tuple[float, ...]
    """Of the ranked candidates; the positive ones sum to 1 (Eq. 49–53)."""
    mass: float
    """The variance effective selection mass of the positive weights, μ_eff (Eq. 8)."""
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    expected: float
    """The expected length of a standard normal vector."""

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, n: int, members: int, separable: bool) -> _Rates:
        """The defaults for so many dimensions and candidates."""
        raw = [math.log((members + 1) / 2) - math.log(i) for i in range(1, members + 1)]  # Eq. 49
        positive, negative = [w for w in raw if w >= 0], [w for w in raw if w < 0]
        mass, less = (sum(part) ** 2 / sum(w * w for w in part) for part in (positive, negative))
        boost = (n + 2) / 3 if separable else 1.0  # Ros & Hansen, PPSN 2008, §3: fewer numbers are learned sooner
        c_1 = min(1.0, boost * 2 / ((n + 1.3) ** 2 + mass))  # Eq. 57
        c_mu = min(1 - c_1, boost * 2 * (0.25 + mass + 1 / mass - 2) / ((n + 2) ** 2 + mass))  # Eq. 58
        # Eq. 50–52: no decay of C, no more weight than selection is worth, and C stays positive definite.
        limits = (1 + c_1 / c_mu, 1 + 2 * less / (mass + 2), (1 - c_1 - c_mu) / (n * c_mu)) if c_mu else (0.0,)
        scale = max(min(limits), 0.0)
        weights = [w / sum(positive) for w in positive] + [w * scale / -sum(negative) for w in negative]  # Eq. 53
        c_sigma = (mass + 2) / (n + mass + 5)  # Eq. 55
        return cls(weights=tuple(weights), mass=mass, c_sigma=c_sigma,
                   d_sigma=1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + c_sigma,
                   c_c=(4 + mass / n) / (n + 4 + 2 * mass / n), c_1=c_1, c_mu=c_mu,
                   expected=math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n)))


@dataclass(frozen=True, eq=False)
class CMAES:
    """CMA-ES (Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, Figure 6), full or separable.

    The separable form (Ros & Hansen, PPSN 2008) keeps the diagonal of the covariance alone: for many dimensions.
    Candidates are drawn with the symmetric root of the covariance, which, unlike its eigenvectors, does not jump when
    eigenvalues coincide.

    Attributes:
        members: candidates in a generation.
        mean, sigma: ``[rows, n]`` and ``[rows]``.
        path_sigma, path_c: the evolution paths, ``[rows, n]``.
        covariance: ``[rows, n, n]``, or ``[rows, n]`` where separable.
        root, inverse: its square root and that root's inverse, as of the last decomposition.
        generation: how many were told.
    """

    members: int
    mean: Tensor
    sigma: Tensor
    path_sigma: Tensor
    path_c: Tensor
    covariance: Tensor
    root: Tensor
    inverse: Tensor
    generation: int = 0

    @classmethod
    def start(cls, mean: Tensor, sigma: float, *, members: int | None = None, separable: bool = False) -> CMAES:
        """A search around ``mean [rows, n]``, ``sigma`` wide; ``None`` members for 4 + ⌊3 ln n⌋ (Eq. 48)."""
        rows, n = mean.shape
        count = members or 4 + int(3 * math.log(n))
        if count < 4:
            raise ValueError(f"CMA-ES needs at least 4 members; got {count}")
        mean = mean.double()
        unit = torch.ones_like(mean)
        unit = unit if separable else torch.diag_embed(unit)
        wide = torch.full((rows,), sigma, dtype=mean.dtype, device=mean.device)
        return cls(count, mean, wide, torch.zeros_like(mean), torch.zeros_like(mean), unit, unit, unit)

    def ask(self, rng: Stream) -> Tensor:
        """Draws from the normal distribution with the mean, the step size and the covariance (Eq. 38–40)."""
        z = rng.normal(self.members, self.mean.shape[1], dtype=torch.float64)
        return self.mean[:, None] + self.sigma[:, None, None] * self._times(self.root, z)

    def tell(self, candidates: Tensor, losses: Tensor) -> CMAES:
        """Selection and recombination, step-size control, covariance adaptation (Eq. 41–47)."""
        rates, n = self._rates, self.mean.shape[1]
        weights = torch.tensor(rates.weights, dtype=torch.float64, device=self.mean.device)
        order = losses.argsort(dim=1, stable=True)
        y = (candidates - self.mean[:, None]) / self.sigma[:, None, None]
        y = y.gather(1, order[:, :, None].expand_as(y))
        step = (weights.clamp_min(0)[:, None] * y).sum(1)
        whitened = self._times(self.inverse, step[:, None])[:, 0]
        path_sigma = _moved(self.path_sigma, rates.c_sigma, rates.mass, whitened)  # Eq. 43
        length = torch.linalg.vector_norm(path_sigma, dim=1)
        sigma = self.sigma * torch.exp(rates.c_sigma / rates.d_sigma * (length / rates.expected - 1)).clamp(max=math.e)
        unbiased = length / math.sqrt(1 - (1 - rates.c_sigma) ** (2 * (self.generation + 1)))
        calm = (unbiased < (1.4 + 2 / (n + 1)) * rates.expected).double()[:, None]  # h_σ
        path_c = _moved(self.path_c, rates.c_c, rates.mass, step, calm)  # Eq. 45
        after = replace(self, mean=self.mean + self.sigma[:, None] * step, sigma=sigma, path_sigma=path_sigma,
                        path_c=path_c, covariance=self._adapted(y, weights, path_c, calm[:, 0]),
                        generation=self.generation + 1)
        return after._decomposed() if after.generation % self._gap == 0 else after

    def keep(self, mask: Tensor) -> CMAES:
        """The searches under the mask."""
        return replace(self, mean=self.mean[mask], sigma=self.sigma[mask], path_sigma=self.path_sigma[mask],
                       path_c=self.path_c[mask], covariance=self.covariance[mask], root=self.root[mask],
                       inverse=self.inverse[mask])

    def renewed(self, mask: Tensor, other: CMAES) -> CMAES:
        """This search with the rows under the mask those of ``other``."""
        def merged(own: Tensor, new: Tensor) -> Tensor:
            return torch.where(rowwise(mask, own), new, own)

        return replace(self, mean=merged(self.mean, other.mean), sigma=merged(self.sigma, other.sigma),
                       path_sigma=merged(self.path_sigma, other.path_sigma), path_c=merged(self.path_c, other.path_c),
                       covariance=merged(self.covariance, other.covariance), root=merged(self.root, other.root),
                       inverse=merged(self.inverse, other.inverse))

    @property
    def _separable(self) -> bool:
        return self.covariance.dim() == 2

    @property
    def _rates(self) -> _Rates:
        return _Rates.of(self.mean.shape[1], self.members, self._separable)

    @property
    def _gap(self) -> int:
        """Generations between two decompositions, which cost n³ (tutorial, §B.2)."""
        speed = 10 * self.mean.shape[1] * (self._rates.c_1 + self._rates.c_mu)
        return 1 if self._separable else max(1, int(1 / speed))

    def _times(self, matrix: Tensor, vectors: Tensor) -> Tensor:
        """A symmetric matrix a row times ``vectors [rows, members, n]``."""
        return vectors * matrix[:, None] if self._separable else vectors @ matrix

    def _adapted(self, y: Tensor, weights: Tensor, path: Tensor, calm: Tensor) -> Tensor:
        """The covariance after the rank-one and the rank-μ update (Eq. 46–47)."""
        rates, n = self._rates, y.shape[2]
        long = self._times(self.inverse, y).square().sum(2).clamp_min(torch.finfo(y.dtype).tiny)
        active = torch.where(weights >= 0, weights, weights * n / long)
        kept = 1 - rates.c_1 - rates.c_mu * float(weights.sum()) + rates.c_1 * (1 - calm) * rates.c_c * (2 - rates.c_c)
        if self._separable:
            news = rates.c_1 * path.square() + rates.c_mu * (active[:, :, None] * y.square()).sum(1)
            return kept[:, None] * self.covariance + news
        one = path[:, :, None] * path[:, None]
        many = y.transpose(1, 2) @ (active[:, :, None] * y)
        return kept[:, None, None] * self.covariance + rates.c_1 * one + rates.c_mu * many

    def _decomposed(self) -> CMAES:
        """With the roots of today's covariance."""
        if self._separable:
            root = self.covariance.clamp_min(1e-20).sqrt()
            return replace(self, root=root, inverse=1 / root)
        covariance = (self.covariance + self.covariance.transpose(1, 2)) / 2
        values, vectors = torch.linalg.eigh(covariance)
        values = torch.maximum(values, 1e-14 * values.amax(1, keepdim=True)).clamp_min(1e-20)
        root, inverse = ((vectors * values[:, None] ** power) @ vectors.transpose(1, 2) for power in (0.5, -0.5))
        return replace(self, covariance=covariance, root=root, inverse=inverse)


def _moved(path: Tensor, rate: float, mass: float, step: Tensor, calm: Tensor | float = 1.0) -> Tensor:
    """An evolution path one step on, of unit variance under neutral selection."""
    return (1 - rate) * path + calm * math.sqrt(rate * (2 - rate) * mass) * step
