"""Square: what it must break, what it cannot, and what it pays."""

from __future__ import annotations

import pytest
import torch
from linear_models import linear

from assay import targets
from assay.evasion import L2, EvasionGame, Linf, Square
from assay.evasion.attacks.windows import Grid, bump, dipoles
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")
NORMS = [INF, 2.0, 1.0]


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_what_is_within_reach_and_nothing_beyond(model, norm):
    exact = model.exact(norm)
    radius = float(exact.median()) * 1.25
    z, view = model.perturb(Square(queries=2000, patience=None), radius, norm)
    broken = model.target.labels(z) != model.y
    near = 0.8 if norm == INF else 0.6  # white weights are the hardest for windows of at least 3 x 3
    assert broken[exact < near * radius].double().mean() >= 0.9
    assert not broken[exact > radius].any()
    assert (distance(z - model.x, norm) <= radius * (1 + 1e-5)).all()
    assert torch.equal(z[~broken], model.x[~broken])
    assert (view.meter.queries[~broken] == 2000).all()
    assert (view.meter.queries[broken] < 2000).all()


@pytest.mark.parametrize("norm", NORMS)
def test_points_do_not_influence_each_other(model, norm):
    radius = float(model.exact(norm).median())
    together, whole = model.perturb(Square(queries=150), radius, norm)
    for i in range(0, 16, 3):
        alone, view = model.perturb(Square(queries=150), radius, norm, points=slice(i, i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)
        assert view.meter.queries[0] == whole.meter.queries[i]


@pytest.mark.parametrize("norm", NORMS)
def test_never_overdraws(model, norm):
    z, view = model.perturb(Square(queries=5000, restarts=2), float(model.exact(norm).min()) / 2, norm, queries=100)
    assert torch.equal(z, model.x)
    assert (view.meter.queries == 100).all()


def test_stops_points_whose_budget_an_earlier_stage_spent():
    model = linear((3, 8, 8))
    budget = Linf(1e-4)
    view = budget.threat(queries=50).grant(model.target, 16)
    view.scores(model.x[:1].repeat(30, 1, 1, 1), torch.zeros(30, dtype=torch.int64))
    Square().perturb(view, model.x, model.y, budget, Stream.seeded(0, torch.arange(16)))
    assert (view.meter.queries == 50).all()
    again = Square().perturb(view, model.x, model.y, budget, Stream.seeded(0, torch.arange(16)))
    assert torch.equal(again, model.x)
    assert (view.meter.queries == 50).all()


def test_reaches_a_given_label():
    model = linear((3, 8, 8))
    wanted = (model.y + 1) % 4
    z, _ = model.perturb(Square(queries=1000), 1.0, INF, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).double().mean() >= 0.9


def test_patience_saves_queries_and_loses_no_break():
    model = linear((3, 8, 8), points=64)
    radius = float(model.exact(INF).median())
    full, paid = model.perturb(Square(queries=3000, patience=None), radius, INF)
    short, spent = model.perturb(Square(queries=3000), radius, INF)
    broken = model.target.labels(full) != model.y
    assert torch.equal(broken, model.target.labels(short) != model.y)
    assert torch.equal(full, short)
    assert spent.meter.queries.sum() < 0.6 * paid.meter.queries.sum()
    assert (spent.meter.queries[~broken] >= 500).all()


@pytest.mark.parametrize("norm", NORMS)
def test_saturated_pixels_move(norm):
    model = linear((1, 6, 6), box=1.0)
    x = model.x.sign()
    y = model.target.labels(x)
    budget = {INF: Linf(0.9), 2.0: L2(5.0), 1.0: L2(5.0)}[norm]
    view = budget.threat().grant(model.target, len(x))
    z = Square(queries=500).perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    broken = model.target.labels(z) != y
    assert broken.double().mean() > 0.8
    assert z.abs().max() <= 1
    assert (z[broken] != x[broken]).any()


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1, 1), (5, 1), (4, 7), (2, 3, 5, 4)])
@pytest.mark.parametrize("norm", NORMS)
def test_plays_on_any_shape(shape, norm):
    model = linear(shape, points=4)
    exact = model.exact(norm)
    radius = float(exact.max()) * 3
    z, _ = model.perturb(Square(queries=400), radius, norm)
    assert z.shape == model.x.shape
    assert (model.target.labels(z) != model.y).double().mean() >= 0.5
    assert (distance(z - model.x, norm) <= radius * (1 + 1e-5)).all()


def test_in_the_game_with_scores_only():
    model = linear((3, 8, 8))
    threat = Linf(1e-4).threat(access="scores", queries=100)
    found = EvasionGame(model.x, model.y, threat=threat).play(Square(), model.target, seed=0)
    assert not found.error
    assert found.cost.queries == 100 * 16


def test_asks_no_question_twice_in_a_row():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.stack([x.sum((1, 2, 3)) * 0 + 1, x.sum((1, 2, 3)) * 0], 1)

    x = torch.rand(1, 1, 3, 3) * 0.5 + 0.25
    budget = Linf(0.1)
    view = budget.threat().grant(targets.torch(Spy(), name="spy"), 1)
    Square(queries=60).perturb(view, x, torch.zeros(1, dtype=torch.int64), budget, Stream.seeded(0, torch.arange(1)))
    assert all(not torch.equal(z, seen[0]) for z in seen[1:])  # nothing is accepted, so all are compared to the start


def test_windows_lie_inside_and_reach_every_cell():
    grid = Grid.of((2, 4, 7))
    u = Stream.seeded(0, torch.arange(2000)).uniform(2, dtype=torch.float64)
    cells = grid.cells(u[:, 0], u[:, 1], (2, 3))
    assert cells.shape == (2000, 2, 6)
    assert set(cells.flatten().tolist()) == set(range(28))
    assert (cells[:, 0, 1] // 7 == cells[:, 0, 0] // 7).all()
    assert Grid.of((9,)).window(1.0) == (1, 9)
    assert Grid.of((3, 32, 32)).window(0.8) == (29, 29)


@pytest.mark.parametrize("norm", [2.0, 1.0])
def test_dipoles_have_unit_norm_and_both_signs(norm):
    peaks = dipoles(7, 7, norm)
    torch.testing.assert_close(torch.linalg.vector_norm(peaks, ord=norm, dim=1), torch.ones(2, dtype=torch.float64))
    assert (peaks > 0).any(1).all()
    assert (peaks < 0).any(1).all()
    assert bump(5, 5, norm).argmax() == 12
