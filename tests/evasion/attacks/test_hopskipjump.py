"""HopSkipJump: how near it comes, against exact distances and a peer, and that every query granted is used."""

from __future__ import annotations

import math

import pytest
import torch
from decision_cases import UNBOUNDED, digits, nearest, stubborn
from linear_models import linear

from assay.evasion import L2, HopSkipJump
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

NORMS = [2.0, math.inf]

FOOLBOX = {2.0: {1000: 1.175, 2000: 0.973}, math.inf: {1000: 0.1129, 2000: 0.1067}}
"""Median distances of foolbox 3.3.4's HopSkipJumpAttack(steps=1000) on these 40 digits in one batch, by queries a
point; the nearest success that it asked about counts, returned or not."""

OURS = {2.0: {1000: 0.53, 2000: 0.52}, math.inf: {1000: 0.1129, 2000: 0.1067}}
"""What is asked of ours. Measured with seeds 0 to 3: L2 0.488 to 0.515 and 0.474 to 0.504, Linf 0.1084 to 0.1123 and
0.1022 to 0.1069: in Linf it is level with the peer."""


@pytest.mark.parametrize("norm", NORMS)
def test_is_nearer_than_the_peer_on_digits(norm):
    target, x, y = digits()
    for queries, peer in FOOLBOX[norm].items():
        found, view = nearest(HopSkipJump(), target, x, y, norm, queries)
        assert float(found.length.median()) <= min(peer, OURS[norm][queries])
        assert (view.meter.queries == queries).all()


@pytest.mark.parametrize(("norm", "worst"), [(2.0, 1.1), (math.inf, 1.45)])
def test_comes_close_to_the_exact_distance_of_linear_models(norm, worst):
    model = linear((1, 8, 8), box=10.0)
    found, _ = nearest(HopSkipJump(), model.target, model.x, model.y, norm, 3000)
    ratio = found.length / model.exact(norm)
    assert (ratio >= 1 - 1e-6).all()
    assert ratio.median() <= worst
    assert (model.target.labels(found.found) != model.y).all()
    torch.testing.assert_close(found.length, distance(found.found - model.x, norm), rtol=1e-9, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("queries", [1, 7, 40, 333])
def test_spends_what_is_granted_and_no_more(norm, queries):
    model = linear((6,), points=5, box=4.0)
    _, view = nearest(HopSkipJump(), model.target, model.x, model.y, norm, queries)
    assert (view.meter.queries == queries).all()


def test_without_a_limit_its_own_is_spent():
    model = linear((6,), points=5, box=4.0)
    _, view = nearest(HopSkipJump(queries=123), model.target, model.x, model.y, 2.0, None)
    assert (view.meter.queries == 123).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_does_not_feel_what_others_have_left(norm):
    model, budget = linear((3, 8, 8), box=4.0), UNBOUNDED[norm]
    spent = 17 * torch.arange(16)

    def run(points):
        view = budget.threat(access="labels", queries=400).grant(model.target, len(points))
        at = torch.arange(len(points)).repeat_interleave(spent[points])
        view.labels(model.x[points][at], at)
        found = HopSkipJump().closest(view, model.x[points], model.y[points], budget, Stream.seeded(0, points))
        assert (view.meter.queries == 400).all()
        return found

    together = run(torch.arange(16))
    assert torch.isfinite(together.length).all()
    for i in range(0, 16, 3):
        alone = run(torch.tensor([i]))
        torch.testing.assert_close(alone.found[0], together.found[i], rtol=0, atol=1e-9)


def test_points_within_the_radius_stop_paying():
    target, x, y = digits()
    budget = L2(0.8)
    view = budget.threat(access="labels", queries=1000).grant(target, len(x))
    z = HopSkipJump().perturb(view, x, y, budget, Stream.seeded(3, torch.arange(len(x))))
    broken = target.labels(z) != y
    assert broken.double().mean() >= 0.8
    assert (distance(z - x, 2) <= 0.8 * (1 + 1e-6)).all()
    assert torch.equal(z[~broken], x[~broken])
    assert (view.meter.queries[~broken] == 1000).all()
    assert view.meter.queries[broken].double().median() < 300


def test_reaches_a_given_label():
    target, x, y = digits()
    wanted = (y + 1) % 10
    found, _ = nearest(HopSkipJump(), target, x, wanted, 2.0, 1000, goal="targeted")
    reached = target.labels(found.found) == wanted
    assert reached.all()
    assert found.length.median() < 1.3


@pytest.mark.parametrize("norm", NORMS)
def test_a_point_that_nothing_breaks_comes_back_as_it_was(norm):
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found, view = nearest(HopSkipJump(tries=20), stubborn(), x, torch.zeros(4, dtype=torch.int64), norm, 100)
    assert torch.equal(found.found, x)
    assert torch.isinf(found.length).all()
    assert (view.meter.queries == 20).all()


@pytest.mark.parametrize("norm", NORMS)
def test_finds_images_of_eight_bits(norm):
    target, x, y = digits()
    x = (x * 255).round() / 255
    budget = type(UNBOUNDED[norm])(math.inf, lattice=255)
    view = budget.threat(access="labels", queries=500).grant(target, len(x))
    found = HopSkipJump().closest(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    assert (target.labels(found.found) != y).all()
    assert budget.contains(found.found, x, target.bounds).all()
    reals, _ = nearest(HopSkipJump(), target, x, y, norm, 500)
    levels = {2.0: 0.05, math.inf: 3 / 255}[norm]  # what rounding may cost
    assert float(found.length.median()) <= float(reals.length.median()) + levels


def test_plays_on_single_numbers():
    model = linear((1,), points=6, box=4.0)
    for norm in NORMS:
        found, view = nearest(HopSkipJump(), model.target, model.x, model.y, norm, 60)
        reached = torch.isfinite(found.length)
        assert torch.isfinite(found.found).all()
        assert (view.meter.queries <= 60).all()
        torch.testing.assert_close(found.length[reached], model.exact(norm)[reached], rtol=5e-3, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_what_errs_by_itself_has_nothing_to_pay_for(norm):
    target, x, y = digits()
    found, view = nearest(HopSkipJump(), target, x, (y + 1) % 10, norm, 500)
    assert (found.length < 1e-6).all()
    assert torch.isfinite(found.found).all()
    assert (view.meter.queries < 100).all()
