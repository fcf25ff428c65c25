"""The audit of plain functions: known answers, the same bytes, nothing touched, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay import privacy
from assay.errors import ConfigError, TargetError
from assay.privacy.accounting.gaussian import epsilon_of_gaussian


def published(noise: float):
    """A sum of clipped examples, one a class, with Gaussian noise: the sensitivity is 1 (add or remove)."""

    def train(x, y, seed):
        rows = x.flatten(1)
        rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1.0)
        total = torch.zeros(10, rows.shape[1]).index_add_(0, y, rows)
        total = total + noise * torch.randn(total.shape, generator=torch.Generator().manual_seed(seed))
        return lambda z: z.flatten(1) @ total.T

    return train


def test_a_gaussian_sum_is_not_refuted_and_a_tenth_of_the_noise_is(digits):
    claim = (epsilon_of_gaussian(1.0, 1e-5), 1e-5)
    right = privacy.audit(published(1.0), data=digits, claim=claim, runs=400)
    wrong = privacy.audit(published(0.1), data=digits, claim=(2.0, 1e-5), runs=400)
    assert not right.refuted
    assert wrong.refuted
    assert wrong.epsilon == pytest.approx(wrong.ceiling)
    assert wrong.adversary in ("APIAccess", "StaticInput")


def test_the_same_seed_gives_the_same_answer_and_nothing_is_touched(digits):
    x, y = digits
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    first, second, other = (privacy.audit(published(0.3), data=digits, claim=(1.0, 1e-5), runs=100, seed=seed)
                            for seed in (1, 1, 2))
    assert first == second
    assert first.guesses != other.guesses
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_says_nothing_about_its_data_shows_nothing(digits):
    def constant(x, y, seed):
        return lambda z: torch.randn(len(z), 10, generator=torch.Generator().manual_seed(seed))

    found = [privacy.audit(constant, data=digits, claim=(0.0, 0.0), runs=200, seed=seed) for seed in range(5)]
    assert sum(one.refuted for one in found) <= 1


def test_one_run_with_many_canaries(digits):
    """Without noise 50 mislabeled digits are all remembered: 50 right guesses of 50 show ε ≥ 2.2, and 12.3 by the curve."""
    def memory(x, y, seed):
        return lambda z: -torch.stack([torch.cdist(z.flatten(1), x[y == c].flatten(1)).amin(1) for c in range(10)], 1)

    plain = privacy.audit(memory, data=digits, claim=(1.0, 1e-5), one_run=privacy.OneRun(shares=(1.0,)))
    curve = privacy.audit(memory, data=digits, claim=(1.0, 1e-5), one_run=privacy.OneRun(gaussian=True, shares=(1.0,)))
    assert plain.refuted
    assert curve.refuted
    assert plain.n == 50
    assert curve.epsilon > plain.epsilon
    private = [privacy.audit(published(3.0), data=digits, claim=(2.0, 1e-5), one_run=privacy.OneRun(), seed=seed)
               for seed in range(20)]
    assert not any(one.refuted for one in private)


def test_guesses_of_one_run_are_the_highest_and_the_lowest():
    scores, member = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, True, False, False])
    found = privacy.OneRun(shares=(0.34, 0.67, 1.0)).guesses(scores, member)
    assert [(one.m, one.made, one.right) for one in found] == [(6, 2, 2), (6, 4, 4), (6, 6, 4)]
    assert privacy.OneRun().bound(scores[:1], member[:1], delta=1e-5).value == 0
    assert privacy.OneRun(gaussian=True).bound(scores[:3], member[:3], delta=1e-5).value == 0


def test_the_bound_from_scores_at_hand():
    member = np.random.default_rng(8).random(1000) < 0.5
    bound = privacy.OneRun(shares=(0.1,)).bound(member.astype(float), member, delta=1e-5)
    assert (bound.quantity, bound.side, bound.n) == ("epsilon@delta=1e-05", "at least", 100)
    assert bound.value == pytest.approx(3.465, abs=1e-3)


def test_a_plain_function_may_be_watched(digits):
    class Watched:
        """Full-batch noisy gradient steps of nothing but the last example's forged gradient."""

        def __call__(self, x, y, seed, watch=None):
            rng = torch.Generator().manual_seed(seed)
            for step in range(5):
                parameters = torch.zeros(40)
                forged = None if watch is None else watch.forge(step, parameters)
                signal = torch.zeros(40) if forged is None else forged / forged.norm()
                released = signal + 0.1 * torch.randn(40, generator=rng)
                if watch is not None:
                    watch.see(step, parameters, released)
            return lambda z: torch.zeros(len(z), 10)

    found = privacy.audit(Watched(), data=digits, claim=(1.0, 1e-5), runs=200)
    assert found.adversary == "GradientCanary"
    assert found.refuted


def test_what_cannot_be_audited_so_is_refused(digits):
    with pytest.raises(TargetError, match="PRV321"):
        privacy.audit(published(1.0), data=digits, claim=(1.0, 1e-5), adversary=privacy.MaliciousData())
    with pytest.raises(ConfigError, match="PRV311"):
        privacy.audit(published(1.0), data=digits, claim=(1.0, 1e-5), runs=20)
    with pytest.raises(ConfigError, match="PRV310"):
        privacy.audit(published(1.0), data=digits, claim=(1.0, 2.0))


def test_a_procedure_without_a_forward_is_told_so(digits):
    def train(x, y, seed, watch=None):
        if watch is not None:
            watch.see(0, torch.zeros(4), torch.zeros(4))
        return lambda z: torch.zeros(len(z), 10)

    with pytest.raises(TargetError, match="PRV320"):
        privacy.audit(train, data=digits, claim=(1.0, 1e-5), adversary=privacy.IntermediateModels())
