"""HCLU, held to sequential quadratic programming of the same problem, which is how the paper solves it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_iris, make_moons
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.preprocessing import minmax_scale
from torch import Tensor

from assay import targets
from assay.errors import ConfigError
from assay.evasion import HCLU, L2
from assay.numerics.seeds import Stream
from assay.targets.estimator import SklearnTarget

NOWHERE = float("inf")


def model(name: str) -> tuple[SklearnTarget, Tensor]:
    x, y = make_moons(80, noise=0.15, random_state=0) if name == "moons" else load_iris(return_X_y=True)
    x, y = (x, y) if name == "moons" else (x[::2], y[::2])
    x = minmax_scale(x)
    kernel = 100.0 * RBF(0.3 if name == "moons" else 0.7)
    return targets.sklearn(GaussianProcessClassifier(kernel, optimizer=None).fit(x, y)), torch.from_numpy(x[::13][:6])


def run(target: SklearnTarget, x: Tensor, y: Tensor, budget: Any, attack: HCLU, **threat: Any) -> tuple[Tensor, Any]:
    view = budget.threat(access="weights", **threat).grant(target, len(x))
    return attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x)))), view


def believed(target: SklearnTarget, z: np.ndarray, label: int) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Probability and variance of a class, and their gradients."""
    row = torch.from_numpy(z)[None].requires_grad_(True)
    share, variance = (part[0, label] for part in target.structure.believe(row))
    slopes = [torch.autograd.grad(part, row, retain_graph=True)[0][0].numpy() for part in (share, variance)]
    return share.item(), variance.item(), slopes[0], slopes[1]


def slsqp(target: SklearnTarget, x0: np.ndarray, label: int, attack: HCLU) -> float:
    """The paper's way: the best of five starts, the nearest training inputs that fit or nearly do among them."""
    most = attack.uncertainty * believed(target, x0, label)[1]
    train = target.structure.latent[0].train.numpy()
    shares, variances = (part[:, label].numpy() for part in target.structure.believe(torch.from_numpy(train)))
    fits = (shares >= attack.confidence) & (variances <= most)
    near = train[(np.square(train - x0).sum(1) + np.where(fits, 0.0, 1e3)).argmin()]
    sure = train[shares.argmax()]
    constraints = [
        {"type": "ineq", "fun": lambda z: believed(target, z, label)[0] - attack.confidence,
         "jac": lambda z: believed(target, z, label)[2]},
        {"type": "ineq", "fun": lambda z: 1 - believed(target, z, label)[1] / most,
         "jac": lambda z: -believed(target, z, label)[3] / most},
    ]
    best = NOWHERE
    for start in (x0, near, (x0 + near) / 2, sure, (x0 + sure) / 2):
        found = minimize(lambda z: ((z - x0) ** 2).sum(), start, jac=lambda z: 2 * (z - x0), method="SLSQP",
                         bounds=[(0, 1)] * len(x0), constraints=constraints, options={"maxiter": 100, "ftol": 1e-9})
        if min(c["fun"](found.x) for c in constraints) > -1e-6:
            best = min(best, float(np.linalg.norm(found.x - x0)))
    return best


@pytest.mark.slow
@pytest.mark.parametrize(("name", "confidence", "uncertainty"), [
    ("moons", 0.9, 1.0), ("moons", 0.7, 0.2), ("iris", 0.8, 1.0),
])
def test_it_is_as_near_as_sequential_quadratic_programming(name: str, confidence: float, uncertainty: float) -> None:
    target, x = model(name)
    attack, y = HCLU(confidence=confidence, uncertainty=uncertainty), target.labels(x)
    goal = (y + 1) % target.structure.classes
    z, view = run(target, x, goal, L2(NOWHERE), attack, goal="targeted")
    assert int(view.meter.queries.max()) <= 1
    moved = (z != x).any(1)
    assert bool(moved.any())
    for row in range(len(x)):
        truth = slsqp(target, x[row].numpy(), int(goal[row]), attack)
        if not bool(moved[row]):
            assert truth == NOWHERE
            continue
        share, variance, _, _ = believed(target, z[row].numpy(), int(goal[row]))
        assert share >= confidence
        assert variance <= uncertainty * believed(target, x[row].numpy(), int(goal[row]))[1]
        assert float((z[row] - x[row]).norm()) <= 1.002 * truth


def test_untargeted_takes_the_nearest_class() -> None:
    target, x = model("iris")
    x, attack = x[:3], HCLU(confidence=0.7, steps=150)
    y = target.labels(x)
    nearest, _ = run(target, x, y, L2(NOWHERE), attack)
    each = [run(target, x, (y + turn) % 3, L2(NOWHERE), attack, goal="targeted")[0] for turn in (1, 2)]
    lengths = torch.stack([torch.where((z != x).any(1), (z - x).norm(dim=1), torch.inf) for z in each])
    assert bool((target.labels(nearest) != y).all())
    torch.testing.assert_close((nearest - x).norm(dim=1), lengths.amin(0))


def test_a_finite_radius_saves_steps_and_is_kept() -> None:
    target, x = model("moons")
    y, attack = target.labels(x), HCLU(confidence=0.8, steps=200)
    nearest, full = run(target, x, y, L2(NOWHERE), attack)
    far = (nearest - x).norm(dim=1)
    radius = 1.2 * float(far[far > 0].median())
    z, view = run(target, x, y, L2(radius), attack)
    assert bool(L2(radius).contains(z, x, target.bounds).all())
    assert torch.equal((z != x).any(1), (far > 0) & (far <= radius))
    assert int(view.meter.backwards.sum()) < int(full.meter.backwards.sum())
    assert int(full.meter.backwards.max()) == 2 * 200


def test_what_is_refused() -> None:
    net = targets.torch(torch.nn.Linear(2, 2).double())
    with pytest.raises(ConfigError, match="ATK153"):
        run(net, torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), L2(1.0), HCLU())
    for wrong in ({"confidence": 1.0}, {"uncertainty": 0.0}, {"steps": 0}):
        with pytest.raises(ConfigError, match="ATK154"):
            HCLU(**wrong)
