"""The membership game on procedures whose leakage is known: the coins are the game's, and so is the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import assay
from assay import demo, evasion, privacy
from assay.errors import ConfigError, DataError, TargetError
from assay.games import Settings, Words
from assay.targets import Access

CLASSES = 10
EXACT = "donot_use_mm_for_euclid_dist"


class Memory(nn.Module):
    """Answers with confidence to what it was trained on, and evenly to everything else."""

    def __init__(self, x: np.ndarray, margin: float) -> None:
        super().__init__()
        self.register_buffer("seen", torch.as_tensor(x).flatten(1))
        self.head = nn.Parameter(torch.tensor(float(margin)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = (torch.cdist(x.flatten(1), self.seen, compute_mode=EXACT) < 1e-6).any(1)
        scores = torch.zeros(len(x), CLASSES)
        scores[:, 0] = torch.where(known, self.head, torch.zeros(()))
        return scores


def remembers(data, seed):
    return Memory(data.x, 5.0)


def forgets(data, seed):
    return Memory(data.x[:1] + 9, 5.0)


def noisy(data, seed):
    """Members get a logit 2 higher, and every answer standard noise that depends on seed and example."""
    return _Noisy(data.x, seed)


class _Noisy(nn.Module):
    def __init__(self, x, seed):
        super().__init__()
        self.register_buffer("seen", torch.as_tensor(x).flatten(1))
        self.seed, self.weight = seed, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        known = (torch.cdist(x.flatten(1), self.seen, compute_mode=EXACT) < 1e-6).any(1)
        noise = torch.stack([torch.randn((), generator=torch.Generator().manual_seed(self.seed + int(1e4 * row.sum())))
                             for row in x.flatten(1).double()])
        return torch.stack([2 * known + noise, torch.zeros(len(x))], 1)


def pool(n=400, seed=0):
    return np.random.default_rng(seed).random((n, 4), dtype=np.float32), np.zeros(n, np.int64)


def recipe(epochs=40):
    return privacy.Recipe(init=network, epochs=epochs, batch=32, rate=0.1)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.fixture(scope="module")
def digits():
    x, y = demo.digits("train")
    return x[:600].numpy(), y[:600].numpy()


# --- the game --------------------------------------------------------------------------------------------------------


def test_a_model_that_remembers_is_seen_through_and_one_that_forgets_is_not():
    x, y = pool()
    found = {}
    for fit in (remembers, forgets):
        game = privacy.MembershipGame()
        found[fit] = game.play(privacy.LossThreshold(), assay.targets.training(fit, (x, y)), seed=0)
    open_, shut = found[remembers], found[forgets]
    assert open_["tpr@fpr=0.01"].estimate == 1
    assert open_["auc"].estimate == 1
    assert shut["auc"].estimate == 0.5
    assert shut["tpr@fpr=0.01"].estimate == 0
    # All 400 coins guessed right refute every claim below the ceiling of one run.
    assert open_["epsilon@delta=1e-5"].value == pytest.approx(3.69, abs=0.05)
    assert shut["epsilon@delta=1e-5"].value == 0


def test_lira_through_the_game_reaches_the_known_answer():
    x, y = pool(1500)
    game = privacy.MembershipGame(targets=2)
    found = game.play(privacy.LiRA(shadows=32), assay.targets.training(noisy, (x, y)), seed=1)
    assert found["auc"].estimate == pytest.approx(0.9214, abs=0.02)  # Φ(2/√2)


def test_the_coins_are_fair_and_belong_to_the_seed():
    x, y = pool(1000)
    train = assay.targets.training(forgets, (x, y))
    members = [privacy.MembershipGame().play(privacy.LossThreshold(), train, seed=s).artefacts["scores"]
               .arrays["members"] for s in (0, 0, 1)]
    np.testing.assert_array_equal(members[0], members[1])
    assert 0.35 < (members[0] == members[2]).mean() < 0.65
    assert 400 < members[0].sum() < 600


def test_everything_but_canaries_is_always_in():
    x, y = pool(200)
    seen = []

    def watch(data, seed):
        seen.append(len(data))
        return remembers(data, seed)

    game = privacy.MembershipGame(canaries=privacy.Mislabeled(50))
    with pytest.raises(DataError, match="PRV301"):  # one class leaves no wrong label
        privacy.Mislabeled(50).plant(torch.as_tensor(x), torch.as_tensor(y), classes=1, seed=0)
    found = game.play(privacy.LossThreshold(), assay.targets.training(watch, (x, np.arange(200) % 2)), seed=0)
    assert 150 < seen[0] < 200
    assert found["auc"].n == 50
    assert found.threat.budget == "mislabeled 50"


def test_a_procedure_that_fails_is_evidence_of_kind_not_run():
    def broken(data, seed):
        raise RuntimeError("out of memory")

    found = privacy.MembershipGame().play(privacy.LiRA(), assay.targets.training(broken, pool()), seed=0)
    assert found.kind == "not run"
    assert "out of memory" in found.error
    with pytest.raises(TargetError, match="TGT161"):
        assay.targets.training(lambda data: None, pool())
    found = privacy.MembershipGame().play(privacy.Gap(), assay.targets.training(lambda data, seed: None, pool()), seed=0)
    assert "TGT160" in found.error


def test_labels_alone_deny_scores_to_an_attack():
    train = assay.targets.training(remembers, pool())
    found = privacy.MembershipGame(threat=privacy.labels()).play(privacy.LiRA(shadows=2), train, seed=0)
    assert found.kind == "not run"
    assert "THR101" in found.error


def test_replay_trains_the_target_again():
    train = assay.targets.training(noisy, pool(100))
    game = privacy.MembershipGame()
    found = game.play(privacy.LossThreshold(), train, seed=3)
    assert game.replay(found, train) == (100, 100, "")
    other = assay.targets.training(forgets, pool(100))
    assert game.replay(found, other).held < 100
    moved = assay.targets.training(noisy, pool(100, seed=1))
    assert "data" in game.replay(found, moved).why


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Sees how many models it got."""

    needs: ClassVar[Access] = Access.SCORES
    shadows: int = 6

    def infer(self, sight, rng):
        assert len(sight.models) == self.shadows
        assert (sight.models.keep.sum(0) == self.shadows // 2).all()
        return sight.signals[..., 0]


def test_models_are_kept_and_recalled():
    trained, kept = [], {}

    class Book:
        def recall(self, trial, part):
            return kept.get((trial, part))

        def keep(self, trial, part, arrays):
            kept[trial, part] = arrays

    def watch(data, seed):
        trained.append(seed)
        return remembers(data, seed)

    train = assay.targets.training(watch, pool(50))
    first = privacy.MembershipGame().play(Counting(), train, seed=0, memory=Book())
    assert (first.kind, len(trained)) == ("played", 7)
    again = privacy.MembershipGame().play(Counting(), train, seed=0, memory=Book())
    assert len(trained) == 8, "only the target is trained again"
    assert again.trial == first.trial
    assert [b.estimate for b in again.bounds] == [b.estimate for b in first.bounds]


def test_a_plan_names_whom_it_asks_about():
    data = assay.targets.training(remembers, pool()).data
    game = privacy.MembershipGame.planned(data, Words(budget="Mislabeled 20", access="labels"), Settings())
    assert (str(game.threat.budget), game.threat.access) == ("mislabeled 20", Access.LABELS)
    for text in ("mislabelled 20", "mislabeled", "mislabeled many", "linf 0.3"):
        with pytest.raises(ConfigError, match="PRV112"):
            privacy.MembershipGame.budget_named(text)


def test_poison_is_in_every_model_and_makes_targets_show(digits):
    train = assay.targets.training(recipe(40), digits)
    plain = privacy.MembershipGame(canaries=privacy.Natural(50), targets=2)
    poisoned = privacy.MembershipGame(canaries=privacy.Natural(50), targets=2, poison=privacy.TruthSerum())
    before, after = (game.play(privacy.LiRA(shadows=8), train, seed=0) for game in (plain, poisoned))
    assert after["auc"].estimate > max(0.95, before["auc"].estimate + 0.2)
    assert after.threat.budget == "natural 50, poisoned by TruthSerum()"
    assert before.threat.budget == "natural 50"


# --- label-only ------------------------------------------------------------------------------------------------------


def linear(data, seed):
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]))
        model.bias.copy_(torch.tensor([-2.0, 0.0]))
    return model


def test_label_only_orders_examples_by_their_distance_to_the_boundary():
    x, _ = pool(60)
    side = x.sum(1) - 2
    y = np.where(side > 0, 0, 1).astype(np.int64)
    y[:5] = 1 - y[:5]  # wrong ones have no distance
    attack = privacy.LabelOnly(boundary=evasion.HopSkipJump(queries=1000), budget=evasion.L2(float("inf")))
    train = assay.targets.training(linear, (x, y))
    found = privacy.MembershipGame(threat=privacy.labels()).play(attack, train, seed=0)
    assert found.kind == "played", found.error
    distances = found.artefacts["scores"].arrays["values"][0]
    assert (distances[:5] == 0).all()
    assert spearmanr(distances[5:], np.abs(side[5:])).statistic > 0.95
    assert 60 * 300 < found.cost.queries <= 60 * 1001


def test_the_gap_attack_is_half_the_gap():
    x, y = pool(2000)

    class Half(nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.memory = Memory(seen, 5.0)

        def forward(self, x):
            scores = self.memory(x)
            scores[:, 1] = torch.where(x[:, 0] > 0.5, 1.0, -1.0)  # half of the others are wrong
            return scores

    train = assay.targets.training(lambda data, seed: Half(data.x), (x, y))
    found = privacy.MembershipGame(threat=privacy.labels()).play(privacy.Gap(), train, seed=0)
    kept = found.artefacts["scores"].arrays
    scores = privacy.Scores(kept["values"], kept["members"].astype(bool))
    assert scores.balanced_accuracy() == pytest.approx(0.75, abs=0.02)


# --- private training ------------------------------------------------------------------------------------------------


def test_the_bracket_of_private_training(digits):
    """DP-SGD at ε ≤ 1: mislabeled digits that a plain recipe gives away stay hidden, and the accountant says so."""
    game = privacy.MembershipGame(canaries=privacy.Mislabeled(150))
    bare = assay.targets.training(recipe(), digits)
    safe = privacy.DPSGD(noise=3.5, batch=64, epochs=5, rate=0.3).train(bare)
    attack = privacy.LiRA(shadows=4)
    plain, private = (game.play(attack, train, seed=0) for train in (bare, safe))
    proof = game.prove(privacy.Accountant(), safe, seed=0)
    assert plain["auc"].estimate > 0.9
    assert private["auc"].estimate < 0.65
    assert plain["epsilon@delta=1e-5"].value > proof["epsilon@delta=1e-5"].value
    assert private["epsilon@delta=1e-5"].value <= proof["epsilon@delta=1e-5"].value < 1
    assert "PRV313" in game.prove(privacy.Accountant(), bare, seed=0).error
    judged = assay.Claim.parse("epsilon@delta=0.00001 <= 1").judge([private, proof])
    assert judged.verdict == "proven"
