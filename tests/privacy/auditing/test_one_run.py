"""The one-run p-value against published values, a naive reference, and guessers that do the best a claim allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from assay.privacy.accounting.gaussian import epsilon_of_gaussian
from assay.privacy.auditing.one_run import (
    Guesses,
    gaussian_one_run_epsilon,
    gaussian_one_run_p_value,
    one_run_epsilon,
    one_run_p_value,
)


@pytest.mark.parametrize(("guesses", "delta", "epsilon"), [
    ((1000, 1000, 500), 1e-5, 0.0),
    ((1000, 1000, 750), 1e-5, 0.976),
    ((1000, 100, 100), 1e-5, 3.465),
    ((1000, 100, 95), 1e-5, 2.165),
    ((5000, 5000, 3000), 1e-5, 0.357),
    ((1000, 1000, 1000), 1e-5, 5.782),
    ((100, 100, 100), 0.0, 3.493),
])
def test_reference_values(guesses, delta, epsilon):
    """Computed with the authors' published code (Steinke, Nasr & Jagielski, NeurIPS 2023, Appendix D)."""
    assert one_run_epsilon(Guesses(*guesses), delta=delta, confidence=0.95) == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("guesses", "parts", "epsilon", "estimate"), [
    ((20_000, 3376, 2807), 386, 1.13346, one_run_epsilon),
    ((20_000, 4666, 4499), 374, 2.311945, one_run_epsilon),
    ((20_000, 8233, 8223), 140, 4.395568, one_run_epsilon),
    ((20_000, 406, 379), 386, 2.164749, gaussian_one_run_epsilon),
    ((20_000, 938, 934), 374, 4.7218075, gaussian_one_run_epsilon),
    ((20_000, 5436, 5436), 140, 9.133752, gaussian_one_run_epsilon),
])
def test_a_peers_published_values(guesses, parts, epsilon, estimate):
    """google-deepmind/jax_privacy, auditing_test.py: 10,000 normal scores of either kind, 1, 2 and 4 apart, δ = 1e-6.

    The counts are those of the threshold that its search ends at, and the error is divided by as many thresholds as
    it looks at: those on the convex hull of the ROC curve.
    """
    found = estimate(Guesses(*guesses), delta=1e-6, confidence=1 - 0.05 / parts)
    assert found == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize(("m", "made", "right"), [(10, 10, 9), (100, 10, 10), (100, 100, 60), (1000, 100, 90), (1000, 1, 0)])
def test_all_shifts_at_once_are_the_shifts_one_by_one(m, made, right, delta):
    for epsilon in (0.0, 0.5, 2.0):
        q = float(expit(epsilon))
        total, alpha = 0.0, 0.0
        for i in range(1, right + 1):
            total += float(binom.pmf(right - i, made, q))
            alpha = max(alpha, total / i)
        expected = min(1.0, float(binom.sf(right - 1, made, q)) + 2 * m * delta * alpha)
        assert one_run_p_value(Guesses(m, made, right), epsilon=epsilon, delta=delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_randomized_response_is_refuted_as_often_as_the_error_says(epsilon):
    """ε-randomized response is the worst ε-private procedure there is: the p-value is exact, not only valid."""
    rng = np.random.default_rng(4)
    right = rng.binomial(200, float(expit(epsilon)), 20_000)
    values = {count: one_run_p_value(Guesses(200, 200, int(count)), epsilon=epsilon, delta=0.0) for count in np.unique(right)}
    p = np.array([values[count] for count in right])
    for error in (0.5, 0.1, 0.05, 0.01):
        attained = max((value for value in values.values() if value <= error), default=0.0)
        assert (p <= error).mean() == pytest.approx(attained, abs=4 * math.sqrt(error / 20_000))


def test_delta_is_paid_for():
    """The (ε, δ)-procedure that gives everything away with chance δ per example is not refuted too often."""
    rng, delta, epsilon = np.random.default_rng(5), 0.1, 1.0
    given = rng.random((5000, 100)) < delta
    right = (given | (rng.random((5000, 100)) < expit(epsilon))).sum(1)
    p = np.array([one_run_p_value(Guesses(100, 100, int(count)), epsilon=epsilon, delta=delta) for count in range(101)])[right]
    for error in (0.1, 0.05, 0.01):
        assert (p <= error).mean() <= error + 3 * math.sqrt(error / 5000)
    ignored = np.array([one_run_p_value(Guesses(100, 100, int(count)), epsilon=epsilon, delta=0.0) for count in range(101)])[right]
    assert (ignored <= 0.05).mean() > 0.05 + 3 * math.sqrt(0.05 / 5000)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("estimate", [one_run_epsilon, gaussian_one_run_epsilon])
def test_the_claimed_confidence_is_kept_for_a_gaussian_mechanism(estimate, share):
    """500 audits of one run each: 400 canaries, each seen through the Gaussian mechanism with μ = 1."""
    audits, m, mu = 500, 400, 1.0
    truth, exceeded, found = epsilon_of_gaussian(mu, 1e-5), 0, []
    for seed in range(audits):
        rng = np.random.default_rng((6, seed))
        member = rng.random(m) < 0.5
        seen = rng.normal(mu * member, 1)
        order, half = np.argsort(seen), int(share * m / 2)
        right = int((~member[order[:half]]).sum() + member[order[-half:]].sum())
        found.append(estimate(Guesses(m, 2 * half, right), delta=1e-5, confidence=0.95))
        exceeded += found[-1] > truth
    assert exceeded <= 0.05 * audits + 3 * math.sqrt(audits * 0.05 * 0.95)
    assert np.median(found) > 0.3


def test_the_curve_shows_more_than_epsilon_alone():
    guesses = Guesses(1000, 100, 95)
    plain = one_run_epsilon(guesses, delta=1e-5, confidence=0.95)
    curve = gaussian_one_run_epsilon(guesses, delta=1e-5, confidence=0.95)
    assert curve > 1.3 * plain
    assert gaussian_one_run_p_value(guesses, epsilon=curve, delta=1e-5) == pytest.approx(0.05, rel=1e-3)
    assert gaussian_one_run_p_value(Guesses(1000, 100, 50), epsilon=1.0, delta=1e-5) > 0.5
