"""Published figures of third-party networks beside what we measure of the same files.

Names of parts (``resnet2b sdp wong_kolter membership``) measure only those; ``--images N`` takes the first N MNIST
images for the proof of Wong & Kolter's network (all 10,000 by default).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial

import membership
import numpy as np
import torch
import zoo

from assay.evasion import CROWN, FGSM, PGD, AutoAttack, EvasionGame, Linf
from assay.evasion.methods import Cascade, Certifier, Perturber
from assay.evasion.threat import Ball
from assay.evidence.record import Evidence

ROBUST, CLEAN = "robust accuracy", "clean accuracy"

HEADER = """\
| network | budget | figure | published | measured | images | sampling error | seconds |
|---|---|---|---:|---:|---:|---:|---:|"""

SDP = (
    ("cifar_cnn_a_adv", Linf(2 / 255), "44.0 … 50.5", "70.0"),
    ("cifar_cnn_a_mix", Linf(2 / 255), "41.5 … 53.0", "79.0"),
    ("mnist_cnn_a_adv", Linf(0.3), "70.5 … 76.5", "97.5"),
)
"""Network, budget, what others verified … what the reference AutoAttack left standing; clean. All in percent."""


def found(loaded: zoo.Loaded, method: Perturber | Cascade | Certifier, budget: Ball) -> tuple[Evidence, float]:
    """The evidence of one method, and the seconds it took."""
    target, x, y = loaded
    game, began = EvasionGame(x, y, threat=budget.threat()), time.perf_counter()
    proves = isinstance(method, Certifier)
    evidence = game.prove(method, target, seed=0) if proves else game.play(method, target, seed=0)
    if evidence.kind == "not run":
        raise SystemExit(evidence.error)
    return evidence, time.perf_counter() - began


def line(name: str, budget: object, figure: str, published: str, share: float, n: int, seconds: float,
         sampled: bool = False) -> str:
    """One line of the table; shares in percent, the sampling error as one standard deviation."""
    error = f"± {100 * (share * (1 - share) / n) ** 0.5:.1f}" if sampled else "–"
    return f"| {name} | {budget} | {figure} | {published} | {share:.2%} | {n:,} | {error} | {seconds:.0f} |"


def resnet() -> Iterator[str]:
    """CROWN on ResNet-2B: published on the full test set, measured on 300 of its images."""
    loaded = zoo.resnet2b()
    n = len(loaded[2])
    for numerator, published in ((1, "57.16 %"), (2, "26.88 %")):
        evidence, seconds = found(loaded, CROWN(), Linf(numerator / 255))
        if numerator == 1:
            yield line("cifar_resnet2b", "–", "clean accuracy", "69.25 %", evidence[CLEAN].estimate, n, 0, True)
        yield line("cifar_resnet2b", f"linf {numerator}/255", "proved accuracy, CROWN", published,
                   evidence[ROBUST].estimate, n, seconds, True)


def sdp() -> Iterator[str]:
    """The SDP networks on their own 200 images: what is proved, and what AutoAttack leaves standing."""
    for name, budget, published, clean in SDP:
        loaded = zoo.sdp(name)
        n = len(loaded[2])
        broken, seconds = found(loaded, AutoAttack(), budget)
        yield line(name, "–", "clean accuracy", f"{clean} %", broken[CLEAN].estimate, n, 0)
        yield line(name, budget, "robust accuracy, AutoAttack", f"{published} %", broken[ROBUST].estimate, n, seconds)
        proved, seconds = found(loaded, CROWN(), budget)
        yield line(name, budget, "proved accuracy, CROWN", f"{published} %", proved[ROBUST].estimate, n, seconds)


def wong_kolter(images: int) -> Iterator[str]:
    """Errors of Wong & Kolter's network on MNIST."""
    loaded, budget, name = zoo.wong_kolter(), Linf(0.1), "wong_kolter_mnist"
    n = len(loaded[2])
    fgsm, seconds = found(loaded, FGSM(), budget)
    yield line(name, "–", "clean error", "1.80 %", 1 - fgsm[CLEAN].estimate, n, 0)
    yield line(name, budget, "error under FGSM", "3.9 %", 1 - fgsm[ROBUST].estimate, n, seconds)
    pgd, seconds = found(loaded, PGD(steps=40), budget)
    yield line(name, budget, "error under PGD", "4.1 %", 1 - pgd[ROBUST].estimate, n, seconds)
    proved, seconds = found((loaded[0], loaded[1][:images], loaded[2][:images]), CROWN(), budget)
    yield line(name, budget, "provable error, CROWN", "5.8 %", 1 - proved[ROBUST].estimate, min(images, n), seconds,
               images < n)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="resnet2b, sdp, wong_kolter, membership; all by default")
    parser.add_argument("--images", type=int, default=10_000)
    asked = parser.parse_args()
    parts = {"resnet2b": resnet, "sdp": sdp, "wong_kolter": partial(wong_kolter, asked.images),
             "membership": membership.lines}
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there is {', '.join(parts)}")
    if reason := zoo.missing():
        raise SystemExit(reason)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}, CPU, {torch.get_num_threads()} thread\n\n{HEADER}")
    for name in asked.parts or parts:  # the table of membership attacks has a head of its own
        for text in parts[name]():
            print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
