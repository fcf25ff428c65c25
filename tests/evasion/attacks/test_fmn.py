"""FMN against linear models, whose distances are known, and against the nearest that any peer found."""

from __future__ import annotations

import pytest
import torch
from adversarial_cifar import found
from linear_models import linear
from test_sigma_zero import planes

from assay.evasion import FMN, L0
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_finds_the_smallest_perturbation(model, norm):
    exact = model.exact(norm)
    z, _ = model.perturb(FMN(), INF, norm)
    assert (model.target.labels(z) != model.y).all()
    length = distance(z - model.x, norm)
    assert (length >= exact * (1 - 1e-9)).all()
    assert float((length / exact).median()) <= 1.05


def test_changes_nearly_as_few_coordinates_as_suffice():
    target, x, y, fewest = planes()
    view = L0(INF).threat().grant(target, len(x))
    z = FMN().perturb(view, x, y, L0(INF), Stream.seeded(0, torch.arange(len(x))))
    count = distance(z - x, 0)
    assert (target.labels(z) != y).all()
    assert (count >= fewest).all()
    assert float((count - fewest).mean()) <= 0.5


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_breaks_what_is_within_the_budget_and_nothing_else(model, norm):
    exact = model.exact(norm)
    radius = float(exact.median())
    z, view = model.perturb(FMN(), radius, norm)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.9 * radius].all()
    assert not broken[exact > radius * (1 + 1e-5)].any()
    assert torch.equal(z[~broken], model.x[~broken])
    assert float(view.meter.backwards[broken].double().mean()) < 0.6 * float(view.meter.backwards[~broken].double().mean())


def test_one_start_pays_one_forward_and_one_backward_a_step():
    _, view = linear((3, 8, 8)).perturb(FMN(steps=10, starts=1), INF, 2.0)
    assert (view.meter.backwards == 10).all()
    assert (view.meter.forwards == 12).all()


def test_spends_no_more_than_is_granted():
    _, view = linear((3, 8, 8)).perturb(FMN(steps=50), INF, 2.0, queries=7)
    assert int(view.meter.queries.max()) <= 7


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "nearest"), [("linf", 0.01706), ("l2", 0.5028), ("l1", 4.978), ("l0", 8.0)])
def test_is_nearer_than_the_nearest_of_any_peer(norm, nearest):
    """adv-lib 0.2.8 FAB in Linf, L2 and L1 (900 backwards a point), foolbox 3.3.4 Brendel-Bethge in L0, these points."""
    ours = found(FMN(), norm)
    assert ours.success == 1
    assert ours.median <= nearest
    assert ours.backwards <= 180
