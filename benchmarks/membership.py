"""Membership attacks on Fashion-MNIST, and what others published of the same attacks on CIFAR-10.

A perceptron is trained on half of 4,000 images; 32 shadow models; four targets. Asked about every image, and about
1,000 mislabeled ones among them. Names of seeds may be given; the table says the mean and the range over them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import zoo
from torch import nn

import assay
from assay import data, privacy
from assay.evidence.record import Evidence

SHADOWS, TARGETS, IMAGES, CANARIES = 32, 4, 4000, 1000

ATTACKS = (
    ("LiRA, online", privacy.LiRA(shadows=SHADOWS), ".0593 / .6856"),
    ("LiRA, offline", privacy.LiRA(mode="offline", shadows=SHADOWS), ".0299 / .5549"),
    ("LiRA, online, own variances", privacy.LiRA(variance="example", shadows=SHADOWS), ".0169 / .6676"),
    ("LiRA, conjugate prior", privacy.ConjugateLiRA(shadows=SHADOWS), ""),
    ("RMIA", privacy.RMIA(shadows=SHADOWS), ""),
    ("calibrated loss", privacy.CalibratedLoss(shadows=SHADOWS), ""),
    ("global threshold", privacy.LossThreshold(), ".0009 / .5921"),
)
"""The last column: TPR at 0.1 % FPR / AUC of WRN28-2 on CIFAR-10 with 16 shadow models, the authors' README."""

HEADER = """\
| attack | asked about | TPR at 0.1 % FPR | TPR at 1 % FPR | AUC | published, CIFAR-10, 16 models |
|---|---|---:|---:|---:|---:|"""


def perceptron() -> nn.Module:
    """784 → 128 → 10."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


RECIPE = privacy.Recipe(init=perceptron, epochs=30, batch=64, rate=0.05)


def played(game: privacy.MembershipGame, seed: int) -> dict[str, Evidence]:
    """The evidence of every attack."""
    pool = data.load(f"mnist:{zoo.ASSETS / 'datasets' / 'fashion_mnist'}#train[:{IMAGES}]")
    target = assay.targets.training(RECIPE, pool)
    events = game.rounds([attack for _, attack, _ in ATTACKS], [], target, seed=seed)
    found = [event for event in events if isinstance(event, Evidence)]
    return {name: evidence for (name, _, _), evidence in zip(ATTACKS, found)}


def lines(seeds: Sequence[int] = (0,)) -> Iterator[str]:
    """The table."""
    yield HEADER
    for words, canaries in (("every image", None), ("mislabeled images", privacy.Mislabeled(CANARIES))):
        game = privacy.MembershipGame(canaries=canaries, targets=TARGETS)
        runs = [played(game, seed) for seed in seeds]
        for name, _, published in ATTACKS:
            cells = [_cell([run[name][quantity].estimate for run in runs])
                     for quantity in ("tpr@fpr=0.001", "tpr@fpr=0.01", "auc")]
            yield f"| {name} | {words} | {' | '.join(cells)} | {published if canaries is None else ''} |"


def _cell(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f}–{max(values):.4f})"


if __name__ == "__main__":
    for line in lines([int(word) for word in sys.argv[1:]] or [0]):
        print(line, flush=True)
