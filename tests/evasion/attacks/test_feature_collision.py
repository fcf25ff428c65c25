"""Feature collision: exact on linear models, features that do collide, detectors that fall, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay import demo, evasion, targets
from assay.errors import ConfigError, Denied, TargetError
from assay.evasion.threat import L2, Ball, Linf
from assay.numerics.seeds import Stream
from assay.targets.features import chosen, pooled, read
from assay.threats import Examples, View


def view_of(target, x: Tensor, y: Tensor, budget: Ball, examples: Examples | None, goal: str = "misclassify") -> View:
    threat = budget.threat(access="weights", goal=goal)
    return threat.grant(target, len(x), labels=y, examples=examples)


def played(attack, view: View, x: Tensor, y: Tensor, budget: Ball) -> Tensor:
    return attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))


def plane() -> tuple[targets.TorchTarget, Tensor, Tensor]:
    """Two classes in 8 dimensions, whose boundary passes through the middle of the box."""
    torch.manual_seed(0)
    net = nn.Linear(8, 2).double()
    with torch.no_grad():
        net.bias.copy_(-net.weight.sum(1) / 2)
    x = torch.rand(200, 8, dtype=torch.float64) * 0.4 + 0.3
    return targets.torch(net), x, targets.torch(net).labels(x)


def test_on_a_linear_model_it_ends_where_the_guide_is_projected_to() -> None:
    target, x, y = plane()
    guide = Examples(torch.full((1, 8), 0.9, dtype=torch.float64), torch.zeros(1, dtype=torch.int64))
    other = target.labels(guide.x)
    x, y = x[y != other], y[y != other]  # the features are the input itself: the only layer's
    budget = Linf(0.1)
    z = played(evasion.FeatureCollision(refine=0, steps=200, every=10**6), view_of(target, x, y, budget, guide), x, y, budget)
    ends = budget.project(guide.x.expand_as(x), x, target.bounds)
    broken = target.labels(ends) != y
    assert 0.1 < float(broken.double().mean()) < 0.9
    assert torch.equal(target.labels(z) != y, broken)
    assert float((z - ends)[broken].abs().max()) < 1e-3  # the last steps' length
    assert torch.equal(z[~broken], x[~broken])


def test_with_the_margin_climbed_it_finds_whatever_is_within_reach_of_a_linear_model() -> None:
    target, x, y = plane()
    weight = target.model.weight.detach()
    reach = 0.05 * (weight[1] - weight[0]).abs().sum()
    scores = target.scores(x)
    exact = (scores[:, 0] - scores[:, 1]).abs() < reach
    budget, held = Linf(0.05), Examples(x[:20], y[:20])
    z = played(evasion.FeatureCollision(steps=10, refine=40), view_of(target, x, y, budget, held), x, y, budget)
    assert 0.1 < float(exact.double().mean()) < 0.9
    assert torch.equal(target.labels(z) != y, exact)


@pytest.fixture(scope="module")
def digits() -> tuple[targets.TorchTarget, Tensor, Tensor, Examples]:
    x, y = demo.digits("test[:40]")
    return demo.target(), x, y, Examples(*demo.digits("train[:400]"))


@pytest.mark.parametrize("budget", [Linf(0.4), L2(4.0)], ids=str)
def test_features_do_collide(budget: Ball, digits) -> None:
    target, x, y, held = digits
    names = chosen(target.module(), x, 4)
    goals = held.y[(torch.arange(40) * 7) % 400]
    goals = torch.where(goals == y, (y + 1) % 10, goals)
    attack = evasion.FeatureCollision(guides=1, refine=0, every=10**6)
    z = played(attack, view_of(target, x, goals, budget, held, "targeted"), x, goals, budget)
    assert float((target.labels(z) == goals).float().mean()) > 0.9  # 0.95 and 1 when written
    natural = [pooled(f) for f in read(target.module(), names, held.x).layers]
    for features, others in zip(read(target.module(), names, z).layers, natural):
        apart = torch.cdist(pooled(features), others)
        nearest = apart.masked_fill(held.y != goals[:, None], torch.inf).min(1).values
        usual = torch.cdist(others, others).median()
        assert float((nearest / usual).median()) < 0.2  # 0.15 at most when written; 1 is usual


@pytest.mark.parametrize(
    "recipe",
    [evasion.FeatureSqueezing(bits=1, median=2, means=(0, 3, 2.0)), evasion.LID(radius=0.2), evasion.Mahalanobis(radius=0.2),
     evasion.StatisticalOdds(sigma=0.05, draws=32)],
    ids=lambda recipe: type(recipe).__name__,
)
def test_detectors_fall(recipe, digits) -> None:
    target, x, y, held = digits
    safe, budget = recipe.fit(target, *demo.digits("train")).protect(target), Linf(0.25)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = played(evasion.FeatureCollision(), view_of(safe.adapted(), x, y, budget, held), x, y, budget)
        labels = safe.labels(z)
    assert bool(budget.contains(z, x, target.bounds).all())
    assert float(((labels != y) & (labels != safe.classes)).float().mean()) >= 0.95


def test_the_targeted_goal_is_reached_past_a_detector(digits) -> None:
    target, x, y, held = digits
    safe, budget = evasion.Mahalanobis(radius=0.2).fit(target, *demo.digits("train")).protect(target), Linf(0.35)
    goals = (y + 1) % 10
    z = played(evasion.FeatureCollision(), view_of(safe.adapted(), x, goals, budget, held, "targeted"), x, goals, budget)
    reached = safe.labels(z) == goals
    assert float(reached.float().mean()) > 0.9
    assert torch.equal(z[~reached], x[~reached])


def test_it_costs_what_it_says(digits) -> None:
    target, x, y, held = digits
    stubborn = Linf(1e-6)  # nothing can be broken: every step is paid
    view = view_of(target, x, y, stubborn, held)
    right = target.labels(x) == y
    z = played(evasion.FeatureCollision(guides=3, steps=7, refine=5), view, x, y, stubborn)
    assert torch.equal(z, x)
    # The examples' share (rounded up), its guides' choice, three rows a step, a look at the best of them, the margin and its end.
    assert set(view.meter.forwards[right].tolist()) == {402 // 40 + 1 + 1 + 3 * 7 + 3 + 5 + 1}
    assert set(view.meter.backwards[right].tolist()) == {3 * 7 + 5}
    assert set(view.meter.queries[right].tolist()) == {3 + 5 + 1}


def test_a_lattice_is_landed_on(digits) -> None:
    target, x, y, held = digits
    budget = Linf(64 / 255, lattice=255)
    x = (x * 255).round() / 255
    z = played(evasion.FeatureCollision(steps=30, refine=10), view_of(target, x, y, budget, held), x, y, budget)
    assert bool(budget.contains(z, x, target.bounds).all())
    assert float((target.labels(z) != y).float().mean()) > 0.9


def test_points_without_a_guide_are_left_as_they_are(digits) -> None:
    target, x, y, held = digits
    same = Examples(held.x[held.y == 3], held.y[held.y == 3])
    same = Examples(same.x[target.labels(same.x) == 3], same.y[target.labels(same.x) == 3])
    threes = x[y == 3]
    y = torch.full((len(threes),), 3)
    assert len(threes)
    z = played(evasion.FeatureCollision(steps=5), view_of(target, threes, y, Linf(0.3), same), threes, y, Linf(0.3))
    assert torch.equal(z, threes)


def test_what_cannot_be_played_is_refused(digits) -> None:
    target, x, y, held = digits
    with pytest.raises(Denied) as denied:
        played(evasion.FeatureCollision(), view_of(target, x, y, Linf(0.1), None), x, y, Linf(0.1))
    assert denied.value.code == "THR107"
    weak = Linf(0.1).threat().grant(target, len(x), labels=y, examples=held)
    with pytest.raises(Denied) as denied:
        played(evasion.FeatureCollision(), weak, x, y, Linf(0.1))
    assert denied.value.code == "THR102"
    with pytest.raises(TargetError) as lost:
        played(evasion.FeatureCollision(layers=("no",)), view_of(target, x, y, Linf(0.1), held), x, y, Linf(0.1))
    assert lost.value.code == "PRF141"
    with pytest.raises(ConfigError) as caught:
        evasion.FeatureCollision(guides=0)
    assert caught.value.code == "ATK160"
