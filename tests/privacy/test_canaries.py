"""Canaries are what they say, the same from the same seed, and leave the data alone."""

from __future__ import annotations

import pytest
import torch

from assay import demo
from assay.errors import DataError
from assay.privacy.canaries import Blank, Mislabeled, Natural, OutOfDistribution, WorstOf

KINDS = [Natural(30), Mislabeled(30), OutOfDistribution(30), Blank(30), WorstOf().many(30)]


@pytest.fixture(scope="module")
def data():
    return demo.digits("train[:200]")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_same_seed_gives_the_same_bytes_and_the_data_stay(kind, data):
    x, y = data
    before = x.clone(), y.clone()
    one, two, other = (kind.plant(x, y, classes=10, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(getattr(one, part), getattr(two, part)) for part in ("x", "y", "index"))
    assert not torch.equal(one.y, other.y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert one.x.shape == (len(one), 1, 8, 8)
    assert one.x.dtype == x.dtype
    assert one.x.data_ptr() != x.data_ptr()


def test_mislabeled_are_distinct_examples_whose_every_label_is_wrong_and_uniform(data):
    x, y = data
    made = [Mislabeled(200).plant(x, y, classes=10, seed=seed) for seed in range(20)]
    assert all(len(set(one.index.tolist())) == 200 for one in made)
    assert all(torch.equal(one.x, x[one.index]) for one in made)
    shift = torch.cat([(one.y - y[one.index]) % 10 for one in made])
    counts = torch.bincount(shift, minlength=10).double()
    assert counts[0] == 0
    assert float(((counts[1:] - 4000 / 9) ** 2 / (4000 / 9)).sum()) < 26.1  # the 99.9 % point of χ² with 8 degrees


def test_out_of_distribution_sits_at_the_ends_of_the_range(data):
    x, y = data
    near, far = (OutOfDistribution(5, reach).plant(x, y, classes=10, seed=0) for reach in (1.0, 100.0))
    assert set(near.x.unique().tolist()) == {0.0, 1.0}
    assert set(far.x.unique().tolist()) == {-49.5, 50.5}
    assert (near.index == -1).all()


def test_worst_of_has_every_kind(data):
    x, y = data
    made = WorstOf((Mislabeled(3), Blank(2))).plant(x, y, classes=10, seed=0)
    assert len(made) == 5
    assert (made.x[3:] == 0).all()
    assert torch.equal(made.pick([4, 0]).y, made.y[[4, 0]])


def test_what_cannot_be_made_is_refused(data):
    x, y = data
    with pytest.raises(DataError, match="PRV300"):
        Mislabeled(201).plant(x, y, classes=10, seed=0)
    with pytest.raises(DataError, match="PRV301"):
        Mislabeled(2).plant(x, y * 0, classes=1, seed=0)
