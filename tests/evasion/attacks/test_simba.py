"""SimBA: what it breaks with how few queries."""

from __future__ import annotations

import pytest
import torch
from linear_models import linear

from assay import demo, targets
from assay.evasion import L2, Linf, SimBA
from assay.evasion.attacks.simba import _Directions, cosines
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")
NORMS = [INF, 2.0]
BASES = ["pixel", "dct"]


@pytest.mark.parametrize("basis", BASES)
def test_breaks_linear_models_almost_up_to_the_exact_distance(model, basis):
    exact = model.exact(2.0)
    radius = float(exact.median()) * 1.25
    # The box is 200 wide; small steps, as many as there are queries for.
    z, _ = model.perturb(SimBA(queries=3000, basis=basis, step=radius / 2000, loss="margin"), radius, 2.0)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.9 * radius].all()
    assert not broken[exact > radius].any()
    assert (distance(z - model.x, 2) <= radius * (1 + 1e-5)).all()
    assert torch.equal(z[~broken], model.x[~broken])


def test_one_round_of_pixels_breaks_two_class_linear_models_exactly_up_to_the_distance():
    model = linear((30,), classes=2)
    exact = model.exact(INF)
    radius = float(exact.median()) * 1.001
    z, view = model.perturb(SimBA(), radius, INF, queries=2 * 30 + 1)
    assert torch.equal(model.target.labels(z) != model.y, exact < radius)  # every coordinate's better face is found
    assert (view.meter.queries <= 61).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("basis", BASES)
def test_points_do_not_influence_each_other(model, basis, norm):
    radius = float(model.exact(norm).median())
    attack = SimBA(basis=basis, step=None if norm == INF else 0.002)
    together, whole = model.perturb(attack, radius, norm, queries=150)
    for i in range(0, 16, 3):
        alone, view = model.perturb(attack, radius, norm, points=slice(i, i + 1), queries=150)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)
        assert view.meter.queries[0] == whole.meter.queries[i]


@pytest.mark.parametrize("granted", [1, 2, 3, 50, 51])
def test_spends_to_the_last_query_and_no_more(granted):
    model = linear((3, 6, 6))
    z, view = model.perturb(SimBA(), 1e-6, 2.0, queries=granted)
    assert torch.equal(z, model.x)
    assert (view.meter.queries == granted).all()


def test_a_step_costs_at_most_two_queries_and_asks_nothing_twice():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.extend(x.clone())
            return torch.stack([x.sum((1, 2, 3)) * 0 + 1, x.sum((1, 2, 3)) * 0], 1)

    x, budget = torch.rand(1, 1, 3, 3) * 0.5, Linf(0.5)
    x[0, 0, 0, 0] = 0.0  # backward the box lets nothing through
    view = budget.threat(queries=400).grant(targets.torch(Spy(), name="spy"), 1)
    view_queries = view.meter.queries
    SimBA(queries=18).perturb(view, x, torch.zeros(1, dtype=torch.int64), budget, Stream.seeded(0, torch.arange(1)))
    assert int(view_queries[0]) == len(seen) == 18  # the start, 8 pixels of two faces and one of one
    assert len({tuple(z.flatten().tolist()) for z in seen}) == 18


@pytest.mark.parametrize("norm", NORMS)
def test_reaches_a_given_label(norm):
    model = linear((3, 8, 8))
    wanted = (model.y + 1) % 4
    attack, radius = SimBA(step=None if norm == INF else 0.002), {INF: 1.0, 2.0: 10.0}[norm]
    z, _ = model.perturb(attack, radius, norm, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).all()


def test_directions_are_orthonormal_and_low_frequencies_come_first():
    waves = cosines(7, dtype=torch.float64, device=torch.device("cpu"))
    torch.testing.assert_close(waves @ waves.T, torch.eye(7, dtype=torch.float64))
    x = torch.zeros(1, 2, 6, 4, dtype=torch.float64)
    directions = _Directions.of(x, "dct")
    order = directions.order(Stream.seeded(0, torch.arange(1)), 0.5)[0]
    assert sorted(order.tolist()) == list(range(48))
    first = order[:12]
    assert ((first % 24) // 4 < 3).all()
    assert ((first % 24) % 4 < 2).all()
    everything = torch.cat([directions.take(order[i : i + 1], x) for i in range(48)]).flatten(1)
    torch.testing.assert_close(everything @ everything.T, torch.eye(48, dtype=torch.float64))


def test_breaks_as_many_digits_as_a_peer_with_fewer_queries():
    net, (x, y) = demo.target(), demo.digits("test[:200]")
    right = net.labels(x) == y
    x, y = x[right][:60], y[right][:60]
    # ART 1.20.1, SimBA(epsilon=0.2, max_iter=249, order="random") on the same network and digits: 90 % broken, all
    # within L2 1.5, with 107 queries a point in pixels and 93 in waves (freq_dim=4, stride=4).
    for basis, peer in (("pixel", 107), ("dct", 93)):
        view = L2(1.5).threat(access="scores", queries=500).grant(net, 60)
        z = SimBA(basis=basis).perturb(view, x, y, L2(1.5), Stream.seeded(0, torch.arange(60)))
        assert float((net.labels(z) != y).double().mean()) >= 0.9
        assert float(view.meter.queries.double().mean()) < peer


def test_comes_close_to_white_box_attacks_in_linf():
    net, (x, y) = demo.target(), demo.digits("test[:200]")
    right = net.labels(x) == y
    x, y = x[right][:60], y[right][:60]
    view = Linf(0.1).threat(access="scores", queries=500).grant(net, 60)
    z = SimBA().perturb(view, x, y, Linf(0.1), Stream.seeded(0, torch.arange(60)))
    assert float((net.labels(z) != y).double().mean()) >= 0.63  # PGD with 40 steps: 0.67
