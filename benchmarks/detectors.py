"""Detectors of adversarial inputs under attacks that know nothing of them, and under those that do.

A plain ResNet-20 for CIFAR-10; detectors fitted to 1,000 natural images with 5 % false positives; Linf 8/255. A point
is broken if it is misclassified *and* accepted, in the eyes of the guarded target itself (of a randomized one, in each
of three looks). The exit status is 1 where more than 5 % of the points withstand both adaptive attacks.

    python benchmarks/detectors.py [points [detector …]]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
import zoo
from torch import Tensor

from assay.evasion import LID, PGD, FeatureCollision, FeatureSqueezing, Linf, Mahalanobis, StatisticalOdds
from assay.evasion.defenses.detection import GuardedTarget, Recipe, seeded
from assay.evasion.methods import Perturber, name_of
from assay.evasion.objectives import cross_entropy
from assay.evasion.threat import Ball
from assay.numerics.seeds import Stream
from assay.targets import WhiteBox
from assay.threats import Examples, View

BUDGET = Linf(8 / 255)
BAR = 0.05
"""The most of the points that may withstand the better of the adaptive attacks."""

RECIPES: dict[str, Recipe] = {
    "feature-squeezing": FeatureSqueezing(), "lid": LID(), "mahalanobis": Mahalanobis(),
    "statistical-odds": StatisticalOdds(),
}
ADAPTIVE: tuple[Perturber, ...] = (FeatureCollision(), PGD(steps=200, loss="margin"))


class Points(NamedTuple):
    """Images and their labels."""

    x: Tensor
    y: Tensor


def points(split: str, count: int | None) -> Points:
    """Lossless CIFAR-10 images."""
    x, y = zoo.cifar10(split, count)
    return Points(torch.from_numpy(x), torch.from_numpy(y))


def broken(guarded: GuardedTarget, z: Tensor, y: Tensor) -> Tensor:
    """Whether each row is misclassified and accepted, in every look."""
    looks = [guarded.labels(z) for _ in range(3 if guarded.randomized else 1)]
    return torch.stack([(seen != y) & (seen != guarded.classes) for seen in looks]).all(0)


def left(attack: Perturber, seen: WhiteBox, guarded: GuardedTarget, test: Points, held: Points) -> float:
    """The share of points that withstand an attack on what it sees of the guarded target."""
    threat = BUDGET.threat(access="weights")
    view = threat.grant(seen, len(test.y), labels=test.y, examples=Examples(*held))
    z = attack.perturb(view, test.x, test.y, BUDGET, Stream.seeded(0, torch.arange(len(test.y))))
    print(f"    {view.meter.forwards.float().mean():.0f} forwards a point")
    return 1 - float(broken(guarded, z, test.y).float().mean())


@dataclass(frozen=True, kw_only=True)
class Confident:
    """PGD that goes on after success: wrong with the highest confidence."""

    steps: int = 40

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """Steps of 2.5 radii in all on the cross-entropy, from a random start."""
        z, at = budget.random(x, view.bounds, rng), torch.arange(len(x))
        for _ in range(self.steps):
            gradient = view.gradient(z, at, cross_entropy, y).gradient
            z = budget.project(z + 2.5 / self.steps * budget.radius * budget.steepest(gradient), x, view.bounds)
        return z


NAIVE: tuple[Perturber, ...] = (PGD(), Confident())


def measured(name: str, test: Points, natural: Points) -> float:
    """Prints one detector's figures; what withstands the better of the adaptive attacks."""
    target = zoo.resnet20()
    guarded = RECIPES[name].fit(target, *natural).protect(target)
    rate = guarded.guard.rate
    labels = guarded.labels(test.x)
    refused = float((labels == guarded.classes).float().mean())
    print(f"{name}: false positives {rate.estimate:.1%} {tuple(round(r, 3) for r in rate.interval)} where set, "
          f"{refused:.1%} on test; clean accuracy {float((labels == test.y).float().mean()):.1%}, "
          f"bare {float((target.labels(test.x) == test.y).float().mean()):.1%}")
    found = {}
    plays: list[tuple[Perturber, WhiteBox]] = [(attack, guarded.naive()) for attack in NAIVE]
    plays += [(attack, guarded.adapted()) for attack in ADAPTIVE]
    for number, (attack, seen) in enumerate(plays):
        began = time.perf_counter()
        with seeded(number, target):
            found[name_of(attack)] = left(attack, seen, guarded, test, natural)
        sight = "not knowing the detector" if attack in NAIVE else "knowing it"
        print(f"  {found[name_of(attack)]:.1%} robust under {name_of(attack)}, {sight} "
              f"({time.perf_counter() - began:.0f} s)", flush=True)
    return min(found[name_of(attack)] for attack in ADAPTIVE)


def main() -> int:
    """All detectors, or those named."""
    count, names = int(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:] or list(RECIPES)
    test, natural = points("test", count), points("train", 1000)
    standing = {name: measured(name, test, natural) for name in names}
    return int(max(standing.values()) > BAR)


if __name__ == "__main__":
    sys.exit(main())
