"""Hugging Face datasets: a stand-in for the hub, and the real library on local folders where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from assay.data import load
from assay.errors import ConfigError

RGB = np.random.default_rng(2).integers(0, 256, (4, 3, 4, 3), dtype=np.uint8)
UNIT = np.moveaxis(RGB, 3, 1).astype(np.float32) / np.float32(255)


class Image:
    """A feature that the loader knows by the name of its type."""


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Value:
    """Any other feature."""


class Table:
    """The few methods of ``datasets.Dataset`` that the loader uses."""

    def __init__(self, features: dict[str, object], **columns: list[object]) -> None:
        self.features, self.columns = features, columns

    def __getitem__(self, name: str) -> Iterator[object]:
        for value in self.columns[name]:
            if isinstance(value, Exception):
                raise value
            yield value

    def select(self, rows: range) -> Table:
        return Table(self.features, **{name: [values[i] for i in rows] for name, values in self.columns.items()})


def pictures(*extra: object) -> Table:
    images = [*(Pillow.fromarray(pixels) for pixels in RGB), *extra]
    return Table({"img": Image(), "id": Value(), "kind": ClassLabel("cat", "dog", "emu")},
                 img=images, id=list(range(len(images))), kind=[0, 1, 2, 1, 0][: len(images)])


@pytest.fixture
def hub(monkeypatch) -> SimpleNamespace:
    """A module ``datasets`` whose hub holds ``hub.data``; ``hub.asked`` is what was asked of it last."""
    state = SimpleNamespace(data={}, asked=None)

    def load_dataset(name: str, config: str | None, *, revision: str | None) -> object:
        state.asked = (name, config, revision)
        if isinstance(state.data, Exception):
            raise state.data
        return state.data

    fake = ModuleType("datasets")
    fake.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return state


def test_images_of_the_hub(hub) -> None:
    hub.data = {"train": pictures(), "test": pictures()}
    data = load("hf:org/name@abc123#test&config=small[1:3]")
    assert hub.asked == ("org/name", "small", "abc123")
    np.testing.assert_array_equal(data.x, UNIT[1:3])
    np.testing.assert_array_equal(data.y, [1, 2])
    assert data.classes == ("cat", "dog", "emu")
    other = load("hf:org/name#test&label=id", scale="none", size=(6, 8))
    assert hub.asked == ("org/name", None, None)
    assert (other.x.shape, other.y.tolist(), other.classes) == ((4, 3, 6, 8), [0, 1, 2, 3], None)


def test_tables_and_arrays_of_the_hub(hub) -> None:
    features = {"a": Value(), "b": Value(), "label": Value(), "grid": Value()}
    hub.data = {"train": Table(features, a=[1, 2], b=[0.5, 1.5], label=[1, 0], grid=[[[1, 2]], [[3, 4]]])}
    np.testing.assert_array_equal(load("hf:org/name#input=b,a").x, [[0.5, 1], [1.5, 2]])
    grid = load("hf:org/name#train&input=grid")
    np.testing.assert_array_equal(grid.x, [[[[1, 2]]], [[[3, 4]]]])
    np.testing.assert_array_equal(grid.y, [1, 0])


def test_what_the_hub_lacks_is_refused(hub, refuses) -> None:
    hub.data = {"train": pictures(), "test": pictures()}
    with refuses("DAT104", "must name a split", "test, train", "hf:org/name"):
        load("hf:org/name")
    with refuses("DAT104", "no split 'tests'", "did you mean 'test'?"):
        load("hf:org/name#tests")
    with refuses("DAT108", "no column 'kinds'", "did you mean 'kind'?"):
        load("hf:org/name#test&label=kinds")
    with refuses("DAT108", "one column of images", "img, id"):
        load("hf:org/name#test&input=img,id")
    with refuses("DAT105", "none of 4 rows"):
        load("hf:org/name#test[9:]")
    hub.data = pictures()
    with refuses("DAT104", "holds no splits"):
        load("hf:org/name#test")
    hub.data = ConnectionError("no route")
    with refuses("DAT119", "ConnectionError: no route", "hf:org/name"):
        load("hf:org/name#test")


def test_bad_cells_of_the_hub_are_refused(hub, refuses) -> None:
    for bad, part in ((None, "missing"), (OSError("truncated"), "truncated"), (Pillow.new("I;16", (4, 3)), "I;16")):
        hub.data = pictures(bad)
        with refuses("DAT117", part, "hf:org/name, row 4"):
            load("hf:org/name[2:]")
    hub.data = pictures(Pillow.new("RGB", (9, 9)))
    with refuses("DAT116", "9x9", "row 4"):
        load("hf:org/name")
    features = {"a": Value(), "label": Value()}
    hub.data = Table(features, a=[[1, 2], [3]], label=[0, 1])
    with refuses("DAT110", "column 'a' differ in shape"):
        load("hf:org/name")
    hub.data = Table(features, a=["p", "q"], label=[0, 1])
    with refuses("DAT110", "column 'a' does not hold numbers"):
        load("hf:org/name")


def test_without_datasets_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'assay\[huggingface\]'"):
        load("hf:org/name")


def test_the_real_library_on_local_folders(tmp_path: Path, refuses) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'huggingface' is not installed")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])})
    table = datasets.Dataset.from_dict({"img": [Pillow.fromarray(pixels) for pixels in RGB], "kind": [0, 1, 1, 0]}, features)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "saved"))
    data = load("hf:saved#test[1:3]", base=tmp_path)
    np.testing.assert_array_equal(data.x, UNIT[1:3])
    assert (data.y.tolist(), data.classes) == ([1, 1], ("cat", "dog"))
    table.save_to_disk(str(tmp_path / "one"))
    np.testing.assert_array_equal(load("hf:one", base=tmp_path).x, UNIT)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    rows = load("hf:files", base=tmp_path)
    np.testing.assert_array_equal(rows.x, [[1, 2], [3, 4]])
    with refuses("DAT119", "hf:files"):
        load("hf:files#config=absent", base=tmp_path)
