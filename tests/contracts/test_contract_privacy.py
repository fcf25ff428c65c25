"""Every membership attack of the catalog keeps to the contract, and so does every private trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay import catalog, demo, evasion, privacy
from assay.contract import convolutional
from assay.testing import check_defense, check_inference

CHEAP = {
    "privacy.label-only": {"boundary": evasion.HopSkipJump(queries=60), "budget": evasion.L2(float("inf"))},
}
ATTACKS = [card for card in catalog.listed(kind="attack", wing="privacy") if card.game == "privacy.membership"]
TRAINERS = {
    "DPSGD": privacy.DPSGD(noise=1.0, batch=32, epochs=1),
    "DPFTRL": privacy.DPFTRL(noise=4.0, batch=32, epochs=1),
}


@pytest.mark.parametrize("card", ATTACKS, ids=lambda card: card.name)
def test_membership_attacks_keep_to_the_contract(card):
    check_inference(catalog.load(card)(**CHEAP.get(card.name, {})))


@pytest.mark.parametrize("card", list(catalog.listed(wing="privacy")), ids=lambda card: card.name)
def test_every_row_says_what_its_class_says(card):
    cls = catalog.load(card)
    assert cls.__module__.startswith("assay.privacy.")
    if card.kind == "attack" and hasattr(cls, "needs"):
        assert card.needs == str(cls.needs)
    if card.kind == "game":
        assert cls.name == card.name
        assert {"planned", "budget_named", "rounds", "replay", "play", "prove"} <= set(dir(cls))


@pytest.mark.parametrize("defense", [
    privacy.RoundScores(), privacy.SoftScores(), privacy.TopK(k=2), privacy.QuantizeWeights(bits=8),
    privacy.RandomizeLowBits(), privacy.WeightNoise(),
], ids=lambda defense: type(defense).__name__)
def test_what_goes_around_a_model_keeps_to_the_contract(defense):
    setting = convolutional()
    setting.module.eval()
    check_defense(defense, setting.target, setting.x)


class _Peeks:
    """Breaks the contract: the scores depend on numpy's global generator."""

    needs = privacy.LiRA.needs

    def infer(self, sight, rng):
        return np.random.rand(*sight.signals.shape[:2])


class _Writes:
    """Breaks the contract: it writes into what it was given."""

    needs = privacy.LiRA.needs

    def infer(self, sight, rng):
        sight.signals[0, 0] += 1
        return sight.signals[..., 0].copy()


class _Short:
    """Breaks the contract: one score is missing."""

    needs = privacy.LiRA.needs

    def infer(self, sight, rng):
        return sight.signals[:, 1:, 0]


@pytest.mark.parametrize("broken", [_Peeks(), _Writes(), _Short()], ids=lambda b: type(b).__name__)
def test_what_breaks_the_contract_is_found(broken):
    with pytest.raises(AssertionError):
        check_inference(broken)


@pytest.mark.parametrize("name", TRAINERS)
def test_private_trainers_keep_to_the_contract(name):
    """Same seed same bytes, another seed others; the module, the data and the generator stay; the bound is finite."""
    x, y = demo.digits("train[:200]")
    module, before = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.random.get_rng_state()
    kept = [p.detach().clone() for p in module.parameters()]
    first, same, other = (TRAINERS[name].fit(module, x, y, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), kept))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [torch.cat([p.flatten() for p in run.module.parameters()]) for run in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    bound = first.bound(delta=1e-5)
    assert (bound.quantity, bound.side) == ("epsilon@delta=1e-05", "at most")
    assert 0 < bound.value < 100
