"""Every planted bug is refuted by one and the same default audit; the correct training is not."""

from __future__ import annotations

import pytest

from assay import demo, privacy

BUGS = ["noise-over-batch", "mean-clipped", "same-noise", "bias-unclipped", "private-statistics", "wrong-rate"]


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_refuted(zoo, digits, bug):
    """The claim is ε = 3.1 (0.26 with the wrong rate) at δ = 1e-5; 1600 of 2000 runs judged, and 2200 pilots: 10 s."""
    training = zoo.zoo()[bug]
    assert list(zoo.BUGS) == BUGS
    found = privacy.audit(training, data=digits, claim=training.claim, runs=2000)
    assert found.refuted
    assert found.p_value < 0.01
    assert found.epsilon <= found.ceiling
    if bug != "wrong-rate":
        assert found.epsilon > 4.3
        assert found.p_value < 1e-6


@pytest.mark.slow
def test_the_correct_training_is_not_refuted_in_20_seeds(zoo):
    data = demo.digits("train[:60]")
    training = zoo.Logistic(steps=10, noise=4.0)
    found = [privacy.audit(training, data=data, claim=training.claim, runs=600, seed=seed) for seed in range(20)]
    assert not any(one.refuted for one in found)
    assert not any(one.blind for one in found)


@pytest.mark.slow
def test_nor_with_sampled_batches(zoo, digits):
    training = zoo.Logistic(rate=0.3, noise=2.0)
    found = [privacy.audit(training, data=digits, claim=training.claim, seed=seed) for seed in range(5)]
    assert not any(one.refuted for one in found)


def test_far_too_little_noise_is_refuted_by_the_finished_model_alone(zoo, digits):
    training = zoo.zoo()["noise-over-batch"]
    found = privacy.audit(training, data=digits, claim=training.claim, runs=400, adversary=privacy.StaticInput())
    assert found.refuted
    assert found.epsilon == pytest.approx(found.ceiling)


@pytest.mark.slow
def test_private_statistics_are_refuted_by_the_finished_model_alone(zoo, digits):
    training = zoo.zoo()["private-statistics"]
    found = privacy.audit(training, data=digits, claim=training.claim, runs=2000, adversary=privacy.StaticInput())
    assert found.refuted


def test_repeated_noise_shows_in_the_steps_only(zoo, digits):
    """The finished model has more noise than was promised; its way there has none."""
    training = zoo.zoo()["same-noise"]
    final = privacy.audit(training, data=digits, claim=training.claim, runs=400, adversary=privacy.StaticInput())
    steps = privacy.audit(training, data=digits, claim=training.claim, runs=400, adversary=privacy.GradientCanary())
    assert not final.refuted
    assert steps.refuted
    assert steps.epsilon == pytest.approx(steps.ceiling)
