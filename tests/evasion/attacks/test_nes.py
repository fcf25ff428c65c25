"""NES and SPSA: how good their estimates are, what they break with how many queries, and what they pay."""

from __future__ import annotations

import math

import pytest
import torch
from linear_models import BUDGETS, linear

from assay import demo, targets
from assay.evasion import NES, SPSA, Linf
from assay.evasion.attacks.estimation import Prober, Rows
from assay.evasion.objectives import margin
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")
ATTACKS = [NES(queries=2000, draws=20, sigma=1e-6), SPSA(queries=2000, draws=20, sigma=1e-6)]  # of a box 200 wide
BY_NAME = {"argvalues": ATTACKS, "ids": ["nes", "spsa"]}


def estimated(model, directions, pairs, points, *, x=None, sigma=1e-6, budget=None, seed=0):
    """Estimates of the margin's gradient at the points, and the gradients themselves."""
    x = model.x if x is None else x
    budget = Linf(1.0) if budget is None else budget
    view = budget.threat().grant(model.target, len(points))
    prober = Prober(view=view, budget=budget, loss=margin, directions=directions, sigma=sigma)
    at = torch.arange(len(points))
    rows = Rows(at, x[points], model.y[points], x[points], torch.full_like(at, 10**6), ())
    found = prober(rows, torch.full_like(at, pairs), Stream.seeded(seed, points))
    truth = view.gradient(x[points], at, margin, model.y[points])
    return found, truth


def cosines(a, b):
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize("pairs", [10, 50])
def test_estimates_are_as_close_to_the_gradient_as_theory_allows(directions, pairs):
    model = linear((3, 12, 12), points=64)
    found, truth = estimated(model, directions, pairs, torch.arange(64))
    # The squared cosine of an estimate from m Gaussian directions in d dimensions is Beta(m/2, (d-1)/2) distributed.
    a, b = pairs / 2, (3 * 12 * 12 - 1) / 2
    theory = math.exp(math.lgamma(a + 0.5) - math.lgamma(a) + math.lgamma(a + b) - math.lgamma(a + b + 0.5))
    assert float(cosines(found.gradient, truth.gradient).mean()) == pytest.approx(theory, rel=0.05)
    torch.testing.assert_close(found.loss, truth.loss, rtol=0, atol=1e-9)  # pairs are antithetic, the model linear


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
def test_estimates_do_not_depend_on_the_batch(directions):
    # foolbox 3.3.4's estimator sums the loss over the batch: there the cosine falls from 0.255 alone to 0.032 in 64.
    model = linear((3, 12, 12), points=64)
    everyone, truth = estimated(model, directions, 50, torch.arange(64))
    alone = torch.cat([estimated(model, directions, 50, torch.tensor([i]))[0].gradient for i in range(8)])
    torch.testing.assert_close(alone, everyone.gradient[:8], rtol=0, atol=1e-9)
    in_eight = cosines(everyone.gradient, truth.gradient)[:8].mean()
    assert abs(cosines(alone, truth.gradient[:8]).mean() - in_eight) < 1e-9


@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize("lattice", [None, 255])
def test_estimates_at_the_edge_of_the_box_have_the_right_scale(directions, lattice):
    model = linear((10,), points=8, box=1.0)
    x = model.x.sign()  # every coordinate may move one way only
    budget = Linf(1.0, lattice=lattice)
    found, truth = estimated(model, directions, 20_000, torch.arange(8), x=x, budget=budget)
    torch.testing.assert_close(found.gradient, truth.gradient, rtol=0, atol=0.15)
    assert float(cosines(found.gradient, truth.gradient).min()) > 0.995


@pytest.mark.parametrize("norm", [INF, 2.0])
@pytest.mark.parametrize("attack", **BY_NAME)
def test_breaks_what_is_within_reach_and_nothing_beyond(model, attack, norm):
    exact = model.exact(norm)
    radius = float(exact.median()) * 1.25
    z, view = model.perturb(attack, radius, norm)
    broken = model.target.labels(z) != model.y
    assert broken[exact < 0.7 * radius].all()
    assert not broken[exact > radius].any()
    assert (distance(z - model.x, norm) <= radius * (1 + 1e-5)).all()
    assert torch.equal(z[~broken], model.x[~broken])
    assert (view.meter.queries[~broken] == 2000).all()
    assert (view.meter.queries[broken] < 2000).all()


@pytest.mark.parametrize("norm", [INF, 2.0])
@pytest.mark.parametrize("attack", **BY_NAME)
def test_points_do_not_influence_each_other(model, attack, norm):
    radius = float(model.exact(norm).median())
    together, whole = model.perturb(attack, radius, norm, queries=150)
    for i in range(0, 16, 3):
        alone, view = model.perturb(attack, radius, norm, points=slice(i, i + 1), queries=150)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)
        assert view.meter.queries[0] == whole.meter.queries[i]


@pytest.mark.parametrize("granted", [1, 2, 3, 50, 51, 100])
@pytest.mark.parametrize("attack", **BY_NAME)
def test_spends_to_the_last_query_and_no_more(attack, granted):
    model = linear((12,))
    z, view = model.perturb(attack, 1e-6, INF, queries=granted)
    assert torch.equal(z, model.x)
    assert (view.meter.queries == granted).all()


@pytest.mark.parametrize("attack", **BY_NAME)
def test_points_with_different_queries_left_each_spend_their_own(attack):
    model = linear((12,))
    view = Linf(1e-6).threat(queries=60).grant(model.target, 16)
    view.scores(model.x[:3].repeat(9, 1), torch.arange(3).repeat(9))
    view.scores(model.x[3:4].repeat(58, 1), torch.full((58,), 3))
    attack.perturb(view, model.x, model.y, Linf(1e-6), Stream.seeded(0, torch.arange(16)))
    assert (view.meter.queries == 60).all()


@pytest.mark.parametrize("attack", **BY_NAME)
def test_reaches_a_given_label(attack):
    model = linear((3, 8, 8))
    wanted = (model.y + 1) % 4
    z, _ = model.perturb(attack, 1.0, INF, goal="targeted", y=wanted)
    assert (model.target.labels(z) == wanted).all()


@pytest.mark.parametrize("attack", **BY_NAME)
def test_flat_scores_give_the_original_and_no_nan(attack):
    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(1) * 0 + 1, x.sum(1) * 0], 1)

    target = targets.torch(Flat(), name="flat")
    x = torch.rand(4, 5)
    for norm in (INF, 2.0):
        budget = BUDGETS[norm](0.1)
        view = budget.threat(queries=100).grant(target, 4)
        z = attack.perturb(view, x, torch.zeros(4, dtype=torch.int64), budget, Stream.seeded(0, torch.arange(4)))
        assert torch.equal(z, x)


def broken_digits(attack, budget):
    """The share of the first 100 digits that the demo network gets right which the attack breaks."""
    net, (x, y) = demo.target(), demo.digits("test[:200]")
    right = net.labels(x) == y
    x, y = x[right][:100], y[right][:100]
    if budget.lattice:
        x = (x * 255).round() / 255
    view = budget.threat(access="scores").grant(net, 100)
    z = attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(100)))
    assert budget.contains(z, x, net.bounds).all()
    return float((net.labels(z) != y).double().mean())


def test_breaks_as_many_digits_as_a_peer_with_the_same_queries():
    # torchattacks 3.5.1, SPSA(eps=0.1, delta=0.01, lr=0.03, nb_iter=20, nb_sample=25), which is 1000 queries, on the
    # same network and digits: 50 and 51 of 100 with two seeds; lr=0.01, its default: 39 and 44. (PGD-40: 67.)
    assert broken_digits(SPSA(queries=1000), Linf(0.1)) >= 0.50
    assert broken_digits(NES(queries=1000), Linf(0.1)) >= 0.50


def test_works_on_the_lattice_where_plain_probes_would_round_to_the_iterate():
    free = broken_digits(NES(queries=1000), Linf(25 / 255))
    landed = broken_digits(NES(queries=1000), Linf(25 / 255, lattice=255))
    assert landed >= 0.9 * free
