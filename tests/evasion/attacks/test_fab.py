"""FAB against linear models, whose smallest perturbations are known in closed form."""

from __future__ import annotations

import pytest
import torch
from linear_models import BUDGETS, linear
from torch import nn

from assay import targets
from assay.evasion import FAB, EvasionGame, Linf
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")
NORMS = [INF, 2.0, 1.0]


@pytest.mark.parametrize("norm", NORMS)
def test_finds_the_smallest_perturbation(model, norm):
    exact = model.exact(norm)
    z, _ = model.perturb(FAB(steps=60), INF, norm)
    assert (model.target.labels(z) != model.y).all()
    length = distance(z - model.x, norm)
    assert (length >= exact * (1 - 1e-9)).all()
    assert (length <= exact * 1.02).all()


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_exactly_what_is_within_the_budget(model, norm):
    exact = model.exact(norm)
    radius = float(exact.median())
    z, _ = model.perturb(FAB(steps=40), radius, norm)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.98 * radius].all()
    assert not broken[exact > radius * (1 + 1e-5)].any()
    assert torch.equal(z[~broken], model.x[~broken])
    assert (distance(z - model.x, norm) <= radius * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_points_do_not_influence_each_other(model, norm):
    attack = FAB(steps=8, restarts=2)
    radius = float(model.exact(norm).median())
    together, whole = model.perturb(attack, radius, norm)
    for i in range(0, 16, 3):
        alone, view = model.perturb(attack, radius, norm, points=slice(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)
        assert view.meter.forwards[0] == whole.meter.forwards[i]


def test_pays_one_forward_and_one_backward_a_step():
    model = linear((3, 8, 8))
    _, view = model.perturb(FAB(steps=10), 1e-6, INF)
    assert (view.meter.backwards == 10 * 3).all()
    # 1 to rank, 1 for each last iterate, and at most 1 to draw each best one closer
    assert (view.meter.forwards >= 10 * 3 + 1 + 3).all()
    assert (view.meter.forwards <= 10 * 3 + 1 + 6).all()


def test_a_broken_point_stops_paying():
    model = linear((3, 8, 8))
    _, view = model.perturb(FAB(steps=50), 10.0, INF)
    assert (view.meter.backwards <= 6).all()


def test_reaches_a_given_label():
    model = linear((12,))
    wanted = (model.y + 1) % 4
    z, view = model.perturb(FAB(steps=40), INF, 2.0, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).all()
    assert (view.meter.backwards == 40).all()


def test_flat_models_give_the_original_and_no_nan():
    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1) * 0 + 1, x.sum(1) * 0], 1)

    target = targets.torch(Flat(), name="flat")
    x, y = torch.rand(4, 5), torch.zeros(4, dtype=torch.int64)
    for norm, kind in BUDGETS.items():
        for radius in (0.1, INF):
            view = kind(radius).threat().grant(target, 4)
            z = FAB(steps=5, restarts=2).perturb(view, x, y, kind(radius), Stream.seeded(0, torch.arange(4)))
            assert torch.equal(z, x), norm


@pytest.mark.parametrize("norm", NORMS)
def test_meets_the_box(norm):
    model = linear((12,), box=1.0)
    x = model.x.clamp(-1, 1).sign()
    y = model.target.labels(x)
    budget = BUDGETS[norm](INF)
    view = budget.threat().grant(model.target, len(x))
    z = FAB(steps=40).perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    assert (model.target.labels(z) != y).all()
    assert z.abs().max() <= 1
    assert (z != x).any()


def test_lattice_inputs_survive_the_game():
    model = linear((3, 8, 8), box=4.0)
    x = ((model.x.clamp(-4, 4) + 4) * 255 / 8).round() * 8 / 255 - 4
    threat = Linf(1.0, lattice=255).threat()
    found = EvasionGame(x, model.target.labels(x), threat=threat).play(FAB(steps=20), model.target, seed=0)
    assert not found.error
    assert found.bounds[2].estimate < 0.2


def test_an_early_answer_keeps_the_nearest_row():
    model = linear((12,))
    closest = FAB(steps=30).closest(
        Linf(INF).threat().grant(model.target, 16), model.x, model.y, Linf(INF), Stream.seeded(0, torch.arange(16))
    )
    torch.testing.assert_close(closest.length, distance(closest.found - model.x, INF))
