"""Defenses under the attack that fits them: what plain attacks leave of a published network, and what adapted ones do.

A plain ResNet-20 for CIFAR-10 (ONNX), lossless test images, Linf 8/255. One attack is asked for; what is done to each
defense follows from what it declares, not from this script. ``python benchmarks/adaptive.py [points [defense …]]``.
The exit status is 1 where more is left than the bar: 2 % of the images, 5 % behind a detector with 5 % false positives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import torch
import zoo
from torch import Tensor

from assay import evasion
from assay.evidence.bound import NAIVE
from assay.targets import Target
from assay.targets.base import refuses

BUDGET = evasion.Linf(8 / 255)
ATTACK = evasion.PGD(steps=40)
RANDOM = evasion.PGD(steps=20)
"""Each of its gradients is the mean of many draws."""

Natural = tuple[Tensor, Tensor]
Build = Callable[[Target, Natural], Target]


def _around(defense: object) -> Build:
    return lambda net, natural: defense.protect(net)


def _fitted(recipe: object) -> Build:
    return lambda net, natural: recipe.fit(net, *natural).protect(net)


def _autoencoder(net: Target, natural: Natural) -> Target:
    return evasion.Autoencoder.fit(natural[0], seed=0).protect(net)


DEFENSES: dict[str, Build] = {
    **{name: _around(defense) for name, defense in {
        "jpeg": evasion.JPEG(), "bit-depth": evasion.BitDepth(), "median-blur": evasion.MedianBlur(),
        "gaussian-blur": evasion.GaussianBlur(), "total-variation": evasion.TotalVariation(),
        "rescale": evasion.Rescale(), "random-resize-pad": evasion.RandomResizePad()}.items()},
    "autoencoder": _autoencoder,
    **{name: _around(defense) for name, defense in {
        "temperature": evasion.Temperature(), "k-wta": evasion.KWTA(), "round-activations": evasion.RoundActivations(),
        "activation-pruning": evasion.ActivationPruning()}.items()},
    **{name: _fitted(recipe) for name, recipe in {
        "feature-squeezing": evasion.FeatureSqueezing(), "lid": evasion.LID(), "mahalanobis": evasion.Mahalanobis(),
        "statistical-odds": evasion.StatisticalOdds()}.items()},
}


def measured(points: int, names: list[str]) -> Iterator[bool]:
    """Prints a row a defense; whether it fell below its bar."""
    net, (x, y) = zoo.resnet20(), zoo.cifar10()
    held = tuple(torch.from_numpy(part) for part in zoo.cifar10("train", 1000))
    print("| defense | clean | non-adaptive | adaptive | doubts | forwards a point | seconds |")
    print("|---|---:|---:|---:|---|---:|---:|", flush=True)
    for name in names:
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            target = DEFENSES[name](net, held)
        game = evasion.EvasionGame(x[:points], y[:points], threat=BUDGET.threat(access="weights"), examples=held)
        found = game.play(RANDOM if target.randomized else ATTACK, target, seed=0)
        if found.kind == "not run":
            print(f"| {name} | {found.error} |", flush=True)
            yield False
            continue
        clean, naive, robust = (found[q].estimate for q in ("clean accuracy", NAIVE, "robust accuracy"))
        doubts = " ".join(doubt.code for doubt in found.doubts) or "–"
        print(f"| {name} | {clean:.1%} | {naive:.1%} | {robust:.1%} | {doubts} | {found.cost.forwards / points:,.0f} | "
              f"{time.perf_counter() - began:.0f} |", flush=True)
        yield robust <= (0.05 if refuses(target) else 0.02)


def main() -> int:
    """All defenses, or those named; the exit status."""
    if reason := zoo.missing():
        print(reason, file=sys.stderr)
        return 2
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    return 0 if all(list(measured(points, sys.argv[2:] or list(DEFENSES)))) else 1


if __name__ == "__main__":
    sys.exit(main())
