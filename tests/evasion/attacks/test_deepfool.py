"""DeepFool against linear models, whose distances are known, and against the figures of its peers."""

from __future__ import annotations

import pytest
import torch
from adversarial_cifar import found
from linear_models import linear

from assay.evasion import DeepFool
from assay.numerics.balls import distance

INF = float("inf")


@pytest.mark.parametrize("norm", [INF, 2.0])
def test_of_a_linear_model_one_step_is_exact(model, norm):
    exact = model.exact(norm)
    z, view = model.perturb(DeepFool(refinements=0), INF, norm)
    length = distance(z - model.x, norm)
    assert (model.target.labels(z) != model.y).all()
    assert (length >= exact * (1 - 1e-9)).all()
    assert (length <= exact * 1.002).all()  # a tenth of the way, halved six times
    assert (view.meter.backwards == 2 * 4).all()  # two looks at the label and three others


@pytest.mark.parametrize("norm", [INF, 2.0])
def test_breaks_what_is_within_the_budget_and_nothing_else(model, norm):
    exact = model.exact(norm)
    radius = float(exact.median())
    z, _ = model.perturb(DeepFool(), radius, norm)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.99 * radius].all()
    assert not broken[exact > radius * (1 + 1e-5)].any()
    assert torch.equal(z[~broken], model.x[~broken])


def test_reaches_a_given_label(model):
    goal = (model.y + 1) % 4
    z, _ = model.perturb(DeepFool(), INF, 2.0, goal="targeted", y=goal)
    assert (model.target.labels(z) == goal).all()


def test_meets_the_box():
    model = linear((3, 8, 8), box=1.0)
    x = model.x.clamp(-1, 1)
    held = type(model)(model.target, x, model.target.labels(x), model.weight)
    z, _ = held.perturb(DeepFool(), INF, 2.0)
    assert (held.target.labels(z) != held.y).all()
    assert float(z.abs().max()) <= 1.0


def test_spends_no_more_than_is_granted():
    _, view = linear((3, 8, 8)).perturb(DeepFool(), INF, 2.0, queries=7)
    assert int(view.meter.queries.max()) <= 7


@pytest.mark.parametrize(("norm", "peer", "gradients"), [("l2", 0.5509, 28.1), ("linf", 0.0184, 28.1)])
def test_is_nearer_than_its_peers_for_fewer_gradients(norm, peer, gradients):
    """adv-lib 0.2.8 and foolbox 3.3.4 with their defaults, on these 100 points."""
    ours = found(DeepFool(), norm)
    assert ours.success == 1
    assert ours.median <= peer
    assert ours.backwards <= gradients
