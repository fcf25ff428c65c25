"""NumPy and IDX files: exact contents, keys and splits, slices, paths, and every damaged file."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from assay.data import load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 2, 0, 1], dtype=np.uint8)
NCHW = np.moveaxis(IMAGES, 3, 1).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize(("x_key", "y_key", "fragment"), [
    ("x", "y", ""), ("X", "Y", ""), ("images", "labels", ""), ("data", "target", ""), ("x_test", "y_test", "#test"),
    ("test_images", "test_labels", "#test"), ("XTest", "yTest", "#test"), ("x_test", "y_test", ""),
    ("x_fold7", "y_fold7", "#fold7"), ("left", "right", "#input=left&label=right"), ("left", "y", "#input=left"),
    ("x_test", "right", "#label=right"),
])
def test_npz_round_trip(tmp_path: Path, x_key: str, y_key: str, fragment: str) -> None:
    np.savez_compressed(tmp_path / "d.npz", **{x_key: IMAGES, y_key: LABELS})
    data = load(f"d.npz{fragment}", base=tmp_path)
    np.testing.assert_array_equal(data.x, NCHW)
    np.testing.assert_array_equal(data.y, LABELS)
    assert (data.x.dtype, data.y.dtype, data.name) == (np.float32, np.int64, f"d.npz{fragment}")
    assert load(f"npz:{tmp_path}/d.npz{fragment}").fingerprint == data.fingerprint


def test_npz_splits_are_chosen_or_refused(tmp_path: Path, refuses) -> None:
    np.savez(tmp_path / "d.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2])
    assert len(load("d.npz#train", base=tmp_path)) == 6
    assert len(load("d.npz#test", base=tmp_path)) == 2
    with refuses("DAT104", "must name a split", "test, train", "d.npz"):
        load("d.npz", base=tmp_path)
    with refuses("DAT104", "no split 'tets'", "test, train", "did you mean 'test'?", "y_test"):
        load("d.npz#tets", base=tmp_path)


def test_npz_keys_that_are_ambiguous_or_absent_are_refused(tmp_path: Path, refuses) -> None:
    np.savez(tmp_path / "two.npz", x=IMAGES, images=IMAGES, y=LABELS)
    with refuses("DAT108", "several keys could be the inputs: x, images", "#input=KEY"):
        load("two.npz", base=tmp_path)
    np.savez(tmp_path / "none.npz", x=IMAGES, digit=LABELS)
    with refuses("DAT108", "no key is known to be the labels: x, digit", "#label=KEY"):
        load("none.npz", base=tmp_path)
    with refuses("DAT108", "no key 'digits'", "x, digit", "did you mean 'digit'?"):
        load("none.npz#label=digits", base=tmp_path)
    np.savez(tmp_path / "mixed.npz", x_test=IMAGES, y=LABELS)
    with refuses("DAT108", "'x_test' and 'y' are not of one split"):
        load("mixed.npz", base=tmp_path)


def test_npz_class_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=LABELS, names=np.array(["a", "b", "c"]))
    assert load("d.npz[:1]", base=tmp_path).classes == ("a", "b", "c")
    np.savez(tmp_path / "samples.npz", x=IMAGES, y=LABELS, names=np.array(list("abcdef")))
    assert load("samples.npz", base=tmp_path).classes is None
    np.savez(tmp_path / "text.npz", x=IMAGES, y=np.array(["dog", "cat", "dog", "fox", "cat", "cat"]))
    data = load("text.npz[:3]", base=tmp_path)
    assert data.classes == ("cat", "dog", "fox")
    np.testing.assert_array_equal(data.y, [1, 0, 1])


@pytest.mark.parametrize(("text", "rows"), [
    ("[:2]", slice(0, 2)), ("[2:4]", slice(2, 4)), ("[4:]", slice(4, 6)), ("[:]", slice(0, 6)), ("[3:99]", slice(3, 6)),
])
def test_slices(tmp_path: Path, text: str, rows: slice) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=LABELS)
    data = load(f"d.npz{text}", base=tmp_path)
    np.testing.assert_array_equal(data.x, NCHW[rows])
    np.testing.assert_array_equal(data.y, LABELS[rows])


@pytest.mark.parametrize("text", ["[6:]", "[3:3]", "[4:2]", "[:0]"])
def test_empty_selections_are_refused(tmp_path: Path, text: str, refuses) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=LABELS)
    with refuses("DAT105", f"{text} selects none of 6 rows", "d.npz [x, y]"):
        load(f"d.npz{text}", base=tmp_path)


def test_rows_in_errors_count_from_the_start_of_the_file(tmp_path: Path, refuses) -> None:
    x = np.zeros((9, 2))
    x[5, 1] = np.inf
    np.savez(tmp_path / "d.npz", x=x, y=[0, 0, 0, 0, 0, 0, -1, 0, 0])
    with refuses("DAT111", "1 of 3 rows", "row 5 (from 0)", "index [1]", "d.npz [x, y], row 5"):
        load("d.npz[3:6]", base=tmp_path)
    with refuses("DAT114", "label -1 at row 6"):
        load("d.npz[6:]", base=tmp_path)
    assert len(load("d.npz[:5]", base=tmp_path)) == 5


def test_scale_and_layout_options(tmp_path: Path, refuses) -> None:
    cube = RNG.integers(0, 256, (2, 3, 3, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=cube, y=[0, 1])
    with refuses("DAT109", "(2, 3, 3, 3)", "both", "d.npz [x, y]"):
        load("d.npz", base=tmp_path)
    np.testing.assert_array_equal(load("d.npz", base=tmp_path, layout="nchw", scale="none").x, cube)
    np.testing.assert_array_equal(load("d.npz", base=tmp_path, layout="nhwc", scale="none").x, np.moveaxis(cube, 3, 1))


def test_length_mismatch_is_refused(tmp_path: Path, refuses) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=LABELS[:5])
    with refuses("DAT112", "6 inputs but 5 labels", "d.npz [x, y]"):
        load("d.npz[:2]", base=tmp_path)


def test_npy_pairs(tmp_path: Path, refuses) -> None:
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "X.npy", IMAGES)
    np.save(tmp_path / "sub" / "y.npy", LABELS)
    for spec in ("npy:sub/X.npy,y.npy[1:3]", "sub/X.npy,sub/y.npy[1:3]"):
        data = load(spec, base=tmp_path)
        np.testing.assert_array_equal(data.x, NCHW[1:3])
        np.testing.assert_array_equal(data.y, LABELS[1:3])
    with refuses("DAT101", "two files", "got 1"):
        load("sub/X.npy", base=tmp_path)
    with refuses("DAT101", "got 3"):
        load("npy:a.npy,b.npy,c.npy", base=tmp_path)
    with refuses("DAT104", "no split 'test'", "holds no splits"):
        load("sub/X.npy,y.npy#test", base=tmp_path)
    with refuses("DAT101", "label= means nothing"):
        load("sub/X.npy,y.npy#label=a", base=tmp_path)
    with refuses("DAT103", "no 'z.npy'"):
        load("sub/X.npy,z.npy", base=tmp_path)
    np.savez(tmp_path / "archive.npz", x=IMAGES)
    with refuses("DAT106", "an .npz archive"):
        load("npy:archive.npz,sub/y.npy", base=tmp_path)


def test_pickles_are_refused(tmp_path: Path, refuses) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "d.npz", x=objects, y=[0, 1])
    with refuses("DAT107", "d.npz [x]", "never does"):
        load("d.npz", base=tmp_path)
    np.save(tmp_path / "x.npy", objects)
    np.save(tmp_path / "y.npy", [0, 1])
    with refuses("DAT107", "x.npy"):
        load("x.npy,y.npy", base=tmp_path)
    (tmp_path / "x.npy").write_bytes(pickle.dumps([1, 2]))
    with refuses("DAT107", "x.npy"):
        load("x.npy,y.npy", base=tmp_path)


def test_damaged_numpy_files_are_refused(tmp_path: Path, refuses) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=LABELS)
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:-40])
    with refuses("DAT106", "only part of one", "d.npz"):
        load("d.npz", base=tmp_path)
    middle = whole.index(IMAGES.tobytes()) + 20
    (tmp_path / "d.npz").write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1:])
    with refuses("DAT106", "d.npz [x]", "CRC"):
        load("d.npz", base=tmp_path)
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "x.npy", IMAGES)
    content = (tmp_path / "x.npy").read_bytes()
    for kept in (len(content) - 1, 30, 4, 0):
        (tmp_path / "x.npy").write_bytes(content[:kept])
        with refuses("DAT106", "x.npy"):
            load("x.npy,y.npy", base=tmp_path)
    (tmp_path / "x.npy").write_text("not an array")
    with refuses("DAT106", "not a NumPy array file"):
        load("x.npy,y.npy", base=tmp_path)
    for shape in (b"(9999999999,", b"(999999999,)", b"(6, 5, 7, a)", b"(6, 5, 7,\0 )"):
        (tmp_path / "x.npy").write_bytes(content.replace(b"(6, 5, 7, 3)", shape, 1))
        with refuses("DAT106", "x.npy"):
            load("x.npy,y.npy", base=tmp_path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_types_round_trip(tmp_path: Path, dtype: str, write_idx) -> None:
    x = RNG.integers(0, 100, (4, 5, 6)).astype(dtype)
    write_idx(tmp_path / "train-images-idx3-ubyte", x)
    write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS[:4])
    data = load(".", base=tmp_path)
    scale = np.float32(255) if dtype == "u1" else np.float32(1)
    np.testing.assert_array_equal(data.x, x[:, None].astype(np.float32) / scale)
    np.testing.assert_array_equal(data.y, LABELS[:4])


@pytest.mark.parametrize("name", ["{}-{}-idx{}-ubyte", "{}-{}-idx{}-ubyte.gz", "{}-{}.idx{}-ubyte", "{}-{}.idx{}-ubyte.gz"])
def test_idx_names_and_splits(tmp_path: Path, name: str, write_idx, refuses) -> None:
    gray = IMAGES[..., 0]
    for split, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        write_idx(tmp_path / name.format(split, "images", 3), gray[rows])
        write_idx(tmp_path / name.format(split, "labels", 1), LABELS[rows])
    for kind in ("", "idx:", "mnist:"):
        data = load(f"{kind}{tmp_path}#test")
        np.testing.assert_array_equal(data.x, gray[4:, None].astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(data.y, LABELS[4:])
    np.testing.assert_array_equal(load("mnist:.#train[1:3]", base=tmp_path).y, LABELS[1:3])
    with refuses("DAT104", "must name a split", "test, train", str(tmp_path)):
        load("mnist:.", base=tmp_path)
    with refuses("DAT104", "no split 'val'", "test, train"):
        load("mnist:.#val", base=tmp_path)
    (tmp_path / name.format("t10k", "labels", 1)).unlink()
    with refuses("DAT104", "no split 'test'", "it holds train"):
        load("mnist:.#test", base=tmp_path)


def test_damaged_idx_files_are_refused(tmp_path: Path, write_idx, refuses) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(images, IMAGES[..., 0])
    write_idx(labels, LABELS)
    whole = images.read_bytes()
    for content, part in ((whole[:-3], "promises 210 bytes for shape (6, 5, 7); there are 207"),
                          (whole + b"!", "there are 211"), (whole[:9], "00 00 08 03"), (b"", "empty"),
                          (b"PNG!" + whole[4:], "50 4e 47 21"), (b"\0\0\x07\x03" + whole[4:], "00 00 07 03")):
        images.write_bytes(content)
        with refuses("DAT106", part, str(images)):
            load("mnist:.", base=tmp_path)
    images.unlink()
    zipped = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (gzip.compress(whole)[:-12], b"plain text", gzip.compress(whole)[:8]):
        zipped.write_bytes(content)
        with refuses("DAT106", str(zipped)):
            load("mnist:.", base=tmp_path)


def test_kinds_and_files_that_are_missing_are_refused(tmp_path: Path, refuses, monkeypatch) -> None:
    np.savez(tmp_path / "cifar.npz", x=IMAGES, y=LABELS)
    with refuses("DAT101", "names no path"):
        load("", base=tmp_path)
    with refuses("DAT103", "there is no 'cifar.npzcifar.npz"):
        load("cifar.npz" * 100, base=tmp_path)
    with refuses("DAT102", "'mnits'", "npz, npy, idx", "did you mean 'mnist'?"):
        load("mnits:folder", base=tmp_path)
    with refuses("DAT103", "no 'cifra.npz'", "did you mean 'cifar.npz'?", str(tmp_path / "cifra.npz")):
        load("cifra.npz", base=tmp_path)
    with refuses("DAT103", "no folder", "nowhere"):
        load("nowhere/d.npz", base=tmp_path)
    with refuses("DAT103", "did you mean 'cifar.npz'?"):
        load("cifar", base=tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with refuses("DAT102", "'notes.txt'", "npz:notes.txt"):
        load("notes.txt", base=tmp_path)
    with refuses("DAT101", "config= means nothing", "it reads label, input"):
        load("cifar.npz#config=a", base=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(load("cifar.npz")) == 6


@pytest.mark.parametrize("name", ["a#b.npz", "a[1:2].npz", "a#test[:3]", "a%23.npz", "npz:x.npz", "~nobody.npz"])
def test_a_path_that_exists_is_taken_as_it_stands(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.savez(file, x=IMAGES, y=LABELS)
    assert len(load(f"npz:{name}", base=tmp_path)) == 6
    escaped = name.replace("%", "%25").replace("#", "%23").replace("[", "%5B")
    assert len(load(f"npz:{escaped}[:2]", base=tmp_path)) == 2
    if name.endswith(".npz"):
        assert len(load(name, base=tmp_path)) == 6
