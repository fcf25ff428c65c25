"""Streams: the same alone and in company, and as random as they say."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from assay.numerics.seeds import Stream


def test_a_row_is_the_same_in_any_batch():
    many = Stream.seeded(5, torch.arange(100)).fold("a").fold(3)
    for row in (0, 17, 99):
        one = Stream.seeded(5, torch.tensor([row])).fold("a").fold(3)
        for draw in ("uniform", "normal", "sign"):
            assert torch.equal(getattr(many, draw)(4, 7)[row], getattr(one, draw)(4, 7)[0])
        assert torch.equal(many.integers(10, 20)[row], one.integers(10, 20)[0])
    picked = many.select(torch.tensor([99, 3]))
    assert torch.equal(picked.uniform(5), many.uniform(5)[[99, 3]])


def test_folding_a_tensor_is_folding_each_number():
    stream = Stream.seeded(1, torch.arange(4))
    tags = torch.tensor([7, 0, 9, 7])
    folded = stream.fold(tags).uniform(3)
    for row, tag in enumerate(tags.tolist()):
        assert torch.equal(folded[row], stream.fold(tag).uniform(3)[row])


def test_drawing_consumes_nothing_and_longer_draws_extend_shorter_ones():
    stream = Stream.seeded(1, torch.arange(4))
    assert torch.equal(stream.uniform(6), stream.uniform(6))
    assert torch.equal(stream.uniform(6)[:, :3], stream.uniform(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    u = Stream.seeded(0, torch.arange(200)).uniform(1000, dtype=dtype).double()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(float(u.mean()) - 1 / 2) < 4 * (1 / 12 / u.numel()) ** 0.5
    assert abs(float(u.var()) - 1 / 12) < 1e-3


def test_normal_is_normal():
    n = Stream.seeded(0, torch.arange(200)).normal(1000, dtype=torch.float64)
    assert stats.kstest(n.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(n.mean())) < 4 / n.numel() ** 0.5
    assert abs(float(n.var()) - 1) < 0.02
    assert abs(float((n**4).mean()) - 3) < 0.1


def test_signs_and_integers_are_even():
    stream = Stream.seeded(2, torch.arange(100))
    sign = stream.sign(1000)
    assert set(sign.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(sign.mean())) < 4 / sign.numel() ** 0.5
    counts = torch.bincount(stream.integers(7, 1000).flatten(), minlength=7)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    high = torch.tensor([1, 5, 1000])
    drawn = stream.integers(high, 3)
    assert ((drawn >= 0) & (drawn < high)).all()


def test_rows_folds_and_seeds_are_unrelated():
    rows = Stream.seeded(0, torch.arange(64)).uniform(2000, dtype=torch.float64)
    folds = torch.cat([Stream.seeded(0, torch.arange(1)).fold(t).uniform(2000, dtype=torch.float64) for t in range(64)])
    seeds = torch.cat([Stream.seeded(s, torch.arange(1)).uniform(2000, dtype=torch.float64) for s in range(64)])
    for sample in (rows, folds, seeds):
        correlation = torch.corrcoef(sample) - torch.eye(64, dtype=torch.float64)
        assert correlation.abs().max() < 6 / 2000**0.5
    lagged = torch.corrcoef(torch.stack([rows[:, 1:].flatten(), rows[:, :-1].flatten()]))[0, 1]
    assert abs(float(lagged)) < 5 / rows.numel() ** 0.5


def test_keys_do_not_collide():
    stream = Stream.seeded(0, torch.arange(1000))
    keys = torch.cat([stream.fold(step).keys for step in range(200)])
    assert len(keys.unique()) == len(keys)
