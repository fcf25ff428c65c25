"""The shadow engine: one model is the same however it is trained, and nothing that is finished is lost."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from assay.data import Dataset
from assay.errors import AssayError
from assay.numerics import ensembles
from assay.numerics.ensembles import Plan, planned
from assay.privacy import (
    Recipe,
    Scores,
    Shadows,
    balanced_keep,
    logit_scale,
    mirror,
    processes,
    random_mirror,
    seeds_of,
    train_each,
    train_shadows,
)


def mlp(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)).to(dtype)


def cnn(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 3)).to(dtype)


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3))


def normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


def examples(n: int = 90, dtype: type = np.float32) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    return Dataset((rng.normal(size=(n, 1, 8, 8)) + y[:, None, None, None]).astype(dtype), y, "blobs")


def settings(**changed: object) -> Recipe:
    return Recipe(**{"init": mlp, "epochs": 4, "batch": 16, "rate": 0.05, **changed})  # type: ignore[arg-type]


def same(a: Shadows, b: Shadows, rows: slice = slice(None)) -> bool:
    return all(torch.equal(tensor[rows], b.parameters[name]) for name, tensor in a.parameters.items())


@pytest.mark.parametrize("init", [mlp, cnn])
@pytest.mark.parametrize("augment", [None, random_mirror])
def test_a_stack_is_the_loop(init, augment):
    recipe = settings(init=partial(init, torch.float64), augment=augment, weight_decay=1e-3)
    data = examples(dtype=np.float64)
    loop, stacked = (train_shadows(recipe, data, 4, how=how) for how in ("loop", "stacked"))
    for name, tensor in loop.parameters.items():
        torch.testing.assert_close(tensor, stacked.parameters[name], rtol=0, atol=1e-10)
    assert float((loop.parameters[name] - recipe.fresh(loop.seeds[0]).state_dict()[name]).abs().max()) > 1e-3


def test_the_loop_is_torch_sgd():
    """One full-batch step a time, so that the order does not matter: torch's own optimizer, step for step."""
    data, recipe = examples(dtype=np.float64), settings(init=partial(mlp, torch.float64), batch=90, epochs=12,
                                                        weight_decay=1e-3)
    mine, own = recipe(data, 5), recipe.fresh(5)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(own(torch.from_numpy(data.x)), torch.from_numpy(data.y)).backward()
        optimizer.step()
        scheduler.step()
    for a, b in zip(mine.parameters(), own.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("how", ["loop", "stacked"])
@pytest.mark.parametrize("init", [mlp, cnn])
def test_a_model_does_not_depend_on_its_neighbors(how, init):
    """Bit for bit: other chunks, other widths, fewer models, another place."""
    data, recipe = examples(), settings(init=init)
    keep, seeds = balanced_keep(7, 90, 1), seeds_of(3, 7)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    whole = recipe.many(x, y, keep, seeds, Plan(how, 7))
    for width in (1, 3):
        cut = recipe.many(x, y, keep, seeds, Plan(how, width))
        assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    order = [5, 0, 3]
    few = recipe.many(x, y, keep[order], [seeds[i] for i in order], Plan(how, 4))
    assert all(torch.equal(tensor[order], few[name]) for name, tensor in whole.items())
    chunks = [train_shadows(recipe, data, 7, keep=keep, seeds=seeds, how=how, chunk=chunk) for chunk in (3, 16)]
    assert same(*chunks)


def test_tracing_changes_no_bit(monkeypatch):
    data, recipe = examples(), settings(init=cnn)
    call = torch.from_numpy(data.x), torch.from_numpy(data.y), balanced_keep(4, 90, 0), seeds_of(0, 4), Plan("stacked", 4)
    plain = recipe.many(*call)
    monkeypatch.setattr(ensembles, "TRACED", 1)
    traced = recipe.many(*call)
    assert all(torch.equal(tensor, traced[name]) for name, tensor in plain.items())


def test_a_shadow_is_the_recipe_on_its_members():
    data, recipe = examples(), settings(init=cnn, augment=random_mirror)
    shadows = train_shadows(recipe, data, 4, how="loop")
    own = shadows.keep[2]
    alone = recipe(Dataset(data.x[own], data.y[own], "members"), shadows.seeds[2])
    assert all(torch.equal(tensor, shadows.parameters[name][2]) for name, tensor in alone.state_dict().items())


def test_no_example_is_cut_off():
    """Sizes that fit no batch: over the steps of each model every member is seen ``epochs`` times or once more."""
    seen: list[torch.Tensor] = []

    def watching(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(labels)
        return outputs.sum(1)

    data = Dataset(np.zeros((50, 1, 8, 8), np.float32), np.arange(50), "numbered")
    for members in (7, 23, 41):
        seen.clear()
        keep = np.arange(50)[None] < members
        train_shadows(settings(loss=watching, epochs=5, batch=8), data, 1, keep=keep, how="loop")
        counts = torch.cat(seen).bincount(minlength=50)
        assert set(counts[:members].tolist()) <= {5, 6}
        assert counts[members:].sum() == 0
        assert len(seen) == -(-5 * members // 8)


@pytest.mark.parametrize("init", [dropping, normed])
def test_what_cannot_be_stacked_is_trained_in_turn(init):
    data, recipe = examples(), settings(init=init)
    with pytest.raises(AssayError, match="PRV500"):
        train_shadows(recipe, data, 4, how="stacked")
    before = torch.random.get_rng_state()
    shadows = train_shadows(recipe, data, 4)
    again = train_shadows(recipe, data, 4, chunk=1)
    assert shadows.plan.how == "loop"
    assert same(shadows, again)
    assert torch.equal(before, torch.random.get_rng_state())
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    signals = shadows.signals(x, y)
    alone = logit_scale(shadows.model(1)(x), y)  # evaluation mode: no dropout, running statistics
    np.testing.assert_allclose(signals.values[1, :, 0], alone.detach().numpy(), atol=1e-4)


def test_another_process_trains_the_same_models():
    data, recipe = examples(), settings()
    here = train_shadows(recipe, data, 4, how="stacked", chunk=2)
    with processes(1) as other:
        there = train_shadows(recipe, data, 4, how="stacked", chunk=2, map=other)
    assert same(here, there)


def test_a_killed_run_goes_on(tmp_path):
    """What was finished is not trained again, and the rest may be cut otherwise."""
    data, recipe = examples(), settings()

    def killed(function, tasks):
        for done, task in enumerate(tasks):
            if done == 2:
                raise KeyboardInterrupt
            yield function(task)

    with pytest.raises(KeyboardInterrupt):
        train_shadows(recipe, data, 8, how="loop", chunk=2, map=killed, folder=tmp_path)
    trained: list[tuple[int, int]] = []

    def counted(function, tasks):
        for task in tasks:
            trained.append((task.start, task.stop))
            yield function(task)

    resumed = train_shadows(recipe, data, 8, how="loop", chunk=3, map=counted, folder=tmp_path)
    assert trained == [(4, 7), (7, 8)]
    assert same(train_shadows(recipe, data, 8, how="loop"), resumed)
    trained.clear()
    assert same(resumed, train_shadows(recipe, data, 8, map=counted, folder=tmp_path))
    assert trained == []


@pytest.mark.parametrize(("differs", "changed"), [
    ("recipe", {"recipe": settings(rate=0.06)}),
    ("recipe", {"recipe": settings(init=cnn)}),
    ("data", {"data": examples(60), "keep": balanced_keep(2, 60, 0)}),
    ("keep", {"keep": balanced_keep(2, 90, 9)}),
    ("seeds", {"seeds": (1, 2)}),
])
def test_a_folder_is_of_one_piece(tmp_path, differs, changed):
    call = {"recipe": settings(), "data": examples(), "keep": balanced_keep(2, 90, 0), "seeds": (0, 1)}
    train_shadows(**call, n=2, how="loop", folder=tmp_path)
    with pytest.raises(AssayError, match=f"PRV501.*{differs}"):
        train_shadows(**{**call, **changed}, n=2, how="loop", folder=tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["how"] == "loop"


def test_signals_are_what_each_model_says(tmp_path):
    data, recipe = examples(), settings(init=cnn)
    shadows = train_shadows(recipe, data, 3)
    shadows.save(tmp_path / "shadows.safetensors")
    loaded = Shadows.load(tmp_path / "shadows.safetensors", cnn)
    signals = loaded.signals(data.x, data.y, augment=mirror, batch=40)
    assert signals.values.dtype == np.float32
    assert signals.values.shape == (3, 90, 2)
    assert (signals.keep == shadows.keep).all()
    assert loaded.seeds == shadows.seeds
    assert loaded.plan == shadows.plan
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    for index in range(3):
        for look, shown in enumerate((x, x.flip(-1))):
            expected = logit_scale(shadows.model(index)(shown), y).detach().numpy()
            np.testing.assert_allclose(signals.values[index, :, look], expected, atol=1e-4)
    with pytest.raises(AssayError, match="PRV503"):
        shadows.signals(data.x[:10], data.y[:10])
    assert not shadows.signals(data.x[:10], data.y[:10], keep=np.zeros((3, 10), bool)).keep.any()


def test_members_stand_out():
    """An overfitted network on noise: the mean signal of members is above that of others by far."""
    rng = np.random.default_rng(0)
    data = Dataset(rng.normal(size=(60, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, 60), "noise")
    shadows = train_shadows(settings(epochs=60), data, 8)
    signals = shadows.signals(data.x, data.y)
    assert Scores(signals.values[..., 0], shadows.keep).auc() > 0.95


def bayes(data: Dataset, seed: int) -> GaussianNB:
    return GaussianNB().fit(data.x.reshape(len(data), -1), data.y)


def test_a_procedure_of_ones_own_is_run_as_it_is(tmp_path):
    data, recipe, keep, seeds = examples(), settings(), balanced_keep(4, 90, 0), seeds_of(0, 4)
    shadows = train_shadows(recipe, data, 4, keep=keep, seeds=seeds, how="loop")
    signals = train_each(recipe, data.x, data.y, keep, seeds, folder=tmp_path)
    np.testing.assert_allclose(signals.values, shadows.signals(data.x, data.y).values, atol=1e-5)

    def none(function, tasks):
        assert not list(tasks), "what is kept was trained again"
        return []

    kept = train_each(recipe, data.x, data.y, keep, seeds, map=none, folder=tmp_path)
    assert (kept.values == signals.values).all()
    with pytest.raises(AssayError, match=r"PRV501.*recipe"):
        train_each(bayes, data.x, data.y, keep, seeds, folder=tmp_path)
    estimator = train_each(bayes, data.x, data.y, keep, seeds, augment=mirror)
    assert estimator.values.shape == (4, 90, 2)
    model = bayes(Dataset(data.x[keep[1]], data.y[keep[1]], "own"), 0)
    p = model.predict_proba(data.x.reshape(90, -1))[np.arange(90), data.y]
    middling = (p > 1e-3) & (p < 1 - 1e-3)
    p = p[middling]
    np.testing.assert_allclose(estimator.values[1, middling, 0], np.log(p / (1 - p)), rtol=1e-3)


def test_an_estimator_that_never_saw_a_class_is_not_misread():
    data = examples()
    keep = np.tile(data.y != 1, (2, 1))
    signals = train_each(bayes, data.x, data.y, keep, (0, 1))
    assert signals.values[:, data.y == 1].max() < -50


def test_memberships_must_fit():
    data = examples()
    with pytest.raises(AssayError, match="PRV502"):
        train_shadows(settings(), data, 3, keep=balanced_keep(2, 90, 0))
    with pytest.raises(AssayError, match="PRV502"):
        train_shadows(settings(), data, 2, keep=np.zeros((2, 90), bool))


def test_seeds_do_not_depend_on_how_many_there_are():
    assert seeds_of(4, 8)[:3] == seeds_of(4, 3)
    assert len(set(seeds_of(4, 100)) | set(seeds_of(5, 100))) == 200


def test_the_timing_leaves_nothing_behind():
    data, recipe = examples(), settings()
    before = torch.random.get_rng_state()
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    plan = planned(recipe, x, y, balanced_keep(4, 90, 0), seeds_of(0, 4))
    assert plan.how in ("stacked", "loop")
    assert torch.equal(before, torch.random.get_rng_state())
