"""The demo: the digits, the network, and a model that trains fast, well, and the same each time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import demo
from assay.errors import DataError
from assay.games import Progress


def test_digits_are_real_digits_in_the_box() -> None:
    (x, y), (more, labels) = demo.digits("test"), demo.digits("train")
    assert x.shape == (500, 1, 8, 8)
    assert more.shape == (1297, 1, 8, 8)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert torch.equal(x * 16, (x * 16).round())
    assert sorted(set(y.tolist())) == list(range(10)) == sorted(set(labels.tolist()))


def test_splits_share_no_row_and_cover_the_set() -> None:
    from sklearn.datasets import load_digits

    ours = torch.cat([demo.digits(split)[0] for split in ("train", "test")]).flatten(1)
    theirs = torch.as_tensor(load_digits().data / 16, dtype=torch.float32)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


@pytest.mark.parametrize(("spec", "rows"), [("test[:50]", slice(0, 50)), ("test[10:12]", slice(10, 12)), ("train[1290:]", slice(1290, None))])
def test_slices(spec: str, rows: slice) -> None:
    whole = demo.digits(spec.split("[")[0])
    assert all(torch.equal(part, full[rows]) for part, full in zip(demo.digits(spec), whole))


@pytest.mark.parametrize(("spec", "code"), [("tset", "DAT104"), ("test[600:]", "DAT105"), ("test[a:b]", "DAT101"), ("", "DAT101")])
def test_wrong_specs_are_refused(spec: str, code: str) -> None:
    with pytest.raises(DataError) as caught:
        demo.digits(spec)
    assert caught.value.code == code


def test_each_call_gets_its_own_copy() -> None:
    x, _ = demo.digits("test[:2]")
    x.zero_()
    assert demo.digits("test[:2]")[0].abs().sum() > 0
    net = demo.target()
    with torch.no_grad():
        next(net.model.parameters()).zero_()
    assert net.fingerprint() != demo.target().fingerprint()


@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_the_target_is_accurate(noise: float) -> None:
    x, y = demo.digits()
    assert float((demo.target(noise=noise).labels(x) == y).double().mean()) >= 0.97


def test_training_is_deterministic_and_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    models = [list(demo.train(seed=3, epochs=2))[-1] for _ in range(2)]
    demo.network()
    assert torch.equal(before, torch.random.get_rng_state())
    first, second = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.cat([p.flatten() for p in demo.network(seed=4).parameters()]))


def test_training_tells_where_it_is() -> None:
    *progress, model = demo.train(epochs=3)
    assert [(p.done, p.total) for p in progress if isinstance(p, Progress)] == [(1, 3), (2, 3), (3, 3)]
    assert isinstance(model, nn.Module)
    assert not model.training


def test_the_target_names_its_seed() -> None:
    assert demo.target(1).name == "demo digits, seed 1"
    assert demo.target(1).fingerprint() != demo.target(0).fingerprint()
