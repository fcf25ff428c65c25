"""Folders of images: exact pixels, modes, classes, sizes, and images that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.data import load

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
UNIT = np.moveaxis(RGB, 3, 1).astype(np.float32) / np.float32(255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``dog/1.png dog/2.png cat/a.png cat/deep/b.bmp``, which sort to cat/a, cat/deep/b, dog/1, dog/2."""
    for pixels, name in zip(RGB, ["cat/a.png", "cat/deep/b.bmp", "dog/1.png", "dog/2.png"]):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / ".cache").mkdir()
    return tmp_path


def test_a_folder_a_class(folder: Path) -> None:
    for spec in ("pets/", "images:pets", str(folder / "pets")):
        data = load(spec, base=folder)
        np.testing.assert_array_equal(data.x, UNIT)
        np.testing.assert_array_equal(data.y, [0, 0, 1, 1])
        assert data.classes == ("cat", "dog")
    part = load("pets[1:3]", base=folder, scale="none")
    np.testing.assert_array_equal(part.x, np.moveaxis(RGB[1:3], 3, 1))
    np.testing.assert_array_equal(part.y, [0, 1])


def test_declared_classes_set_the_numbers(folder: Path, refuses) -> None:
    data = load("pets", base=folder, classes=["dog", "emu", "cat"])
    np.testing.assert_array_equal(data.y, [2, 2, 0, 0])
    assert data.classes == ("dog", "emu", "cat")
    with refuses("DAT118", "'dog'", "did you mean 'dogs'?", "pets"):
        load("pets", base=folder, classes=["cat", "dogs"])


def test_folders_named_by_numbers_must_sort_alike(tmp_path: Path, refuses) -> None:
    for name in ("1", "2", "10"):
        (tmp_path / name).mkdir()
        Image.fromarray(RGB[0]).save(tmp_path / name / "a.png")
    with refuses("DAT118", "1, 10, 2", "Give classes"):
        load("images:.", base=tmp_path)
    np.testing.assert_array_equal(load("images:.", base=tmp_path, classes=["1", "2", "10"]).y, [0, 2, 1])


def test_splits_are_folders(folder: Path, refuses) -> None:
    (folder / "all").mkdir()
    (folder / "pets").rename(folder / "all" / "test")
    np.testing.assert_array_equal(load("all#test[2:]", base=folder).x, UNIT[2:])
    with refuses("DAT104", "must name a split", "it holds test"):
        load("all", base=folder)
    with refuses("DAT104", "no split 'tst'", "did you mean 'test'?"):
        load("all#tst", base=folder)


def test_a_flat_folder_with_a_table(tmp_path: Path, refuses) -> None:
    for i, pixels in enumerate(RGB):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n3.png,dog\n0.png,cat\n1.png,dog\n")
    data = load("images:.", base=tmp_path)
    np.testing.assert_array_equal(data.x, UNIT[[3, 0, 1]])
    np.testing.assert_array_equal(data.y, [1, 0, 1])
    assert data.classes == ("cat", "dog")
    table.write_text("label,file\n7,2.png\n0,0.png\n")
    np.testing.assert_array_equal(load("images:.", base=tmp_path).y, [7, 0])
    table.write_text("file,label\n9.png,1\n")
    with refuses("DAT103", "no '9.png'", "did you mean"):
        load("images:.", base=tmp_path)
    table.write_text("file,label\n0.png,1\n1.png,1.5\n")
    with refuses("DAT113", "1.5", "row 1", "labels.csv"):
        load("images:.", base=tmp_path)
    table.write_text("file,label\n0.png,1\n1.png\n")
    with refuses("DAT108", "row 1", "lacks its file or its label"):
        load("images:.", base=tmp_path)
    table.write_text("name,label\n0.png,1\n")
    with refuses("DAT108", "columns file and label", "name, label"):
        load("images:.", base=tmp_path)
    table.write_bytes(b"file,label\n\xff,1\n")
    with refuses("DAT106", "labels.csv"):
        load("images:.", base=tmp_path)


def test_images_of_differing_size(folder: Path, refuses) -> None:
    odd = folder / "pets" / "dog" / "1.png"
    Image.fromarray(np.full((10, 8, 3), 51, np.uint8)).save(odd)
    with refuses("DAT116", "image 2", "10x8 (height x width)", "5x4", str(odd), str(folder / "pets" / "cat" / "a.png")):
        load("pets", base=folder)
    data = load("pets", base=folder, size=(5, 4))
    assert data.x.shape == (4, 3, 5, 4)
    np.testing.assert_array_equal(data.x[[0, 1, 3]], UNIT[[0, 1, 3]])
    np.testing.assert_array_equal(data.x[2], np.full((3, 5, 4), np.float32(51) / np.float32(255)))


def _save(folder: Path, name: str, image: Image.Image) -> None:
    (folder / "a").mkdir(exist_ok=True)
    image.save(folder / "a" / name)


def test_gray_images_have_one_channel_unless_others_have_three(tmp_path: Path) -> None:
    gray = RGB[0, ..., 0]
    _save(tmp_path, "0.png", Image.fromarray(gray))
    data = load("images:.", base=tmp_path)
    np.testing.assert_array_equal(data.x, (gray.astype(np.float32) / np.float32(255))[None, None])
    _save(tmp_path, "1.png", Image.fromarray(RGB[1]))
    data = load("images:.", base=tmp_path, scale="none")
    np.testing.assert_array_equal(data.x[0], np.stack([gray] * 3))
    np.testing.assert_array_equal(data.x[1], np.moveaxis(RGB[1], 2, 0))


def test_opaque_alpha_and_palettes_are_read(tmp_path: Path) -> None:
    _save(tmp_path, "0.png", Image.fromarray(RGB[0]).convert("RGBA"))
    few = RGB[1] // 128 * 255
    _save(tmp_path, "1.png", Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE, colors=16))
    data = load("images:.", base=tmp_path, scale="none")
    np.testing.assert_array_equal(data.x, np.moveaxis(np.stack([RGB[0], few]), 3, 1))


def test_images_that_cannot_be_read_are_refused(tmp_path: Path, refuses) -> None:
    path = tmp_path / "a" / "0.png"
    _save(tmp_path, "0.png", Image.fromarray(np.zeros((3, 3), np.uint16)))
    with refuses("DAT117", "I;16", str(path)):
        load("images:.", base=tmp_path)
    _save(tmp_path, "0.png", Image.new("RGBA", (3, 3), (1, 2, 3, 128)))
    with refuses("DAT117", "transparent", "Flatten"):
        load("images:.", base=tmp_path)
    _save(tmp_path, "0.png", Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    whole = path.read_bytes()
    for content in (whole[:2000], b"no image", b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 3 3\n"):
        path.write_bytes(content)
        with refuses("DAT117", "Pillow cannot read the image", str(path)):
            load("images:.", base=tmp_path)


def test_folders_without_images_are_refused(tmp_path: Path, refuses) -> None:
    with refuses("DAT106", "neither a folder a class nor a labels.csv"):
        load("images:.", base=tmp_path)
    (tmp_path / "a").mkdir()
    with refuses("DAT105", "selects none of 0 rows"):
        load("images:.", base=tmp_path)
    (tmp_path / "file").write_text("")
    with refuses("DAT106", "not a folder"):
        load("images:file", base=tmp_path)
    with refuses("DAT101", "label= means nothing"):
        load("images:.#label=a", base=tmp_path)
