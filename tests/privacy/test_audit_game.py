"""Claimed, proved and demonstrated ε side by side, and the contradiction where they cross."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from assay import demo, privacy, targets
from assay.errors import ConfigError
from assay.evidence.claim import Claim
from assay.evidence.contradiction import with_contradictions
from assay.evidence.record import Evidence
from assay.games import Settings, Words
from assay.privacy.games.auditing import AuditGame, Promise


@dataclass(frozen=True, kw_only=True)
class ClassSums:
    """A sum of clipped examples a class, with Gaussian noise: one release, whose sensitivity is 1 (add or remove).

    Attributes:
        noise: what is added.
        told: what the accountant is told of it.
    """

    noise: float
    told: float

    def __call__(self, data, seed):
        rows = torch.as_tensor(data.x).flatten(1)
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1.0)
        total = torch.zeros(10, rows.shape[1]).index_add_(0, torch.as_tensor(data.y), rows)
        total = total + self.noise * torch.randn(total.shape, generator=torch.Generator().manual_seed(seed))
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)).requires_grad_(False)
        model[1].weight.copy_(total)
        return model

    def mechanism(self, n):
        return privacy.Gaussian(mu=1 / self.told)


def training(noise: float, told: float) -> targets.Training:
    return targets.training(ClassSums(noise=noise, told=told), demo.digits("train[:60]"))


MISLABELED = privacy.StaticInput(canary=privacy.Mislabeled())


def bracket(noise: float, told: float):
    game = AuditGame((1.0, 1e-5), runs=400)
    found = [one for one in game.rounds([MISLABELED], [privacy.Accountant()], training(noise, told), seed=0) if isinstance(one, Evidence)]
    return with_contradictions(found)


def test_a_wrong_accountant_is_contradicted():
    attack, proof = bracket(noise=0.05, told=4.0)
    assert (attack.kind, proof.kind) == ("played", "proved")
    assert (attack.bounds[0].quantity, attack.bounds[0].side) == ("epsilon@delta=1e-05", "at least")
    assert (proof.bounds[0].quantity, proof.bounds[0].side) == ("epsilon@delta=1e-05", "at most")
    assert proof.bounds[0].value < 1.0 < 3.7 < attack.bounds[0].value
    assert [doubt.code for doubt in attack.doubts] == ["PRV331", "DBT120"]
    assert [doubt.code for doubt in proof.doubts] == ["DBT120"]
    assert "shows epsilon@delta=1e-05 at least" in proof.doubts[0].text


def test_a_right_accountant_is_not():
    attack, proof = bracket(noise=1.0, told=1.0)
    assert proof.bounds[0].value == pytest.approx(4.377, abs=1e-2)
    assert attack.bounds[0].value <= proof.bounds[0].value
    assert not any(doubt.code == "DBT120" for one in (attack, proof) for doubt in one.doubts)


def test_the_claim_is_judged():
    game = AuditGame((1.0, 1e-5), runs=400)
    found = game.play(MISLABELED, training(0.05, 4.0), seed=0)
    assert Claim.parse("epsilon@delta=1e-05 <= 1").judge([found]).verdict == "broken"
    assert game.replay(found, training(0.05, 4.0)) == (1, 1, "")
    assert found.threat.budget == "epsilon 1 delta 1e-05"
    curve = AuditGame((1.0, 1e-5), runs=100, method=privacy.GaussianCurve()).play(MISLABELED, training(0.5, 4.0), seed=0)
    assert game.replay(curve, training(0.5, 4.0)).held == 1
    wrong = replace(curve, bounds=(replace(curve.bounds[0], value=9.0),))
    assert game.replay(wrong, training(0.5, 4.0)).held == 0
    again = game.play(MISLABELED, training(0.05, 4.0), seed=0)
    assert (again.bounds, again.trial) == (found.bounds, found.trial)


def test_a_blind_audit_does_not_let_the_claim_stand():
    game = AuditGame((8.0, 1e-5), runs=100)
    found = game.play(MISLABELED, training(1.0, 1.0), seed=0)
    assert [doubt.code for doubt in found.doubts] == ["PRV330"]
    assert Claim.parse("epsilon@delta=1e-05 <= 8").judge([found]).verdict == "undecided"


def test_what_could_not_run_is_not_run():
    found = [one for one in AuditGame((1.0, 1e-5), runs=100).rounds(
        [privacy.MaliciousData()], [privacy.Accountant()],
        targets.training(lambda data, seed: nn.Linear(1, 1), demo.digits("train[:60]")), seed=0) if isinstance(one, Evidence)]
    assert [one.kind for one in found] == ["not run", "not run"]
    assert "PRV321" in found[0].error
    assert "PRV313" in found[1].error


def test_a_plan_names_the_promise():
    game = AuditGame.planned(training(1.0, 1.0).data, Words(budget="epsilon 3 delta 1e-5"), Settings())
    assert game.claim == (3.0, 1e-5)
    assert AuditGame.budget_named("Epsilon 3 delta 0.00001") == "epsilon 3 delta 1e-05"
    assert Promise.parse(str(Promise(0.21, 1e-6))) == Promise(0.21, 1e-6)
    for text in ("epsilon 3", "3", "epsilon x delta 1e-5", ""):
        with pytest.raises(ConfigError, match="PRV312"):
            Promise.parse(text)
    with pytest.raises(ConfigError, match="PRV310"):
        Promise.parse("epsilon 3 delta 2")


# --- DP-SGD from within ------------------------------------------------------------------------------------------------


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def private(**changes: float) -> targets.Training:
    trainer = privacy.DPSGD(**{"noise": 3.0, "clip": 1.0, "batch": 40, "epochs": 9, "rate": 0.5, "momentum": 0.5, **changes})
    return targets.training(trainer.procedure(linear), demo.digits("train[:40]"))


@pytest.mark.slow
@pytest.mark.parametrize("attack", [privacy.GradientCanary(), privacy.MaliciousData()], ids=lambda one: type(one).__name__)
def test_dpsgd_is_bracketed(attack):
    """Nine full-batch steps with noise 3 are one Gaussian with μ = 1: 4.377 proved, more than 2 demonstrated."""
    game = AuditGame((4.377, 1e-5), runs=400, method=privacy.GaussianCurve())
    shown, proof = with_contradictions([game.play(attack, private(), seed=0), game.prove(privacy.Accountant(), private(), seed=0)])
    assert proof.bounds[0].value == pytest.approx(4.377, abs=2e-3)
    assert 2.0 < shown.bounds[0].value <= proof.bounds[0].value
    assert not shown.doubts


@pytest.mark.slow
@pytest.mark.parametrize("attack", [privacy.StaticInput(canary=privacy.Mislabeled()), privacy.IntermediateModels(canary=privacy.Blank())],
                         ids=lambda one: type(one).__name__)
def test_dpsgd_is_not_refuted_by_examples_either(attack):
    found = AuditGame((4.377, 1e-5), runs=300).play(attack, private(batch=20, epochs=4), seed=0)
    assert found.kind == "played"
    assert not any(doubt.code == "PRV331" for doubt in found.doubts)


@pytest.mark.slow
def test_a_claim_for_more_noise_than_there_is_is_refuted_from_within():
    """Noise 1 where 3 is claimed: μ = 3 instead of 1."""
    found = AuditGame((4.377, 1e-5), runs=400, method=privacy.GaussianCurve()).play(privacy.MaliciousData(), private(noise=1.0), seed=0)
    assert [doubt.code for doubt in found.doubts] == ["PRV331"]
    assert found.bounds[0].value < 17.2  # the true ε
