"""Membership attacks against known answers: Gaussian worlds whose best attack is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from assay import privacy
from assay.errors import DataError
from assay.privacy import Rate, Scores, Signals, judge
from assay.privacy.attacks.loss import modified_entropy

SEEDS = range(5)


def world(seed, *, shift, examples=20_000, shadows=64, spread=0.0, between=3.0, targets=4):
    """Every example has its own level (and scale); members lie ``shift`` of their own scales above it."""
    rng = np.random.default_rng(seed)
    keep = privacy.balanced_keep(shadows + 2 * targets, examples, seed)
    scale = np.exp(spread * rng.normal(size=examples))
    values = between * rng.normal(size=examples) + scale * (rng.normal(size=keep.shape) + shift * keep)
    signals = Signals(values, keep)
    return signals.models(slice(shadows, shadows + targets)), signals.models(slice(shadows))


def optimum(shift, fpr):
    return float(norm.cdf(norm.ppf(fpr) + shift))


# --- LiRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize(("shift", "known"), [(1, 0.0183), (2, 0.1378), (3, 0.4641), (4, 0.8185)])
def test_lira_reaches_the_optimum_of_a_gaussian_world(mode, shift, known):
    assert optimum(shift, 1e-3) == pytest.approx(known, abs=5e-5)
    target, shadows = world(1, shift=shift, shadows=256, examples=40_000, targets=2)
    found = judge(privacy.LiRA(mode=mode, variance="global"), target=target, shadows=shadows).tpr(fpr=1e-3)
    assert found.fpr.estimate <= 1e-3
    # What 256 models tell of an example's level is not exact: its error widens the noise by 1/128 of the variance.
    lower, upper = optimum(shift / np.sqrt(1 + 1 / 128), found.fpr.lower), optimum(shift, found.fpr.upper)
    assert lower <= found.tpr.upper
    assert found.tpr.lower <= upper


@pytest.mark.parametrize(("shift", "auc"), [(1, 0.7602), (2, 0.9214), (3, 0.9831), (4, 0.9977)])
def test_lira_reaches_the_known_area(shift, auc):
    target, shadows = world(2, shift=shift, shadows=256)
    found = judge(privacy.LiRA(variance="global"), target=target, shadows=shadows).auc()
    assert found == pytest.approx(auc, abs=0.006)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_scores_find_as_many_members_as_others(seed):
    rng = np.random.default_rng(seed)
    scores = Scores(rng.random(50_000), rng.random(50_000) < 0.5)
    for fpr in (1e-3, 1e-2, 1e-1):
        found = scores.tpr(fpr=fpr)
        wide = Rate(successes=found.tpr.successes, n=found.tpr.n, confidence=0.999)
        assert fpr in wide
    assert scores.auc() == pytest.approx(0.5, abs=0.012)


def test_own_variances_pay_with_many_models_and_cost_with_few():
    target, few = world(0, shift=2, shadows=8, spread=0.7)
    many_target, many = world(0, shift=2, shadows=128, spread=0.7)
    own, one = (privacy.LiRA(variance=v) for v in ("example", "global"))
    assert judge(own, target=many_target, shadows=many).auc() > judge(one, target=many_target, shadows=many).auc() + .01
    at = 1e-3
    least, most = judge(one, target=target, shadows=few).tpr(fpr=at), judge(own, target=target, shadows=few).tpr(fpr=at)
    assert most.tpr.upper < least.tpr.lower


def test_auto_is_global_below_64_models_and_own_from_there_on():
    for shadows, same in ((62, "global"), (64, "example")):
        target, models = world(0, shift=1, shadows=shadows, examples=500)
        auto, named = (judge(privacy.LiRA(variance=v), target=target, shadows=models) for v in ("auto", same))
        np.testing.assert_array_equal(auto.values, named.values)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_lira_does_not_depend_on_order_or_units(seed, scale, offset):
    target, shadows = world(seed, shift=2, examples=50, shadows=16)
    order = np.random.default_rng(seed).permutation(16)
    scales = scale * np.exp(np.random.default_rng(seed).normal(size=(1, 50, 1)))
    moved = Signals(shadows.values[order] * scales + offset, shadows.keep[order])
    there = Signals(target.values * scales + offset, target.keep)
    attack = privacy.LiRA(variance="example")
    before, after = judge(attack, target=target, shadows=shadows), judge(attack, target=there, shadows=moved)
    np.testing.assert_allclose(before.values, after.values, rtol=1e-6, atol=1e-6)


def test_augmentations_add_what_they_know():
    rng = np.random.default_rng(0)
    keep = privacy.balanced_keep(68, 5000, 0)
    values = rng.normal(size=(68, 5000, 4)) + keep[..., None]
    signals = Signals(values, keep)
    target, shadows = signals.models(slice(64, 68)), signals.models(slice(64))
    for mode in ("online", "offline"):
        found = judge(privacy.LiRA(mode=mode, variance="global"), target=target, shadows=shadows)
        assert found.auc() == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.01)  # four looks: a shift of 2


# --- the others ------------------------------------------------------------------------------------------------------


def test_one_threshold_is_the_optimum_where_examples_are_alike():
    target, _ = world(0, shift=1, between=0.0, shadows=2)
    found = judge(privacy.LossThreshold(), target=target).tpr(fpr=0.01)
    assert optimum(1, 0.01) in Rate(successes=found.tpr.successes, n=found.tpr.n, confidence=0.99)


def test_the_order_of_the_table():
    target, shadows = world(0, shift=2, shadows=64, spread=0.5)
    attacks = (privacy.LossThreshold(), privacy.CalibratedLoss(), privacy.LiRA(mode="offline"))
    rates = [judge(a, target=target, shadows=shadows).tpr(fpr=1e-2).tpr for a in attacks]
    assert rates[0].upper < rates[1].lower
    assert rates[1].upper < rates[2].lower


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spread", [0.0, 0.7])
def test_the_conjugate_prior_is_best_with_few_models(seed, spread):
    target, shadows = world(seed, shift=2, shadows=8, spread=spread, examples=5000)
    attacks = (privacy.ConjugateLiRA(), privacy.LiRA(variance="global"), privacy.LiRA(variance="example"))
    prior, one, own = (judge(a, target=target, shadows=shadows).auc() for a in attacks)
    assert prior > one - 0.005
    assert prior > own + 0.02


def test_the_conjugate_prior_meets_lira_with_many_models():
    target, shadows = world(0, shift=2, shadows=128, spread=0.7, examples=5000)
    prior = judge(privacy.ConjugateLiRA(), target=target, shadows=shadows).auc()
    assert prior == pytest.approx(judge(privacy.LiRA(), target=target, shadows=shadows).auc(), abs=0.005)


@pytest.mark.parametrize("seed", SEEDS)
def test_rmia_beats_lira_with_two_models(seed):
    target, shadows = world(seed, shift=2, shadows=2, spread=0.7, examples=5000)
    rmia = judge(privacy.RMIA(), target=target, shadows=shadows).auc()
    assert rmia > judge(privacy.LiRA(variance="global"), target=target, shadows=shadows).auc() + 0.01


def test_rmia_gives_shares_that_rise_with_the_target():
    target, shadows = world(0, shift=1, examples=300, shadows=8, targets=1)
    attack = privacy.RMIA()
    values = judge(attack, target=target, shadows=shadows).values
    assert values.min() >= 0
    assert values.max() <= 1
    raised = target.values.copy()
    raised[0, 7] += 1
    assert judge(attack, target=Signals(raised, target.keep), shadows=shadows).values[7] >= values[7]


def test_rmia_with_a_of_one_is_the_ratio_to_models_without():
    target, shadows = world(0, shift=1, examples=300, shadows=8, targets=1)
    found = judge(privacy.RMIA(mode="offline", a=1.0), target=target, shadows=shadows).values
    likely = 1 / (1 + np.exp(-shadows.values[..., 0].astype(float)))
    usual = np.where(shadows.keep, 0, likely).sum(0) / (~shadows.keep).sum(0)
    ratio = 1 / (1 + np.exp(-target.values[0, :, 0].astype(float))) / usual
    assert (np.argsort(found, kind="stable") == np.argsort(ratio, kind="stable")).mean() > 0.99


def test_modified_entropy_by_hand():
    even = modified_entropy(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1]))
    assert even.item() == pytest.approx(0.6931471805599453, abs=1e-12)
    sure = modified_entropy(torch.tensor([[60.0, 0.0], [60.0, 0.0]], dtype=torch.float64), torch.tensor([0, 1]))
    assert sure[0].item() == pytest.approx(0, abs=1e-12)
    assert sure[1].item() > 60  # sure and wrong: the worst there is
    assert torch.isfinite(sure).all()


# --- signals ---------------------------------------------------------------------------------------------------------


def test_the_scale_from_logits_is_that_of_log_probabilities():
    z = torch.randn(200, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    y = torch.arange(200) % 10
    p = z.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(privacy.logit_scale(z, y), p.log() - (1 - p).log(), atol=1e-6, rtol=0)
    torch.testing.assert_close(privacy.logit_of_probability(z.softmax(1), y), privacy.logit_scale(z, y))


def test_the_scale_is_finite_where_probabilities_are_not():
    z = torch.tensor([[80.0, 0.0, 0.0], [-80.0, 0.0, 0.0]])
    found = privacy.logit_scale(z, torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([80 - np.log(2), -80 - np.log(2)])
    p = z.softmax(1)[:, 0]
    assert torch.isinf(p.log() - (1 - p).log()).any(), "the unstable form fails here, which is why it is not used"


def test_every_example_is_in_exactly_half():
    keep = privacy.balanced_keep(64, 1000, seed=3)
    assert (keep.sum(0) == 32).all()
    assert keep.sum(1).std() < 40
    assert not np.array_equal(keep, privacy.balanced_keep(64, 1000, seed=4))
    np.testing.assert_array_equal(keep, privacy.balanced_keep(64, 1000, seed=3))


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_rate_that_nobody_could_see_is_refused():
    scores = Scores(np.arange(999.0), np.arange(999) % 2 == 0)
    with pytest.raises(DataError, match="PRV103"):
        scores.tpr(fpr=1e-3)
    assert scores.tpr(fpr=1e-2).fpr.n == 499


@pytest.mark.parametrize(("values", "members", "code"), [
    ([1.0, 2.0], [True, True], "PRV101"), ([1.0, np.nan], [True, False], "PRV102"), ([1.0], [True, False], "PRV101"),
])
def test_scores_that_make_no_sense(values, members, code):
    with pytest.raises(DataError, match=code):
        Scores(np.array(values), np.array(members))


def test_ties_are_called_together():
    scores = Scores(np.array([1.0, 1.0, 0.0, 0.0]), np.array([True, False, True, False]))
    assert scores.auc() == 0.5
    assert scores.tpr(fpr=0.5).tpr.estimate == 0.5
    perfect = Scores(np.array([2.0, 2.0, 1.0, 1.0]), np.array([True, True, False, False]))
    assert perfect.auc() == 1
    assert perfect.tpr(fpr=0.5).tpr.successes == 2


def test_a_bound_is_what_the_count_implies():
    scores = Scores(np.r_[np.ones(50), np.zeros(150)], np.r_[np.ones(100), np.zeros(100)].astype(bool))
    bound = scores.bound(fpr=0.01, method="a test")
    assert (bound.side, bound.estimate, bound.n) == ("at least", 0.5, 100)
    assert bound.value == pytest.approx(0.4136, abs=5e-4)  # Clopper-Pearson, one-sided 95 %


def test_signals_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="PRV110"):
        Signals(np.zeros((3, 4)), np.zeros((4, 3), bool))
    with pytest.raises(DataError, match="PRV102"):
        Signals(np.full((1, 2), np.inf), np.zeros((1, 2), bool))
    target, shadows = world(0, shift=1, examples=10, shadows=4)
    everyone = Signals(shadows.values, np.ones_like(shadows.keep))
    with pytest.raises(DataError, match="PRV111"):
        judge(privacy.LiRA(), target=target, shadows=everyone)
