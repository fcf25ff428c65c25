"""DP-FTRL's tree: the variance on every prefix, how far one example reaches, and what is learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from assay import demo
from assay.privacy import DPFTRL, Accountant, Gaussian
from assay.privacy.defenses.dpftrl import Tree


def prefixes(steps, deviation=1.0, copies=40_000):
    """The noise on each prefix: ``[steps, copies]``, independent copies side by side."""
    tree, draw = Tree(shapes={"w": torch.Size([copies])}, deviation=deviation), torch.Generator().manual_seed(0)
    return torch.stack([tree.step(draw)["w"] for _ in range(steps)]).double().cumsum(0)


def test_every_prefix_has_the_variance_of_honakers_estimate():
    """A prefix is the complete subtrees of its binary digits; height h leaves 1/(2 − 2⁻ʰ) of a node's variance."""
    noise = prefixes(21, deviation=1.5)
    for step in range(1, 22):
        exact = 1.5**2 * sum(1 / (2 - 2.0**-h) for h in range(5) if step >> h & 1)
        assert float(noise[step - 1].var()) == pytest.approx(exact, rel=0.03)


def test_noise_cancels_where_independent_noise_would_add_up():
    """After 64 steps: about 0.5 of a node's variance, not 64."""
    assert float(prefixes(64, copies=4000)[-1].var()) < 0.6


@pytest.mark.parametrize(("steps", "levels"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (100, 7)])
def test_an_example_enters_a_node_on_every_level_that_is_complete(steps, levels):
    """Counted on the tree itself: of all complete subtrees, how many hold one leaf."""
    complete = [range(at, at + 2**h) for h in range(8) for at in range(0, steps, 2**h) if at + 2**h <= steps]
    assert max(sum(leaf in node for node in complete) for leaf in range(steps)) == levels
    training = DPFTRL(batch=10, epochs=3, noise=2.0)
    assert training.nodes(10 * steps) == 3 * levels
    assert training.mechanism(10 * steps) == Gaussian(mu=math.sqrt(3 * levels) / 2, adjacency="zero-out")


def test_calibrates_exactly():
    training = DPFTRL(batch=100, epochs=5).calibrated(epsilon=2.0, delta=1e-5, n=5000)
    assert 1.999 < Accountant("gdp").epsilon(training.mechanism(5000), delta=1e-5) <= 2.0


def test_each_example_is_used_once_an_epoch():
    """No noise, gradients of exactly one: the sums count the batches, 128 twice and the rest."""
    sums = []
    DPFTRL(noise=0.0, clip=1.0, batch=128, epochs=2, rate=1e-9).fit(
        nn.Linear(1, 1, bias=False), torch.ones(300, 1), torch.zeros(300), seed=0, loss=lambda out, y: out[:, 0],
        observe=lambda step, released: sums.append((step, float(released["weight"]))))
    assert sums == [(0, 128.0), (1, 128.0), (2, 44.0), (3, 128.0), (4, 128.0), (5, 44.0)]


def test_learns_the_digits_within_a_budget():
    """90.4 to 91.4 % in five seeds; DP-SGD, which may count on secret samples, 92.0 to 93.8 % (test_dpsgd)."""
    (x, y), (test_x, test_y) = demo.digits("train"), demo.digits("test")
    training = DPFTRL(clip=0.5, batch=324, epochs=12, rate=2.0, average=0.9)
    training = training.calibrated(epsilon=3, delta=1e-4, n=len(x))
    fit = training.procedure(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))

    class Data:
        pass

    data = Data()
    data.x, data.y = x.numpy(), y.numpy()
    right = [float((fit(data, seed)(test_x).argmax(1) == test_y).float().mean()) for seed in range(5)]
    assert fit.mechanism(len(x)) == training.mechanism(len(x))
    assert torch.equal(fit(data, 0)[1].weight, fit(data, 0)[1].weight)
    assert min(right) > 0.89


def test_the_bound_names_its_own_neighbors():
    x, y = torch.rand(64, 4), torch.arange(64) % 2
    trained = DPFTRL(noise=4.0, batch=32, epochs=1).fit(lambda: torch.nn.Linear(4, 2), x, y, seed=0)
    assert trained.bound(delta=1e-5).method.endswith("zero-out")
    assert Accountant().certify(Gaussian(mu=1.0), delta=1e-5).method.endswith("add/remove")
