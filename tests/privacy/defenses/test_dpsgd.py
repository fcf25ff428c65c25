"""DP-SGD against a plain loop over examples, Opacus's gradients, and the distribution of its noise."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, chi2, kstest
from torch import nn

from assay import demo
from assay.errors import ConfigError, TrustError
from assay.privacy import DPSGD, PerExample
from assay.privacy.per_example import sensitivity


def wave(*shape, scale=0.3, phase=0.0):
    return (scale * torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 0.7 + phase)).reshape(shape)


def network():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.GroupNorm(1, 2), nn.Flatten(),
                        nn.Linear(8, 3)).double()
    with torch.no_grad():
        for phase, parameter in enumerate(net.parameters()):
            parameter.copy_(wave(*parameter.shape, phase=phase))
    return net


X, Y = wave(5, 1, 4, 4, scale=1.0, phase=0.2), torch.tensor([0, 1, 2, 0, 1])


def looped(module, x, y, clip):
    """The clipped sum and the norms, one backward an example."""
    total, norms = {name: torch.zeros_like(p) for name, p in module.named_parameters()}, []
    for one, label in zip(x, y, strict=True):
        gradients = torch.autograd.grad(F.cross_entropy(module(one[None]), label[None]), list(module.parameters()))
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        norms.append(norm)
        for (name, _), g in zip(module.named_parameters(), gradients, strict=True):
            total[name] += g * min(1.0, clip / norm)
    return total, torch.tensor(norms, dtype=torch.float64)


def test_gradients_are_those_of_opacus():
    """Opacus 1.6.0, GradSampleModule(loss_reduction="sum"), torch 2.13.0, float64, this network and these examples."""
    work = PerExample(network())
    found = work.sum(work.parameters(), X, Y)
    norms = [1.759888302402028, 1.076908905628268, 1.07622614487962, 1.2956477354529035, 1.1254440707565738]
    assert torch.allclose(found.norms, torch.tensor(norms, dtype=torch.float64), atol=1e-9)
    first = work.each(work.parameters(), X, Y)
    assert first["0.bias"][0].tolist() == pytest.approx([0.2731397453685111, -0.28049461786424246], abs=1e-9)
    assert first["3.weight"][0].tolist() == pytest.approx([-0.01827417897824092, -0.1339399263641465], abs=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("clip", [0.1, 1.1, 100.0])
def test_the_sum_is_that_of_a_loop_over_examples(rows, clip):
    net = network()
    work = PerExample(net, clip=clip, rows=rows)
    found = work.sum(work.parameters(), X, Y)
    total, norms = looped(net, X, Y, clip)
    assert torch.allclose(found.norms, norms, atol=1e-9)
    assert all(torch.allclose(found.total[name], total[name], atol=1e-9) for name in total)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_the_closed_form_of_a_linear_layer_is_that_of_a_loop(bias, flat):
    linear = nn.Linear(12, 4, bias=bias).double()
    net, x = (linear, torch.randn(40, 12)) if flat else (nn.Sequential(nn.Flatten(), linear), torch.randn(40, 3, 2, 2))
    x, y = x.double(), torch.arange(40) % 4
    closed, mapped = PerExample(net, clip=0.7, rows=16), PerExample(net, clip=0.7, closed=False)
    total, norms = looped(net, x, y, 0.7)
    for work in (closed, mapped):
        found = work.sum(work.parameters(), x, y)
        assert torch.allclose(found.norms, norms, atol=1e-9)
        assert all(torch.allclose(found.total[name], total[name], atol=1e-9) for name in total)


def test_no_example_moves_the_sum_by_more_than_the_clip():
    work = PerExample(network(), clip=0.4)
    at = work.parameters()
    assert sensitivity(lambda x, y: work.sum(at, x, y).total, X, Y) == pytest.approx(0.4, rel=1e-9)
    mean = nn.Linear(16, 3).double()

    def clipped_mean(x, y):
        """What clips the mean and not each example: the sum moves by up to the whole batch's clip."""
        g = torch.autograd.grad(F.cross_entropy(mean(x.flatten(1)), y), mean.weight)[0]
        return {"weight": len(x) * g * min(1.0, 0.4 / float(g.norm()))}

    assert sensitivity(clipped_mean, X, Y) > 0.5


@pytest.mark.parametrize("net", [network(), nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()])
@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e300])
def test_an_example_whose_gradient_is_not_finite_moves_nothing(net, bad):
    """It would make the whole sum NaN: the farthest that one example can move it."""
    work = PerExample(net, clip=0.4)
    x = torch.cat([X[:2], torch.full_like(X[:1], bad), X[2:]])
    found = work.sum(work.parameters(), x, torch.cat([Y[:2], Y[:1], Y[2:]]))
    fine = work.sum(work.parameters(), X, Y)
    gap = torch.cat([(found.total[name] - fine.total[name]).flatten() for name in fine.total]).norm()
    assert float(gap) <= 0.4 * (1 + 1e-9)


def no_signal(outputs, y):
    return (outputs * 0).sum(1)


def test_the_noise_is_normal_with_the_deviation_that_the_mechanism_names():
    seen = []
    trained = DPSGD(noise=1.7, clip=0.3, batch=10, epochs=20).fit(
        nn.Linear(100, 10), torch.randn(100, 100), torch.zeros(100, dtype=torch.int64), seed=3, loss=no_signal,
        observe=lambda step, sums: seen.append(torch.cat([v.flatten() for v in sums.values()])))
    noise = torch.cat(seen).double()
    assert len(seen) == trained.mechanism.steps == 200
    spread = float(noise.square().sum()) / (1.7 * 0.3) ** 2
    low, high = chi2.ppf([5e-4, 1 - 5e-4], len(noise))
    assert low < spread < high
    assert 0.98 < math.sqrt(spread / len(noise)) < 1.02
    assert kstest(noise[:20_000] / (1.7 * 0.3), "norm").pvalue > 1e-3


def test_each_example_is_sampled_by_itself_and_empty_batches_are_steps():
    """With no noise and a gradient of exactly one each, the sum counts the batch."""
    sizes = []
    n, q, steps = 40, 1 / 40, 400
    DPSGD(noise=0.0, clip=1.0, batch=1, epochs=10, rate=1e-9).fit(
        nn.Linear(1, 1, bias=False), torch.ones(n, 1), torch.zeros(n), seed=0, loss=lambda out, y: out[:, 0],
        observe=lambda step, sums: sizes.append(round(float(sums["weight"]))))
    assert len(sizes) == steps
    low, high = binom.ppf([5e-4, 1 - 5e-4], steps, (1 - q) ** n)
    assert low <= sizes.count(0) <= high
    assert 0.85 < sum(sizes) / steps < 1.15
    assert max(sizes) >= 3


def test_a_step_divides_by_the_expected_batch():
    """200 examples of gradient one, batch 50 sampled at 1/4: the first step is −rate · count / 50, whatever the count."""
    counts = []
    net = nn.Linear(1, 1, bias=False)
    start = float(net.weight.detach())
    trained = DPSGD(noise=0.0, clip=1.0, batch=50, epochs=0.25, rate=0.1).fit(
        net, torch.ones(200, 1), torch.zeros(200), seed=1, loss=lambda out, y: out[:, 0],
        observe=lambda step, sums: counts.append(float(sums["weight"])))
    assert counts[0] != 50
    assert float(trained.module.weight.detach()) == pytest.approx(start - 0.1 * counts[0] / 50, abs=1e-6)


def test_leaves_everything_as_it_was_and_a_seed_fixes_the_bytes():
    x, y = demo.digits("test[:200]")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 10)).eval()
    before, stream = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first, again, other = (DPSGD(batch=50, epochs=1).fit(net, x, y, seed=s).module for s in (5, 5, 6))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
    assert not torch.equal(first[1].weight, other[1].weight)


def test_frozen_parameters_stay_and_unused_ones_are_noised():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.spare = nn.Linear(64, 8), nn.Linear(8, 10), nn.Linear(3, 3)
            self.body.requires_grad_(False)

        def forward(self, x):
            return self.head(self.body(x.flatten(1)))

    x, y = demo.digits("test[:100]")
    net = Partly()
    trained = DPSGD(batch=50, epochs=1).fit(net, x, y, seed=0).module
    assert torch.equal(trained.body.weight, net.body.weight)
    assert not torch.equal(trained.head.weight, net.head.weight)
    assert not torch.equal(trained.spare.weight, net.spare.weight)


def test_a_canary_is_sampled_and_clipped_like_any_example():
    x, y = torch.zeros(100, 1), torch.zeros(100)
    sums = []
    DPSGD(noise=0.0, clip=0.5, batch=25, epochs=100, rate=1e-9).fit(
        nn.Linear(1, 1, bias=False), x, y, seed=0, loss=lambda out, y: out[:, 0],
        canary=lambda step, at: {"weight": torch.full((1, 1), 7.0)},
        observe=lambda step, released: sums.append(float(released["weight"])))
    assert set(sums) == {0.0, 0.5}
    low, high = binom.ppf([5e-4, 1 - 5e-4], 400, 0.25)
    assert low <= sums.count(0.5) <= high


def test_learns_the_digits_within_a_budget_from_a_procedure():
    """Without noise 95 % of the test digits; with epsilon = 3, 92.0 to 93.8 % in five seeds."""
    (x, y), (test_x, test_y) = demo.digits("train"), demo.digits("test")
    training = DPSGD(clip=0.5, batch=256, epochs=20, rate=2.0, average=0.9, guard=True).calibrated(
        epsilon=3, delta=1e-4, n=len(x))

    class Data:
        pass

    data = Data()
    data.x, data.y = x.numpy(), y.numpy()
    fit = training.procedure(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    right = [float((fit(data, seed)(test_x).argmax(1) == test_y).float().mean()) for seed in range(5)]
    assert min(right) > 0.91


def test_procedures_that_start_elsewhere_are_other_procedures():
    def narrow():
        return nn.Linear(64, 10)

    def wide():
        return nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 10))

    training = DPSGD(batch=10)
    assert repr(training.procedure(narrow)) == repr(training.procedure(narrow)) != repr(training.procedure(wide))
    assert training.procedure(narrow).mechanism(500) == training.mechanism(500)


@pytest.mark.parametrize("net", [
    nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)),
    nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), nn.Linear(64, 10)),
])
def test_refuses_statistics_of_the_batch(net):
    with pytest.raises(ConfigError, match="PRV205"):
        DPSGD(batch=10).fit(net, *demo.digits("test[:20]"), seed=0)


def test_refuses_examples_that_see_each_other():
    class Centered(nn.Linear):
        def forward(self, x):
            x = x.flatten(1)
            return super().forward(x - x.mean(0))

    with pytest.raises(ConfigError, match="PRV205"):
        DPSGD(batch=10).fit(Centered(64, 10), *demo.digits("test[:20]"), seed=0)


def test_refuses_what_cannot_be_trained():
    x, y = demo.digits("test[:20]")
    with pytest.raises(ConfigError, match="PRV206"):
        DPSGD(batch=10).fit(nn.Linear(64, 10).requires_grad_(False), x.flatten(1), y, seed=0)
    with pytest.raises(ConfigError, match="PRV208"):
        DPSGD(batch=21).fit(nn.Linear(64, 10), x.flatten(1), y, seed=0)


def test_the_guard_stops_a_gradient_that_is_not_clipped(monkeypatch):
    monkeypatch.setattr(PerExample, "_share", lambda self, norms: torch.ones_like(norms))
    x, y = demo.digits("test[:100]")
    with pytest.raises(TrustError, match="PRV207"):
        DPSGD(batch=50, clip=0.01, guard=True).fit(nn.Linear(64, 10), x.flatten(1), y, seed=0)
