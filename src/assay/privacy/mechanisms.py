"""What the privacy of a procedure rests on: how much noise, how often, on which share of the data.

Neighbors are data sets of which one has one example more (*add/remove*). Noise is in units of the sensitivity: the
most by which one example moves what is released. Where the neighbor is a *replaced* example, that is twice as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.errors import ConfigError

ADJACENCY = "add/remove"
"""Which data sets are neighbors; evidence states it."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """One release with Gaussian noise, or any adaptive sequence of them that amounts to one: μ-Gaussian DP.

    Composition adds squares: releases with noise σ₁, …, σₖ are one with μ = (Σ 1/σᵢ²)^½ (Dong, Roth & Su, 2022).

    Attributes:
        mu: sensitivity over standard deviation; 0 releases nothing, ``inf`` everything.
        adjacency: which data sets are neighbors, where it is not that one example is added or removed.
    """

    mu: float
    adjacency: str = ADJACENCY

    def __post_init__(self) -> None:
        if not self.mu >= 0:
            raise ConfigError("PRV201", f"mu = {self.mu}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The releases, one after another."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """Gaussian releases, each about a fresh Poisson sample of the data: what DP-SGD does.

    Attributes:
        noise: standard deviation over the sensitivity (the *noise multiplier*); 0 is no privacy.
        rate: the chance with which each example enters a step, by itself.
        steps: how many releases.
    """

    noise: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.noise >= 0 and 0 < self.rate <= 1 and self.steps >= 0):
            raise ConfigError("PRV201", f"noise = {self.noise}, rate = {self.rate}, steps = {self.steps}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The releases, one after another; without sampling they amount to a single one."""
        if self.rate == 1:
            return (Gaussian(mu=math.sqrt(self.steps) / self.noise if self.noise else math.inf),)
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Renyi:
    """A procedure of which only the Rényi divergences are known, such as noisy votes seen in hindsight.

    Attributes:
        orders: α > 1, ascending.
        divergences: the Rényi divergence of each order, at most, for all neighbors.
    """

    orders: tuple[float, ...]
    divergences: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.orders) != len(self.divergences) or not self.orders or min(self.orders) <= 1:
            raise ConfigError("PRV201", f"{len(self.orders)} orders and {len(self.divergences)} divergences")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Itself."""
        return (self,)


@dataclass(frozen=True)
class Composed:
    """Several mechanisms on the same data, one after another, each free to depend on what those before released.

    Attributes:
        mechanisms: in any order.
    """

    mechanisms: tuple[Mechanism, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The releases of all of them."""
        return tuple(part for mechanism in self.mechanisms for part in mechanism.parts)


def adjacency(mechanism: Mechanism) -> str:
    """Which data sets are neighbors: what the parts say, each once."""
    return " and ".join(dict.fromkeys(getattr(part, "adjacency", ADJACENCY) for part in mechanism.parts)) or ADJACENCY


Part = Gaussian | SampledGaussian | Renyi
Mechanism = Gaussian | SampledGaussian | Renyi | Composed
