"""Sampled Gaussian steps against two accountants, and their trade-off curve against the likelihood ratio itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from assay.privacy.accounting.gaussian import epsilon_of_gaussian
from assay.privacy.auditing.counts import Counts, Exact, PerStep
from assay.privacy.auditing.steps import Steps


@pytest.mark.parametrize(("rate", "noise", "count", "above", "gap"), [
    (0.01, 4.0, 1000, 0.272173, 0.004),
    (0.1, 1.0, 20, 3.590745, 0.001),
    (0.5, 3.0, 20, 3.399724, 0.001),
    (0.02, 1.0, 500, 2.773451, 0.006),
    (0.5, 0.5, 10, 31.374468, 0.001),
    (0.01, 0.3, 5, 12.919450, 0.002),
    (256 / 60_000, 1.1, 14_062, 2.381686, 0.02),
])
def test_a_run_of_steps_lies_just_below_an_accountants_bound(rate, noise, count, above, gap):
    """δ = 1e-5. The bounds are dp-accounting 0.6.0's (its PLD, grid 1e-4), which are from above; ours is from below."""
    found = Steps(rate=rate, count=count).epsilon(noise, 1e-5)
    assert (1 - gap) * above <= found <= above


def test_without_subsampling_a_run_is_one_gaussian():
    assert Steps(rate=1.0, count=20).epsilon(5.0, 1e-5) == pytest.approx(epsilon_of_gaussian(math.sqrt(20) / 5, 1e-5), rel=1e-12)
    nearly = Steps(rate=0.999999, count=20).epsilon(5.0, 1e-5)
    assert nearly == pytest.approx(epsilon_of_gaussian(math.sqrt(20) / 5, 1e-5), rel=1e-3)


def test_the_noise_that_a_claim_allows():
    steps = Steps(rate=0.1, count=20)
    assert steps.epsilon(steps.noise_for(3.58, 1e-5), 1e-5) == pytest.approx(3.58, rel=1e-3)
    full = Steps(rate=1.0, count=20)
    assert full.epsilon(full.noise_for(3.58, 1e-5), 1e-5) == pytest.approx(3.58, rel=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_trade_off_curve_is_that_of_the_best_test(rate):
    noise = 0.8
    for at in np.linspace(-1, 2, 7):
        false = norm.sf(at / noise)
        missed = (1 - rate) * norm.cdf(at / noise) + rate * norm.cdf((at - 1) / noise)
        assert float(Steps(rate=rate, count=1).leak(missed, false)) == pytest.approx(1 / noise, rel=1e-9)


def test_a_handful_of_runs_suffice_where_every_step_is_a_guess():
    """10 runs of either kind, 100 sampled steps each: 10.4 of the true 27.5 in the median, where runs show 0.9 at most."""
    steps, noise = Steps(rate=0.25, count=100), 0.8
    truth, found = steps.epsilon(noise, 1e-5), []
    for seed in range(40):
        rng = np.random.default_rng((7, seed))
        inside = (rng.random(1000) < steps.rate) + noise * rng.normal(size=1000)
        outside = noise * rng.normal(size=1000)
        counts = Counts(int((inside > 1.2).sum()), int((outside > 1.2).sum()), 1000, 1000)
        found.append(PerStep(steps).epsilon(counts, delta=1e-5, error=0.05))
    assert np.median(found) >= 8 * Exact().epsilon(Exact().best(10, 10), delta=1e-5, error=0.05)
    assert sum(one > truth for one in found) <= 40 * 0.05 + 3 * math.sqrt(40 * 0.05 * 0.95)


def test_a_plain_gaussian_curve_would_be_wrong_under_subsampling():
    """Why the curve of the sampled Gaussian: read by a plain one, the true rates of a step show more than there is."""
    sampled, plain, noise, at = Steps(rate=0.25, count=100), Steps(rate=1.0, count=100), 0.8, 1.2
    false = norm.sf(at / noise)
    missed = 0.75 * norm.cdf(at / noise) + 0.25 * norm.cdf((at - 1) / noise)
    right, wrong = (steps.epsilon(1 / float(steps.leak(missed, false)), 1e-5) for steps in (sampled, plain))
    assert right == pytest.approx(sampled.epsilon(noise, 1e-5), rel=1e-6)
    assert wrong > 1.05 * right
