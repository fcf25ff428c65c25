"""The order of membership attacks on real images, as Carlini et al. (S&P 2022, table II) found it."""

from __future__ import annotations

import pytest
from torch import nn

import assay
from assay import data, privacy
from assay.evidence.record import Evidence

pytestmark = pytest.mark.slow
ONLINE, OFFLINE, GLOBAL = privacy.LiRA(shadows=32), privacy.LiRA(mode="offline", shadows=32), privacy.LossThreshold()


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def rates(zoo, **settings):
    """TPR at 1 % FPR of each attack, on Fashion-MNIST."""
    pool = data.load(f"mnist:{zoo.ASSETS / 'datasets' / 'fashion_mnist'}#train[:2000]")
    target = assay.targets.training(privacy.Recipe(init=perceptron, epochs=30, batch=64, rate=0.05), pool)
    game = privacy.MembershipGame(targets=4, **settings)
    events = game.rounds([ONLINE, OFFLINE, GLOBAL], [], target, seed=0)
    found = [event for event in events if isinstance(event, Evidence)]
    kept = [e.artefacts["scores"].arrays for e in found]
    return [privacy.Scores(k["values"], k["members"].astype(bool)).tpr(fpr=0.01).tpr for k in kept]


def test_online_beats_offline_beats_one_threshold_at_a_low_rate(zoo):
    online, offline, threshold = rates(zoo)
    assert online.lower > offline.estimate
    assert offline.lower > threshold.upper
    assert threshold.estimate < 0.02  # chance is 0.01, and the published global threshold is chance too


def test_mislabeled_canaries_are_far_easier_to_find(zoo):
    natural, planted = rates(zoo)[0], rates(zoo, canaries=privacy.Mislabeled(500))[0]
    assert planted.lower > 3 * natural.upper
    assert planted.estimate > 0.5
