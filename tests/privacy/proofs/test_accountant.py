"""Accountants against exact values, published settings and the figures of dp-accounting 0.6.0 and Opacus 1.6.0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from assay.errors import ConfigError
from assay.privacy import Accountant, Composed, Gaussian, Renyi, SampledGaussian
from assay.privacy.accounting.gaussian import mu_of
from assay.privacy.accounting.loss import privacy_loss
from assay.privacy.accounting.renyi import divergences

DELTA = 1e-5
STATISTICS = Gaussian(mu=math.sqrt(2) / 8)
"""Two releases with noise 8: the private mean and variance of the rows that normalize by them."""


def published(noise, batch, epochs, n, *beside):
    """A row of the README of Handcrafted-DP (Tramèr & Boneh, ICLR 2021), which all mean epsilon = 3, delta = 1e-5."""
    return Composed((SampledGaussian(noise=noise, rate=batch / n, steps=n // batch * epochs), *beside))


PUBLISHED = {
    "MNIST CNN": published(1.23, 512, 40, 60_000),
    "Fashion CNN": published(2.15, 2048, 40, 60_000),
    "CIFAR CNN": published(1.54, 1024, 30, 50_000),
    "MNIST ScatterNet linear": published(3.04, 4096, 40, 60_000, STATISTICS),
    "Fashion ScatterNet linear": published(4.05, 8192, 40, 60_000),
    "CIFAR ScatterNet linear": published(5.67, 8192, 60, 50_000, STATISTICS),
    "Fashion ScatterNet CNN": published(2.15, 2048, 40, 60_000),
    "CIFAR ScatterNet CNN": published(5.67, 8192, 60, 50_000, STATISTICS),
}

# (noise, batch, steps, n): dp-accounting 0.6.0 PLD, dp-accounting 0.6.0 RDP and Opacus 1.6.0 RDP; delta = 1e-5
PEERS = {
    (1.23, 512, 4680, 60_000): (2.3614, 2.5788),
    (2.15, 2048, 1160, 60_000): (2.3761, 2.5910),
    (3.04, 4096, 560, 60_000): (2.2539, 2.4577),
    (5.67, 8192, 360, 50_000): (2.2599, 2.4595),
    (1.1, 256, 14_062, 60_000): (2.3817, 2.5966),
    (0.6, 600, 1000, 60_000): (7.4336, 8.6659),  # dp-accounting's RDP says 8.6804 here: fewer orders
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_epsilon_three_by_the_classic_conversion(name):
    assert 2.992 <= Accountant("rdp-classic").epsilon(PUBLISHED[name], delta=DELTA) <= 3.004
    assert 2.578 <= Accountant("rdp").epsilon(PUBLISHED[name], delta=DELTA) <= 2.592
    assert 2.36 <= Accountant("pld").epsilon(PUBLISHED[name], delta=DELTA) <= 2.39


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 1.993), (1.0, 4.377), (2.0, 9.997)])
def test_gaussian_mechanisms_have_a_known_epsilon(mu, epsilon):
    exact = Accountant("gdp").epsilon(Gaussian(mu=mu), delta=DELTA)
    assert exact == pytest.approx(epsilon, abs=5e-4)
    assert exact <= Accountant("pld").epsilon(Gaussian(mu=mu), delta=DELTA) <= exact + 1e-3
    assert Accountant("gdp").delta(Gaussian(mu=mu), epsilon=exact) == pytest.approx(DELTA, rel=1e-6)
    assert mu_of(exact, DELTA) == pytest.approx(mu, abs=1e-6)


@pytest.mark.parametrize("mu", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-8, 1e-12])
def test_the_loss_distribution_holds_its_digits_at_any_delta(mu, delta):
    exact = Accountant("gdp").epsilon(Gaussian(mu=mu), delta=delta)
    assert exact <= Accountant("pld").epsilon(Gaussian(mu=mu), delta=delta) <= exact + 3e-4


def test_a_hundred_full_steps_are_one_gaussian():
    steps = SampledGaussian(noise=20.0, rate=1.0, steps=100)
    assert Accountant("gdp").epsilon(steps, delta=DELTA) == Accountant("gdp").epsilon(Gaussian(mu=0.5), delta=DELTA)


@pytest.mark.parametrize("setting", PEERS)
def test_agrees_with_dp_accounting_and_opacus(setting):
    noise, batch, steps, n = setting
    mechanism = SampledGaussian(noise=noise, rate=batch / n, steps=steps)
    pld, rdp = PEERS[setting]
    assert Accountant("pld").epsilon(mechanism, delta=DELTA) == pytest.approx(pld, abs=1e-3)
    assert Accountant("rdp").epsilon(mechanism, delta=DELTA) == pytest.approx(rdp, abs=1e-3)


@pytest.mark.parametrize(("noise", "rate", "steps", "peer"), [
    (5.3334, 0.2654, 63, 1.8216), (1.6178, 0.8367, 1386, 279.9512), (3.8949, 0.0010, 57, 0.0062),
    (7.1388, 0.4136, 1, 0.2597), (3.7837, 0.0222, 625, 0.6231),
])
def test_agrees_with_dp_accounting_at_small_and_large_budgets(noise, rate, steps, peer):
    """dp-accounting 0.6.0 PLD at delta = 1e-6, settings drawn at random and rounded to four decimals."""
    mechanism = SampledGaussian(noise=noise, rate=rate, steps=steps)
    assert Accountant("pld").epsilon(mechanism, delta=1e-6) == pytest.approx(peer, abs=1e-3)


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("rate", "steps"), [(1e-3, 3000), (0.05, 1), (0.05, 300), (0.7, 50)])
def test_no_conversion_is_tighter_than_the_loss_itself(noise, rate, steps):
    mechanism = SampledGaussian(noise=noise, rate=rate, steps=steps)
    pld, rdp, classic = (Accountant(m).epsilon(mechanism, delta=DELTA) for m in ("pld", "rdp", "rdp-classic"))
    assert pld <= rdp <= classic


@pytest.mark.parametrize("order", [1.3, 2.0, 4.5, 17.0])
def test_the_divergence_of_a_sampled_release_is_its_integral(order):
    noise, q = 1.3, 0.1

    def integrand(x):
        ratio = 1 - q + q * math.exp((2 * x - 1) / (2 * noise**2))
        return norm.pdf(x, scale=noise) * ratio**order

    exact = math.log(quad(integrand, -40, 60, limit=500, epsabs=0, epsrel=1e-11, points=[0, order])[0]) / (order - 1)
    mechanism = SampledGaussian(noise=noise, rate=q, steps=1)
    assert divergences(mechanism, [order])[0] == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("direction", ["remove", "add"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_one_sampled_release_has_the_delta_of_its_integral(direction, epsilon):
    """The hockey-stick divergence of one step: the grid never understates it and hardly overstates it."""
    noise, q = 0.8, 0.3
    x = np.linspace(-10, 12, 2_000_001)
    without = norm.pdf(x, scale=noise)
    mixture = (1 - q) * without + q * norm.pdf(x, loc=1, scale=noise)
    p, other = (mixture, without) if direction == "remove" else (without, mixture)
    exact = float(np.trapezoid(np.maximum(p - math.exp(epsilon) * other, 0), x))
    found = privacy_loss(SampledGaussian(noise=noise, rate=q, steps=1), direction).delta(epsilon)
    assert exact - 1e-9 <= found <= exact + 1e-5


def test_mechanisms_of_different_kinds_compose():
    """Sampled steps and plain releases in one grid; 2.3755 by dp-accounting 0.6.0."""
    mixed = PUBLISHED["MNIST ScatterNet linear"]
    assert Accountant("pld").epsilon(mixed, delta=DELTA) == pytest.approx(2.3755, abs=1e-3)
    assert Accountant("pld").epsilon(Composed((Gaussian(mu=0.3), Gaussian(mu=0.4))), delta=DELTA) == pytest.approx(
        Accountant("gdp").epsilon(Gaussian(mu=0.5), delta=DELTA), abs=1e-3)


@pytest.mark.parametrize("method", ["pld", "rdp", "rdp-classic"])
def test_calibrated_noise_spends_the_budget_and_no_more(method):
    accountant = Accountant(method)
    noise = accountant.noise(epsilon=3.0, delta=DELTA, rate=4096 / 60_000, steps=560)
    spent = accountant.epsilon(SampledGaussian(noise=noise, rate=4096 / 60_000, steps=560), delta=DELTA)
    assert 2.999 <= spent <= 3.0
    assert {"pld": 2.411, "rdp": 2.582, "rdp-classic": 2.912}[method] == pytest.approx(noise, abs=1e-3)


@pytest.mark.parametrize("method", ["pld", "rdp", "rdp-classic"])
def test_delta_inverts_epsilon(method):
    mechanism = SampledGaussian(noise=1.1, rate=0.01, steps=1000)
    epsilon = Accountant(method).epsilon(mechanism, delta=1e-6)
    assert Accountant(method).delta(mechanism, epsilon=epsilon) == pytest.approx(1e-6, rel=1e-3)


def test_the_bound_says_what_it_rests_on():
    bound = Accountant("rdp-classic").certify(PUBLISHED["MNIST CNN"], delta=DELTA, n=60_000)
    assert (bound.quantity, bound.side, bound.n) == ("epsilon@delta=1e-05", "at most", 60_000)
    assert "classic conversion" in bound.method
    assert "add/remove" in bound.method


@pytest.mark.parametrize("method", ["pld", "rdp", "rdp-classic"])
def test_without_noise_nothing_is_private_and_without_steps_everything(method):
    assert Accountant(method).epsilon(SampledGaussian(noise=0.0, rate=0.1, steps=3), delta=DELTA) == math.inf
    assert Accountant(method).epsilon(SampledGaussian(noise=1.0, rate=0.1, steps=0), delta=DELTA) == 0


@pytest.mark.parametrize(("method", "mechanism", "code"), [
    ("pld", Renyi(orders=(2.0,), divergences=(0.1,)), "PRV202"),
    ("gdp", SampledGaussian(noise=1.0, rate=0.1, steps=3), "PRV203"),
])
def test_refuses_what_it_cannot_account_for(method, mechanism, code):
    with pytest.raises(ConfigError, match=code):
        Accountant(method).epsilon(mechanism, delta=DELTA)


def test_knows_only_its_own_methods():
    with pytest.raises(ConfigError, match="CFG134"):
        Accountant("prv")


@pytest.mark.parametrize("build", [
    lambda: SampledGaussian(noise=-1.0, rate=0.1, steps=1), lambda: SampledGaussian(noise=1.0, rate=0.0, steps=1),
    lambda: Gaussian(mu=float("nan")), lambda: Renyi(orders=(1.0,), divergences=(0.1,)),
])
def test_refuses_what_is_no_mechanism(build):
    with pytest.raises(ConfigError, match="PRV201"):
        build()
