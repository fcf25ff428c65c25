"""Adversarial training: robust accuracy far above the undefended model's, at a small price in clean accuracy."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from assay import demo, evasion, targets
from assay.errors import ConfigError
from assay.evasion.threat import Linf
from assay.games import Progress
from assay.numerics.seeds import Stream
from assay.targets.base import Bounds
from assay.targets.pytorch import TorchTarget


@cache
def hardened() -> nn.Module:
    return evasion.AdversarialTraining(budget=Linf(0.15)).fit(demo.network(), *demo.digits("train"), seed=0)


def accuracies(net: TorchTarget, radius: float) -> tuple[float, float]:
    x, y = demo.digits("test[:300]")
    found = evasion.EvasionGame(x, y, threat=Linf(radius).threat()).play(evasion.APGD(steps=50), net, seed=0)
    return found["clean accuracy"].estimate, found["robust accuracy"].estimate


@pytest.mark.parametrize(("radius", "undefended", "defended"), [(0.1, 0.5, 0.8), (0.15, 0.15, 0.62)])
def test_it_hardens_the_demo(radius: float, undefended: float, defended: float) -> None:
    assert accuracies(demo.target(), radius)[1] < undefended
    clean, robust = accuracies(targets.torch(hardened()), radius)
    assert clean >= 0.93
    assert robust > defended


def test_the_model_and_the_global_random_state_stay_as_they_were() -> None:
    x, y = demo.digits("train[:200]")
    model = demo.network().requires_grad_(False)
    weights = [p.clone() for p in model.parameters()]
    mode, before = model.training, torch.random.get_rng_state()
    tensors = x.clone(), y.clone()
    copy = evasion.AdversarialTraining(budget=Linf(0.1), epochs=2).fit(model, x, y, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(p, w) and p.grad is None and not p.requires_grad for p, w in zip(model.parameters(), weights))
    assert model.training == mode
    assert not copy.training
    assert torch.equal(x, tensors[0])
    assert torch.equal(y, tensors[1])


def test_the_same_seed_gives_the_same_weights_also_with_dropout() -> None:
    x, y = demo.digits("train[:200]")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.3), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    defense = evasion.AdversarialTraining(budget=Linf(0.1), epochs=2)
    first, second, other = (
        torch.cat([p.detach().flatten() for p in defense.fit(model, x, y, seed=seed).parameters()]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("budget", [Linf(0.1), evasion.L2(0.5), evasion.L1(2.0)])
def test_what_it_learns_from_lies_in_the_budget_and_is_harder(budget: Linf) -> None:
    x, y = demo.digits("train[:100]")
    model = demo.target().model
    rng = Stream.seeded(0, torch.arange(100))
    z = evasion.AdversarialTraining(budget=budget).harden(model, x, y, budget, rng)
    assert bool(budget.contains(z, x, Bounds(0, 1)).all())
    losses = [nn.functional.cross_entropy(model(inputs), y).item() for inputs in (x, z)]
    assert losses[1] > 5 * losses[0]


def test_the_radius_warms_up_and_progress_is_told() -> None:
    x, y = demo.digits("train[:64]")
    *progress, model = evasion.AdversarialTraining(budget=Linf(0.2), epochs=5, warmup=0.4).rounds(demo.network(), x, y, seed=0)
    names = [p.method for p in progress if isinstance(p, Progress)]
    notes = [p.note.partition(",")[0] for p in progress if isinstance(p, Progress)]
    assert names == ["adversarial training"] * 5
    assert notes == ["linf 0.1"] + ["linf 0.2"] * 4
    assert isinstance(model, nn.Module)


def test_settings_that_train_nothing_are_refused() -> None:
    for bad in ({"epochs": 0}, {"attack_steps": 0}, {"warmup": 1.5}, {"batch": 0}):
        with pytest.raises(ConfigError, match="CFG134"):
            evasion.AdversarialTraining(budget=Linf(0.1), **bad)
