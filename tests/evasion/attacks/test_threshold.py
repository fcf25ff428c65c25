"""The threshold attack: what it breaks against the truth and a peer, and what it pays."""

from __future__ import annotations

import pytest
import torch
from linear_models import linear

from assay import demo
from assay.evasion import Linf, ThresholdAttack
from assay.evasion.attacks.threshold import _Tiles
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")
SEARCHES = ["de", "cma-es"]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("shape", [(12,), (1, 5, 6)])
def test_breaks_what_is_within_reach_and_nothing_beyond(shape, search):
    model = linear(shape)
    exact = model.exact(INF)
    radius = float(exact.median()) * 1.25
    z, view = model.perturb(ThresholdAttack(search=search, queries=3000, members=12), radius, INF)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.9 * radius].all()
    assert not broken[exact > radius].any()
    assert (distance(z - model.x, INF) <= radius * (1 + 1e-5)).all()
    assert torch.equal(z[~broken], model.x[~broken])
    assert (view.meter.queries[~broken] == 3000).all()


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("side", [None, 4])
def test_points_do_not_influence_each_other(search, side):
    model = linear((3, 6, 6))  # 108 dimensions are searched separably, 48 with a whole covariance
    radius = float(model.exact(INF).median())
    attack = ThresholdAttack(search=search, side=side)
    together, whole = model.perturb(attack, radius, INF, queries=250)
    for i in range(0, 16, 3):
        alone, view = model.perturb(attack, radius, INF, points=slice(i, i + 1), queries=250)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)
        assert view.meter.queries[0] == whole.meter.queries[i]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("granted", [1, 24, 25, 26, 101])
def test_spends_to_the_last_query_and_no_more(search, granted):
    model = linear((12,))
    z, view = model.perturb(ThresholdAttack(search=search), 1e-6, INF, queries=granted)
    assert torch.equal(z, model.x)
    assert (view.meter.queries == granted).all()


def test_a_point_does_not_pay_for_what_is_left_of_a_generation():
    model = linear((12,))
    _, view = model.perturb(ThresholdAttack(members=100), 10.0, INF)
    assert (view.meter.queries == 25).all()


def test_reaches_a_given_label():
    model = linear((3, 4, 4))
    wanted = (model.y + 1) % 4
    z, _ = model.perturb(ThresholdAttack(queries=2000), 1.0, INF, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).all()


def test_tiles_cover_the_picture_evenly_and_are_never_more_than_the_pixels():
    x = torch.zeros(1, 2, 6, 4)
    tiles = _Tiles.of(x, 3, Linf(1.0), (0.0, 1.0))
    assert tiles.size == 2 * 3 * 3
    assert tiles.tile.reshape(6, 4)[::2].tolist() == tiles.tile.reshape(6, 4)[1::2].tolist()
    assert torch.bincount(tiles.tile).min() >= 2
    assert _Tiles.of(x, None, Linf(1.0), (0.0, 1.0)).size == _Tiles.of(x, 14, Linf(1.0), (0.0, 1.0)).size == 48


def test_breaks_far_more_digits_than_a_peer_with_fewer_queries():
    net, (x, y) = demo.target(), demo.digits("test[:200]")
    right = net.labels(x) == y
    x, y = x[right][:60], y[right][:60]
    budget = Linf(25 / 255)
    # ART 1.20.1, ThresholdAttack(th=25, es=1, max_iter=10) on the same network and digits: 5 % with 4139 queries a point.
    # (Its CMA-ES was not measured: it learns a whole covariance over all pixels, one point at a time.) PGD in 0.1: 67 %.
    for search, least in (("cma-es", 0.58), ("de", 0.4)):
        view = budget.threat(access="scores", queries=1000).grant(net, 60)
        z = ThresholdAttack(search=search).perturb(view, x, y, budget, Stream.seeded(0, torch.arange(60)))
        assert float((net.labels(z) != y).double().mean()) >= least
        assert budget.contains(z, x, net.bounds).all()
