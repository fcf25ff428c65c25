"""Properties of training data: certain where a world is made so, at chance where there is none, and Adult between."""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from assay import targets
from assay.errors import DataError
from assay.numerics.ensembles import Recipe
from assay.privacy import PropertyGame, QueryProfile, SortedWeights, WeightPaths
from assay.privacy.attacks.property_inference import canonical, products, ridge

ADULT = Path(os.environ.get("ASSAY_ASSETS", "../shared/assets")) / "datasets" / "adult" / "adult.csv"
ATTACKS = [QueryProfile(queries=100), SortedWeights(), WeightPaths()]


def softmax() -> nn.Module:
    return nn.Linear(4, 2)


@cache
def world(shift: float, n: int = 4000):
    """Those with the property have one label more often: a model's bias says how many there were."""
    rng = np.random.default_rng(0)
    holds = rng.random(n) < 0.5
    y = (rng.random(n) < np.where(holds, 0.5 + shift, 0.5 - shift)).astype(np.int64)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return holds, targets.training(Recipe(init=softmax, epochs=5, batch=50, rate=0.05), (x, y), bounds=(-9.0, 9.0))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_property_that_moves_the_bias_is_seen(attack):
    """Shares of 0.1 and 0.9 move P(y = 1) from 0.18 to 0.82, 29 standard errors of 500 labels."""
    holds, training = world(0.4)
    e = PropertyGame(holds, shares=(0.1, 0.9), size=500, shadows=30, targets=30).play(attack, training, seed=0)
    assert e["training mixtures told apart"].estimate == 1
    assert e["training mixtures told apart"].value > 0.9  # 0.05^(1/30)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_property_that_changes_nothing_is_not(attack):
    """Three times 40 targets. Halves of a finite pool differ in more than the property, which widens the binomial."""
    holds, training = world(0.0, 40_000)
    game = PropertyGame(holds, shares=(0.1, 0.9), size=200, shadows=20, targets=40)
    right = sum(game.play(attack, training, seed=seed).bounds[0].estimate for seed in range(3)) / 3
    assert abs(right - 0.5) < 3.5 * 0.5 / 120**0.5


def test_the_coins_decide_and_the_seed_repeats():
    holds, training = world(0.4)
    game = PropertyGame(holds, shares=(0.1, 0.9), size=500, shadows=20, targets=20)
    one, two = (game.play(QueryProfile(queries=50), training, seed=4) for _ in range(2))
    assert one.artefacts["said"].sha256 == two.artefacts["said"].sha256
    assert 0 < one.artefacts["said"].arrays["coins"].mean() < 1
    assert one.cost.queries == 20 * 50


def test_any_procedure_can_be_played_not_the_recipe_alone():
    holds, training = world(0.4)
    plain = targets.training(lambda data, seed: training.fit(data, seed), training.data, name="mine",
                             bounds=(-9.0, 9.0))
    e = PropertyGame(holds, shares=(0.1, 0.9), size=500, shadows=6, targets=6).play(
        QueryProfile(queries=50), plain, seed=0)
    assert e["training mixtures told apart"].estimate == 1


def test_equal_networks_look_equal_however_their_neurons_lie():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2))
    other = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 2))
    p, q = torch.randperm(7), torch.randperm(6)
    with torch.no_grad():
        other[0].weight.copy_(net[0].weight[p]), other[0].bias.copy_(net[0].bias[p])
        other[2].weight.copy_(net[2].weight[q][:, p]), other[2].bias.copy_(net[2].bias[q])
        other[4].weight.copy_(net[4].weight[:, q]), other[4].bias.copy_(net[4].bias)
    x = torch.randn(9, 5)
    assert torch.allclose(net(x), other(x), atol=1e-6)
    assert np.allclose(canonical(net), canonical(other), atol=1e-6)
    with torch.no_grad():
        other[0].weight.mul_(3.0), other[0].bias.mul_(3.0), other[2].weight.div_(3.0)
    assert torch.allclose(net(x), other(x), atol=1e-6)
    assert np.allclose(products(net), products(other), atol=1e-6)
    with pytest.raises(DataError, match="PRV651"):
        canonical(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)))


def test_the_products_of_a_linear_network_are_the_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double()
    zero, eye = net(torch.zeros(1, 5).double()).detach(), net(torch.eye(5).double()).detach()
    slope = ((eye - zero).T - (eye - zero).T.mean(0)).numpy()
    found = products(net)
    assert np.allclose(found[6:].reshape(3, 5), slope)
    assert np.allclose(found[:3] + found[3:6], (zero - zero.mean()).numpy()[0])


def test_ridge_is_ridge():
    """Against the primal solution at the penalty that it chose, for more columns than rows and fewer."""
    rng = np.random.default_rng(0)
    for columns in (3, 80):
        known, asked = rng.normal(size=(40, columns)), rng.normal(size=(10, columns))
        labels = known[:, 0] > 0
        scale = known.std(0) * columns**0.5
        a, b = (known - known.mean(0)) / scale, (asked - known.mean(0)) / scale
        y = np.where(labels, 1.0, -1.0)
        values = np.linalg.eigvalsh(a @ a.T)
        options = [b @ np.linalg.solve(a.T @ a + c * np.eye(columns), a.T @ (y - y.mean())) + y.mean()
                   for c in 10.0 ** np.arange(-6, 7) * values.mean()]
        found = ridge(known, labels, asked)
        assert min(np.abs(found - option).max() for option in options) < 1e-6
    assert ((ridge(known[:, :3], labels, asked[:, :3]) > 0) == (asked[:, 0] > 0)).mean() >= 0.8


def test_too_small_a_pool_is_refused():
    holds, training = world(0.4)
    with pytest.raises(DataError, match="PRV650"):
        PropertyGame(holds, shares=(0.1, 0.9), size=1500, shadows=2, targets=2).play(QueryProfile(), training, seed=0)


@cache
def adult():
    with ADULT.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = np.array([[float(row[k]) for k in ("age", "education-num", "capital-gain", "capital-loss",
                                                 "hours-per-week")] for row in rows], np.float32)
    numbers[:, 2:4] = np.log1p(numbers[:, 2:4])
    parts = [(numbers - numbers.mean(0)) / numbers.std(0) / 6]
    for key in ("workclass", "occupation", "race", "sex", "marital-status"):
        known = sorted({row[key] for row in rows})
        parts.append(np.eye(len(known), dtype=np.float32)[[known.index(row[key]) for row in rows]])
    y = np.array([int(row["income-per-year"].startswith(">")) for row in rows])
    return np.concatenate(parts, 1), y, np.array([row["sex"] == "Female" for row in rows])


@pytest.mark.slow
@pytest.mark.skipif(not ADULT.exists(), reason="the shared assets hold no Adult")
@pytest.mark.parametrize(("attack", "least"), [(QueryProfile(), 0.6), (WeightPaths(), 0.7)])
def test_the_share_of_women_shows(attack, least):
    """Far above chance, with 95 % confidence, in the answers and more so in the weights."""
    x, y, women = adult()

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(x.shape[1], 16), nn.ReLU(), nn.Linear(16, 2))

    training = targets.training(Recipe(init=net, epochs=10, batch=100, rate=0.05), (x, y), bounds=(-9.0, 9.0))
    e = PropertyGame(women, size=2000, shadows=200, targets=100).play(attack, training, seed=0)
    assert e["training mixtures told apart"].value > least
