"""DDN against linear models, whose distances are known, and against the figures of its peers."""

from __future__ import annotations

import pytest
import torch
from adversarial_cifar import found
from linear_models import linear
from torch import nn

from assay import targets
from assay.evasion import DDN, L2, EvasionGame
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")


def test_finds_the_smallest_perturbation(model):
    exact = model.exact(2.0)
    z, _ = model.perturb(DDN(steps=200, radius=0.01), INF, 2.0)
    assert (model.target.labels(z) != model.y).all()
    length = distance(z - model.x, 2)
    assert (length >= exact * (1 - 1e-9)).all()
    assert (length <= exact * 1.15).all()  # the likeliest wrong class is not always the nearest
    assert length.median() <= exact.median() * 1.05


@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0])
def test_the_first_radius_does_not_matter_to_two_classes(radius):
    model = linear((12,), classes=2)
    exact = model.exact(2.0)
    z, _ = model.perturb(DDN(radius=radius), INF, 2.0)
    assert (distance(z - model.x, 2) <= exact * 1.04).all()


def test_breaks_what_is_within_the_budget_and_nothing_else(model):
    exact = model.exact(2.0)
    radius = float(exact.median())
    z, _ = model.perturb(DDN(), radius, 2.0)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.9 * radius].all()
    assert not broken[exact > radius * (1 + 1e-5)].any()
    assert torch.equal(z[~broken], model.x[~broken])
    assert (distance(z - model.x, 2) <= radius * (1 + 1e-5)).all()


def test_pays_one_forward_and_one_backward_a_step():
    _, view = linear((3, 8, 8)).perturb(DDN(steps=10), INF, 2.0)
    assert (view.meter.backwards == 10).all()
    assert (view.meter.forwards == 11).all()


def test_a_broken_point_stops_paying():
    _, view = linear((3, 8, 8)).perturb(DDN(steps=50), 10.0, 2.0)
    assert (view.meter.backwards <= 4).all()


def test_spends_no_more_than_is_granted():
    _, view = linear((3, 8, 8)).perturb(DDN(steps=50), INF, 2.0, queries=7)
    assert (view.meter.queries == 7).all()


def test_reaches_a_given_label():
    model = linear((12,))
    wanted = (model.y + 1) % 4
    z, _ = model.perturb(DDN(), INF, 2.0, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).all()


def test_no_gradient_is_no_reason_to_stand_still():
    class Saturated(nn.Module):
        def forward(self, x):
            return torch.stack([(1e4 * x.mean(1)).clamp(max=400.0), torch.full_like(x[:, 0], -400.0)], 1)

    target = targets.torch(Saturated(), bounds=(-1.0, 1.0), name="saturated")
    x, y = torch.full((4, 2), 0.3), torch.zeros(4, dtype=torch.int64)
    view = L2(INF).threat().grant(target, 4)
    z = DDN().perturb(view, x, y, L2(INF), Stream.seeded(0, torch.arange(4)))
    assert (target.labels(z) != y).all()  # the cross-entropy is flat here: only random steps lead out


def test_lattice_inputs_survive_the_game():
    model = linear((3, 8, 8), box=4.0)
    x = ((model.x.clamp(-4, 4) + 4) * 255 / 8).round() * 8 / 255 - 4
    y = model.target.labels(x)
    found = EvasionGame(x, y, threat=L2(8.0, lattice=255).threat()).play(DDN(steps=60), model.target, seed=0)
    assert not found.error
    assert found.bounds[2].estimate < 0.1


@pytest.mark.slow
def test_is_as_near_as_its_peers():
    # foolbox 3.3.4 DDNAttack(steps=100) and adv-lib 0.2.8 ddn(steps=100, levels=None), same points: both 0.55581,
    # 100 backwards a point
    ours = found(DDN(), "l2")
    assert ours.success == 1
    assert ours.median <= 0.5558
    assert (ours.forwards, ours.backwards) == (101, 100)
