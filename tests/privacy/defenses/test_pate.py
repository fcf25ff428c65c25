"""PATE's guarantees against the reference implementation and against exact divergences of neighboring votes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import laplace, norm
from torch import nn

from assay import demo
from assay.errors import ConfigError
from assay.privacy import DPSGD, PATE, Accountant, Gaussian
from assay.privacy.accounting.renyi import divergences
from assay.privacy.accounting.votes import beforehand, in_hindsight, log_upset

ORDERS = [1.5, 4.0, 16.0, 40.0]
AGREE, CLOSE, SURE = [[248, 1, 1], [230, 15, 5], [140, 100, 10]], [[90, 80, 80], [100, 150, 0]], [[250, 0, 0, 0, 0]]

# tensorflow/privacy, research/pate_2018/core.py: compute_logq_gaussian and rdp_gaussian at ORDERS, summed over queries
REFERENCE = [
    (AGREE, 40.0, [0.0009762743348244786, 0.0025430196219257133, 0.010091738618553243, 0.026249115265251914]),
    (AGREE, 20.0, [0.0037500000000218856, 0.010000000000034868, 0.04000000000508344, 0.10000156519761451]),
    (AGREE, 5.0, [5.59376151706358e-08, 5.496188986781614e-07, 0.5234883442895745, 1.6]),
    (CLOSE, 20.0, [0.0075, 0.02, 0.07462131306739825, 0.2]),
    (CLOSE, 5.0, [0.06000000000831226, 0.16000000016847432, 0.9338074519592074, 3.2]),
    (SURE, 40.0, [6.933736086119801e-06, 7.75702166763338e-06, 1.792271844491004e-05, 0.000319468348802986]),
]

# the same with compute_logq_laplace and rdp_pure_eps: an upper bound of ours, equal where Theorem 3 decides
REFERENCE_LAPLACE = [
    (AGREE, 5.0, [0.0007838079448016904, 0.001059720314878149, 0.01969548714584946, 0.21837164137143986]),
    (CLOSE, 20.0, [0.015000000000000003, 0.04000000000000001, 0.10647417677101648, 0.14600638788670842]),
    (SURE, 20.0, [1.1224076217867466e-05, 1.1984626182537087e-05, 1.8223378781686885e-05, 7.264474690145871e-05]),
]


@pytest.mark.parametrize(("votes", "scale", "expected"), REFERENCE)
def test_divergences_of_given_votes_are_the_reference_implementations(votes, scale, expected):
    found = in_hindsight(np.array(votes), "gaussian", scale, ORDERS).divergences
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-16)


@pytest.mark.parametrize(("votes", "scale", "expected"), REFERENCE_LAPLACE)
def test_laplace_divergences_are_no_more_than_the_reference_implementations(votes, scale, expected):
    found = np.array(in_hindsight(np.array(votes), "laplace", scale, ORDERS).divergences)
    assert (found <= np.array(expected) * (1 + 1e-9)).all()
    assert (found >= np.array(expected) * 0.8).all()


def exact(kind, gap, scale, order):
    """The Rényi divergence of who wins between two classes that are ``gap`` votes apart and ``gap − 2``, either way."""
    def loses(gap):
        if kind == "gaussian":
            return norm.sf(gap / (scale * math.sqrt(2)))
        z = np.linspace(-60, 60, 100_001) * scale
        return float(np.trapezoid(laplace.pdf(z, scale=scale) * laplace.sf(z + gap, scale=scale), z))

    p, q = loses(gap), loses(gap - 2)
    upset = order * math.log(p) + (1 - order) * math.log(q)
    return np.logaddexp(upset, order * math.log1p(-p) + (1 - order) * math.log1p(-q)) / (order - 1)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("scale", [3.0, 10.0])
@pytest.mark.parametrize("gap", [0, 10, 30, 60])
def test_no_guarantee_is_below_the_exact_divergence(kind, scale, gap):
    votes = np.array([[100 + gap // 2, 100 - gap // 2]])
    for order in (1.5, 4.0, 16.0):
        truth = exact(kind, gap, scale, order)
        given = in_hindsight(votes, kind, scale, [order]).divergences[0]
        before = float(divergences(beforehand(kind, scale, 1), [order])[0])
        assert truth <= given + 1e-7
        assert given <= before * (1 + 1e-12)


def test_forty_agreeing_answers_cost_far_less_in_hindsight():
    votes = np.array([[230, 10, 10]] * 40)
    before = Accountant("rdp").epsilon(beforehand("gaussian", 30.0, 40), delta=1e-5)
    after = Accountant("rdp").epsilon(in_hindsight(votes, "gaussian", 30.0), delta=1e-5)
    assert beforehand("gaussian", 30.0, 40) == Gaussian(mu=math.sqrt(80) / 30)
    assert after < 0.5 * before


def test_the_chance_of_an_upset_is_no_less_than_its_frequency():
    votes, draw = torch.tensor([[30, 22, 20]]), torch.Generator().manual_seed(0)
    for kind, scale in (("gaussian", 6.0), ("laplace", 5.0)):
        winners = PATE(noise=scale, kind=kind, classes=3).elect(votes.repeat(40_000, 1), draw)
        upset = float((winners != 0).float().mean())
        assert upset - 0.01 < math.exp(log_upset(votes.double().numpy(), kind, scale)[0])
        assert upset > 0.1


def teach(x, y, seed):
    return DPSGD(noise=0.0, clip=1.0, batch=min(32, len(x)), epochs=20, rate=0.5).fit(
        lambda: nn.Linear(64, 10), x.flatten(1), y, seed=seed).module


def test_a_student_learns_what_the_teachers_agree_on():
    (x, y), (test_x, test_y) = demo.digits("train"), demo.digits("test")
    public, truth = x[900:], y[900:]
    pate = PATE(teachers=20, noise=4.0)
    taught = pate.fit(teach, x[:900], y[:900], public=public.flatten(1), seed=0)
    assert taught.votes.sum(1).eq(20).all()
    assert float((taught.labels == truth).float().mean()) > 0.85
    assert float((taught.module(test_x.flatten(1)).argmax(1) == test_y).float().mean()) > 0.88
    assert taught.bound(delta=1e-4).value > Accountant("rdp").epsilon(taught.hindsight, delta=1e-4)
    again = pate.fit(teach, x[:900], y[:900], public=public.flatten(1), seed=0)
    assert torch.equal(taught.labels, again.labels)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_noise_is_calibrated_to_a_budget(kind):
    noise = PATE(kind=kind).noise_for(epsilon=2.0, delta=1e-5, queries=100)
    spent = Accountant("rdp").epsilon(beforehand(kind, noise, 100), delta=1e-5)
    assert 1.9 < spent <= 2.0


def test_refuses_more_teachers_than_examples():
    with pytest.raises(ConfigError, match="PRV210"):
        PATE(teachers=3).fit(teach, torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64), public=torch.zeros(1, 64),
                             seed=0)
