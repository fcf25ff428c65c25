"""The path attack, held to enumeration: of a single tree the nearest leaf of another class is known in every norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from assay import targets
from assay.errors import ConfigError
from assay.evasion import L0, L1, L2, DecisionTreeAttack, Linf
from assay.numerics.seeds import Stream
from assay.targets.estimator import SklearnTarget

NOWHERE = float("inf")


def model(seed: int, precision: torch.dtype = torch.float64, **settings: Any) -> tuple[SklearnTarget, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.random((200, 3))
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [0.6, 1.0])
    tree = DecisionTreeClassifier(random_state=seed, **settings).fit(x, y)
    return targets.sklearn(tree, dtype=precision), torch.from_numpy(rng.random((12, 3))).to(precision)


def run(target: SklearnTarget, x: Tensor, y: Tensor, budget: Any, **threat: Any) -> Tensor:
    view = budget.threat(access="weights", **threat).grant(target, len(x))
    z = DecisionTreeAttack().perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    assert int(view.meter.queries.max()) <= 1
    return z


def exact(target: SklearnTarget, x: Tensor, y: Tensor, norm: float) -> Tensor:
    """The distance to the nearest leaf of another class, walking down the library's own tree, leaf by leaf."""
    tree = target.estimator.tree_
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)

    def walk(node: int, lower: np.ndarray, upper: np.ndarray) -> None:
        if tree.children_left[node] < 0:
            label = int(tree.value[node, 0].argmax())
            z = np.clip(x.double().numpy(), lower, upper)
            far = torch.linalg.vector_norm(torch.from_numpy(z) - x, ord=norm, dim=1) if norm else (torch.from_numpy(z) != x).sum(1)
            best[:] = torch.where(y != label, torch.minimum(best, far.double()), best)
            return
        feature, threshold = tree.feature[node], tree.threshold[node]
        below, above = upper.copy(), lower.copy()
        below[feature], above[feature] = min(upper[feature], threshold), max(lower[feature], threshold)
        walk(tree.children_left[node], lower, below)
        walk(tree.children_right[node], above, upper)

    walk(0, np.zeros(3), np.ones(3))
    return best


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("ball", [Linf, L2, L1, L0])
def test_it_reaches_the_nearest_leaf(ball: Any, precision: torch.dtype) -> None:
    for seed in range(10):
        target, x = model(seed, precision)
        y = target.labels(x)
        z, truth = run(target, x, y, ball(NOWHERE)), exact(target, x, y, ball.norm)
        assert bool((target.labels(z) != y).all())
        torch.testing.assert_close(ball(1).distance(z, x).double(), truth, atol=2e-7, rtol=0)  # float32 of the tree
        radius = float(truth.median())
        inside = run(target, x, y, ball(radius))
        assert torch.equal((inside != x).any(1), ball(radius).distance(z, x) <= radius)
        assert bool(ball(radius).contains(inside, x, target.bounds).all())


def test_it_climbs_no_farther_than_it_has_to() -> None:
    """Thresholds 0.5, then 0.9 on the right and 0.3, 0.1 on the left: the sibling, not the nearest, is taken."""
    x = np.array([[0.05], [0.2], [0.4], [0.6], [0.95]])
    tree = DecisionTreeClassifier().fit(np.repeat(x, [4, 4, 4, 8, 8], 0), np.repeat([0, 1, 0, 2, 3], [4, 4, 4, 8, 8]))
    target = targets.sklearn(tree)
    point = torch.tensor([[0.49]], dtype=torch.float64)
    y = target.labels(point)
    cut = np.sort(tree.tree_.threshold[tree.tree_.feature >= 0])
    siblings = run(target, point, y, Linf(0.9))
    nearest = run(target, point, y, Linf(NOWHERE))
    assert float(nearest) == pytest.approx(cut[2], abs=1e-6)
    assert float(siblings) == pytest.approx(cut[1], abs=1e-6)


def test_targets_lattices_and_images() -> None:
    target, x = model(3)
    y = target.labels(x)
    for goal in range(3):
        z = run(target, x, torch.full_like(y, goal), Linf(NOWHERE), goal="targeted")
        assert bool((target.labels(z) == goal).all())
    x = (x * 255).round() / 255
    y = target.labels(x)
    z = run(target, x, y, Linf(NOWHERE, lattice=255))
    assert bool(Linf(1.0, lattice=255).contains(z, x, target.bounds).all())
    moved = (z != x).any(1)
    assert int(moved.sum()) >= 10
    assert bool((target.labels(z) != y)[moved].all())
    far = (z - x).abs().amax(1)
    assert bool((far[moved] < exact(target, x, y, NOWHERE)[moved] + 1 / 255).all())


def test_forests_are_refused() -> None:
    x = np.random.default_rng(0).random((50, 2))
    target = targets.sklearn(RandomForestClassifier(3).fit(x, x[:, 0] > 0.5))
    with pytest.raises(ConfigError, match="ATK152"):
        run(target, torch.from_numpy(x[:2]), torch.tensor([0, 1]), Linf(0.1))
