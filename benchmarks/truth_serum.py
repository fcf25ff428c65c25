"""Truth Serum: what poison adds to membership and attribute inference, on Fashion-MNIST and Adult.

    python benchmarks/truth_serum.py [seeds]
"""

from __future__ import annotations

import csv
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from assay import data
from assay.numerics.ensembles import Recipe
from assay.privacy import LiRA, LossThreshold, Scores, Shadows, Signals, balanced_keep, judge, train_shadows
from assay.privacy.attacks.truth_serum import (
    Added,
    AttributeTruthSerum,
    TruthSerum,
    UntargetedTruthSerum,
    attribute_scores,
)

ASSETS = Path(os.environ.get("ASSAY_ASSETS", "../shared/assets")) / "datasets"
SHADOWS, TARGETS = 16, 4
"""Models of the adversary's, and models under attack."""

NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
WORDS = ("workclass", "marital-status", "occupation", "relationship", "race", "sex")


def missing() -> str:
    """Why nothing can be measured here; empty where the data are at hand."""
    return "" if (ASSETS / "fashion_mnist").exists() and (ASSETS / "adult").exists() else f"no data in {ASSETS}"


def network(inputs: int, hidden: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def trained(recipe: Recipe, x: NDArray[np.float32], y: NDArray[np.int64], coins: NDArray[np.bool_], added: Added,
            seed: int) -> Shadows:
    """Models of the first rows of ``x`` by their coins, of its other rows, and of the poison: always in."""
    pool = SimpleNamespace(x=np.concatenate([x, added.x]), y=np.concatenate([y, added.y]))
    keep = np.ones((len(coins), len(pool.y)), dtype=bool)
    keep[:, : coins.shape[1]] = coins
    return train_shadows(recipe, pool, len(coins), keep=keep, seed=seed, how="stacked")


def tossed(examples: int, seed: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Balanced halves for the adversary's models, independent coins for the targets."""
    return np.concatenate([balanced_keep(SHADOWS, examples, seed), rng.random((TARGETS, examples)) < 0.5])


def split(signals: Signals) -> tuple[Signals, Signals]:
    """The targets' signals and the shadows'."""
    return signals.models(slice(SHADOWS, None)), signals.models(slice(SHADOWS))


def fashion(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64], np.random.Generator]:
    """Images in an order of the seed's."""
    rng, found = np.random.default_rng(seed), data.load(f"mnist:{ASSETS / 'fashion_mnist'}#train[:5000]")
    at = rng.permutation(len(found.y))[:count]
    return found.x[at], found.y[at], rng


def targeted(seed: int, replicas: int, *, pool: int = 5000, targets: int = 100, epochs: int = 40) -> dict[str, Scores]:
    """LiRA and one threshold for all, on ``targets`` examples of a pool, each poisoned with so many replicas."""
    x, y, rng = fashion(seed, pool)
    added = TruthSerum(replicas=replicas).poison(x, y, np.arange(targets), classes=10, rng=rng)
    recipe = Recipe(init=partial(network, 784, 64, 10), epochs=epochs, rate=0.05)
    coins = tossed(pool, seed, rng)
    target, shadows = split(trained(recipe, x, y, coins, added, seed).signals(x, y, keep=coins).select(slice(targets)))
    return {"LiRA": judge(LiRA(), target=target, shadows=shadows), "threshold": judge(LossThreshold(), target=target)}


def untargeted(seed: int, share: float, *, victims: int = 1000, hidden: int = 256, epochs: int = 40) -> Scores:
    """LiRA on all victims, where the adversary contributes half of what a model sees and mislabels a share of it."""
    x, y, rng = fashion(seed, victims + victims // 2)
    attack, own = UntargetedTruthSerum(share=share), slice(victims, None)
    added = attack.poison(x[own], y[own], np.arange(0), classes=10, rng=rng)
    recipe = Recipe(init=partial(network, 784, hidden, 10), epochs=epochs, rate=0.05)
    coins, x, y = tossed(victims, seed, rng), x[:victims], y[:victims]
    target, shadows = split(trained(recipe, x, y, coins, added, seed).signals(x, y, keep=coins))
    return judge(LiRA(), target=target, shadows=shadows)


def census(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Adult: numbers standardized, words one-hot; the last two columns are the sex."""
    with (ASSETS / "adult" / "adult.csv").open() as file:
        rows = list(csv.DictReader(file))[:count]
    numbers = [np.log1p(np.array([float(row[name]) for row in rows])) for name in NUMBERS]
    columns = [(values - values.mean()) / values.std() for values in numbers]
    for name in WORDS:
        columns += [np.array([row[name] == word for row in rows]) for word in sorted({row[name] for row in rows})]
    y = np.array([row["income-per-year"].strip() != "<=50K" for row in rows])
    return np.stack(columns, 1).astype(np.float32), y.astype(np.int64)


def attribute(seed: int, replicas: int, *, pool: int = 2000, targets: int = 100, epochs: int = 40) -> Scores:
    """The sex of the targets, drawn by a coin for every model, from what models say of both versions of a record."""
    x, y = census(pool)
    width, rng = x.shape[1], np.random.default_rng(seed)
    attack = AttributeTruthSerum(columns=(width - 2, width - 1), values=((1.0, 0.0), (0.0, 1.0)), replicas=replicas)
    added = attack.poison(x, y, np.arange(targets), classes=2, rng=rng)
    versions, has = attack.versions(x[:targets]), tossed(targets, seed, rng)
    both, labels = np.concatenate([versions[:, 0], versions[:, 1]]), np.tile(y[:targets], 2)
    recipe = Recipe(init=partial(network, width, 64, 2), epochs=epochs, rate=0.05)
    models = trained(recipe, np.concatenate([both, x[targets:]]), np.concatenate([labels, y[targets:]]),
                     np.concatenate([~has, has], 1), added, seed)
    said = models.signals(both, labels, keep=np.concatenate([~has, has], 1)).values[..., 0]
    target, shadows = split(Signals(np.stack([said[:, :targets], said[:, targets:]], -1), has))
    return Scores(attribute_scores(target, shadows)[..., 1], target.keep)


def row(name: str, poison: str, seed: int, found: Scores) -> str:
    at = found.tpr(fpr=0.01)
    return (f"| {name} | {poison} | {seed} | {found.auc():.3f} | {found.balanced_accuracy():.3f} | {at.tpr} "
            f"| {at.fpr} |")


def main() -> int:
    if reason := missing():
        print(reason)
        return 1
    print("| attack | poison | seed | AUC | balanced accuracy | TPR at 1 % FPR | realized FPR |\n"
          "|---|---|---:|---:|---:|---|---|")
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2):
        for replicas in (0, 8):
            for name, found in targeted(seed, replicas).items():
                print(row(f"targeted, {name}", f"{replicas} replicas", seed, found), flush=True)
        for share in (0.0, 1.0):
            print(row("untargeted, LiRA", f"{share:.0%} of its half", seed, untargeted(seed, share)), flush=True)
        for replicas in (0, 8):
            print(row("attribute", f"{replicas} replicas", seed, attribute(seed, replicas)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
