"""Measures that prove nothing, under an adversary whose shadow models take the same measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import assay
from assay import demo, privacy
from assay.errors import ConfigError
from assay.testing import check_target


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def training():
    x, y = demo.digits("train")
    recipe = privacy.Recipe(init=network, epochs=40, batch=32, rate=0.1)
    return assay.targets.training(recipe, (x[:500].numpy(), y[:500].numpy()))


def auc(train, *, canaries=100, knows=("defense",), shadows=6, targets=2):
    planted = privacy.Mislabeled(canaries) if canaries else None
    game = privacy.MembershipGame(canaries=planted, targets=targets, threat=privacy.scores(knows=knows))
    found = game.play(privacy.LiRA(shadows=shadows), train, seed=0)
    assert found.kind == "played", found.error
    return found["auc"].estimate


@pytest.fixture(scope="module")
def bare(training):
    return auc(training)


@pytest.mark.parametrize(("defense", "kept"), [
    (privacy.RoundScores(decimals=3), 0.8), (privacy.SoftScores(temperature=20), 0.95), (privacy.TopK(k=1), 0.5),
    (privacy.TopK(k=3), 0.8),
])
def test_an_adversary_who_knows_keeps_most_of_the_advantage(training, bare, defense, kept):
    assert bare > 0.85
    assert auc(defense.train(training)) - 0.5 > kept * (bare - 0.5)


def test_softer_scores_are_undone_by_shadows_as_soft(training, bare):
    assert auc(privacy.SoftScores(temperature=20).train(training)) == pytest.approx(bare, abs=0.02)


def test_who_does_not_know_of_soft_scores_is_misled(training):
    defended = privacy.SoftScores(temperature=20).train(training)
    assert auc(defended, knows=()) < auc(defended) - 0.05


def test_fewer_epochs_leak_less_of_natural_examples_on_average(training):
    long, short = auc(training, canaries=0), auc(privacy.EarlyStopping(epochs=5).train(training), canaries=0)
    assert short < long - 0.05


def test_stopping_needs_epochs():
    train = assay.targets.training(lambda data, seed: network(), (np.zeros((4, 64)), np.zeros(4, int)))
    with pytest.raises(ConfigError, match="PRV121"):
        privacy.EarlyStopping(epochs=1).train(train)


def test_a_student_leaks_less_but_much_and_is_as_good(training, bare):
    x, y = demo.digits("train")
    public = privacy.Distillation(public=x[500:].numpy())
    taught = public.train(training)
    assert 0.6 < auc(taught) < bare - 0.05  # less, and still much: students parrot their teachers
    tx, ty = demo.digits("test")
    student = taught.train(training.data, 0)
    rest = assay.targets.training(training.fit, (x[500:].numpy(), y[500:].numpy()))
    own = rest.train(rest.data, 1)
    good = [float((model.labels(tx) == ty).float().mean()) for model in (student, own)]
    assert good[0] > good[1] - 0.03


def test_defended_targets_keep_to_the_contract(training):
    target = training.train(training.data, 0)
    x = torch.as_tensor(training.data.x[:16])
    for defense in (privacy.RoundScores(decimals=1), privacy.SoftScores(), privacy.TopK(k=2)):
        safe = defense.protect(target)
        check_target(safe, x)
        assert (safe.labels(x) == target.labels(x)).float().mean() > 0.9  # probabilities that are rounded may tie
        assert safe.fingerprint() != target.fingerprint()


@pytest.mark.parametrize("make", [lambda: privacy.RoundScores(decimals=-1), lambda: privacy.TopK(k=0),
                                  lambda: privacy.SoftScores(temperature=0)])
def test_settings_that_make_no_sense(make):
    with pytest.raises(ConfigError, match="PRV120"):
        make()
