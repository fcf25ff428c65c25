"""Detectors that measure the features of several layers and weigh the measures by a logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.attacks.pgd import PGD
from assay.evasion.defenses.detection import Judged
from assay.evasion.objectives import cross_entropy
from assay.evasion.threat import Linf
from assay.numerics.balls import distance, rowwise
from assay.numerics.seeds import Stream
from assay.targets.base import WhiteBox
from assay.targets.defended import Parts
from assay.targets.differentiable import Network
from assay.targets.features import pooled, read


class Measure(Protocol):
    """One number a layer that says how natural its features are."""

    def __call__(self, features: tuple[Tensor, ...]) -> Tensor:
        """Features ``[rows, channels]`` of each layer to ``[rows, layers]``."""

    def state(self) -> Mapping[str, object]:
        """What it was fitted to."""


@dataclass(frozen=True, eq=False)
class LayeredDetector:
    """The log-odds of being adversarial, from one measure a layer.

    Attributes:
        name: of the method.
        layers: whose features are read, averaged over all places.
        measure: what is measured of them.
        weights: of the measures, ``[layers]``.
        bias: of the sum.
    """

    name: str
    layers: tuple[str, ...]
    measure: Measure
    weights: Tensor
    bias: float

    @property
    def parts(self) -> Parts:
        """Nothing but a detector: it is smooth, and draws no numbers."""
        return Parts()

    def looks(self, *, climbing: bool) -> int:
        """One."""
        return 1

    def judge(self, network: Network, x: Tensor, *, climbing: bool, informed: bool) -> Judged:
        """The logistic regression before its sigmoid."""
        scores, features = network.read(x, self.layers)
        measured = self.measure(tuple(pooled(layer) for layer in features))
        return Judged(scores, measured @ self.weights.to(measured.dtype) + self.bias)

    def state(self) -> dict[str, object]:
        """Layers, measure and weights."""
        return {"layers": self.layers, "weights": self.weights, "bias": self.bias, **self.measure.state()}


def features_of(target: WhiteBox, names: tuple[str, ...], x: Tensor, batch: int = 512) -> tuple[Tensor, ...]:
    """The features of these layers, averaged over all places, ``[rows, channels]`` each."""
    with torch.no_grad():
        starts = range(0, len(x), batch)
        parts = [[pooled(f) for f in read(target.module(), names, x[i : i + batch]).layers] for i in starts]
    return tuple(torch.cat(column) for column in zip(*parts))


class Crafted(NamedTuple):
    """What a detector learns from: natural inputs, the same under noise, and adversarial ones."""

    clean: Tensor
    noisy: Tensor
    adversarial: Tensor


def crafted(target: WhiteBox, x: Tensor, y: Tensor, radius: float, steps: int, seed: int) -> Crafted:
    """Adversarial examples by PGD, and noise of their length (Ma et al., ICLR 2018, §4.1).

    Each point gives two: the first iterate that is wrong, and the last one, which is wrong with confidence. Points
    that the model gets wrong, or that the attack does not break, give none.

    Raises:
        ConfigError: PRF143 where nothing was broken.
    """
    budget, points = Linf(radius), torch.arange(len(x), device=x.device)
    rng = Stream.seeded(seed, points).fold("crafted")
    first = PGD(steps=steps).perturb(budget.threat().grant(target, len(x)), x, y, budget, rng)
    last = budget.random(x, target.bounds, rng)
    for _ in range(steps):
        gradient = target.graded(last, cross_entropy, y).gradient
        last = budget.project(last + 2.5 / steps * radius * budget.steepest(gradient), x, target.bounds)
    used = (target.labels(x) == y) & (target.labels(last) != y) & (target.labels(first) != y)
    if not bool(used.any()):
        raise ConfigError("PRF143", f"PGD with {steps} steps broke none of {len(x)} inputs of {target.name}")
    noise = rng.fold("noise").normal(*x.shape[1:], dtype=x.dtype)
    noise = noise * rowwise(distance(last - x, 2) / distance(noise, 2), x)
    noisy = (x + noise).clamp(target.bounds.lower, target.bounds.upper)
    return Crafted(x[used], noisy[used], torch.cat([first[used], last[used]]))


def regressed(name: str, layers: tuple[str, ...], measure: Measure, target: WhiteBox, seen: Crafted) -> LayeredDetector:
    """The detector whose weights tell adversarial from clean and noisy inputs best."""
    from sklearn.linear_model import LogisticRegression

    values = [measure(features_of(target, layers, part)) for part in seen]
    inputs = torch.cat(values).double()
    adversarial = torch.cat([torch.full((len(part),), float(i == 2)) for i, part in enumerate(values)])
    mean, width = inputs.mean(0), inputs.std(0).clamp_min(1e-12)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(((inputs - mean) / width).cpu().numpy(), adversarial.numpy())
    weights = torch.as_tensor(model.coef_[0], dtype=torch.float64, device=mean.device) / width
    return LayeredDetector(name, layers, measure, weights, float(model.intercept_[0]) - float(weights @ mean))


def refuse_settings(settings: object, *, holds: bool) -> None:
    """Raises ``ConfigError`` (PRF142) unless the settings can be used."""
    if not holds:
        raise ConfigError("PRF142", f"{settings} cannot be used")


