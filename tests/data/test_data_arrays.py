"""Datasets in memory: contents, shapes, scale, labels, fingerprints, and every check with its row."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from assay.data import Dataset, arrays, load, validate
from assay.data.labels import number_names
from assay.errors import DataError

X = np.arange(24, dtype=np.float64).reshape(4, 6) / 24
Y = np.array([0, 1, 2, 1], dtype=np.uint8)


def test_arrays_are_copied_to_float32_and_int64() -> None:
    source = X.astype(np.float32)
    data = arrays(source, Y, name="mine", classes=["a", "b", "c"])
    source[0] = 9
    assert data.x.dtype == np.float32
    assert data.y.dtype == np.int64
    np.testing.assert_array_equal(data.x, X.astype(np.float32))
    np.testing.assert_array_equal(data.y, [0, 1, 2, 1])
    assert (data.name, data.classes, len(data)) == ("mine", ("a", "b", "c"), 4)
    assert repr(data) == "Dataset('mine', x float32[4, 6], y int64[4])"


def test_uint8_images_are_scaled_and_tables_are_not() -> None:
    pixels = np.array([0, 51, 255, 102], dtype=np.uint8)
    expected = (pixels / 255).astype(np.float32)
    np.testing.assert_array_equal(arrays(pixels.reshape(1, 1, 2, 2), [0]).x, expected.reshape(1, 1, 2, 2))
    np.testing.assert_array_equal(arrays(pixels.reshape(1, 1, 2, 2), [0], scale="none").x.ravel(), [0, 51, 255, 102])
    np.testing.assert_array_equal(arrays(pixels.reshape(1, 4), [0]).x, [[0, 51, 255, 102]])
    np.testing.assert_array_equal(arrays(pixels.reshape(1, 1, 2, 2).astype(int), [0]).x.ravel(), [0, 51, 255, 102])


@pytest.mark.parametrize(("shape", "layout", "expected"), [
    ((2, 5, 6, 3), "auto", (2, 3, 5, 6)), ((2, 3, 5, 6), "auto", (2, 3, 5, 6)), ((2, 28, 28, 1), "auto", (2, 1, 28, 28)),
    ((2, 3, 5, 3), "nhwc", (2, 3, 3, 5)), ((2, 3, 5, 3), "nchw", (2, 3, 5, 3)), ((2, 5, 6), "auto", (2, 1, 5, 6)),
    ((2, 5, 6), "keep", (2, 5, 6)), ((2, 3, 4, 5, 6), "keep", (2, 3, 4, 5, 6)), ((2, 7), "nhwc", (2, 7)),
])
def test_layouts(shape: tuple[int, ...], layout: str, expected: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    data = arrays(x, [0, 1], layout=layout)
    assert data.x.shape == expected
    assert data.x.flags.c_contiguous
    moved = np.moveaxis(x, 3, 1) if len(shape) == 4 and expected != shape else x
    np.testing.assert_array_equal(data.x.ravel(), moved.ravel())


@pytest.mark.parametrize(("shape", "layout", "parts"), [
    ((2, 3, 5, 3), "auto", ["(2, 3, 5, 3)", "both", "axis 1 (3)"]), ((2, 7, 5, 8), "auto", ["neither", "axis 3 (8)"]),
    ((2,), "keep", ["shape (2,)"]), ((2, 0), "keep", ["shape (2, 0)"]), ((2, 1, 1, 1, 1), "nchw", ["got 5"]),
])
def test_ambiguous_shapes_are_refused(shape: tuple[int, ...], layout: str, parts: list[str], refuses) -> None:
    with refuses("DAT109", *parts, "layout 'nchw'"):
        arrays(np.zeros(shape), [0, 1], layout=layout)


def test_ragged_and_non_numeric_inputs_are_refused(refuses) -> None:
    with refuses("DAT109", "the inputs do not form one array"):
        arrays([[1.0], [1.0, 2.0]], [0, 1])
    with refuses("DAT110", "<U1"):
        arrays([["a"], ["b"]], [0, 1])
    with refuses("DAT110", "object"):
        arrays(np.array([[None]]), [0])


def test_labels_may_be_whole_floats_a_column_booleans_or_names() -> None:
    x = np.zeros((3, 2))
    np.testing.assert_array_equal(arrays(x, [0.0, 2.0, 1.0]).y, [0, 2, 1])
    np.testing.assert_array_equal(arrays(x, [[0], [2], [1]]).y, [0, 2, 1])
    np.testing.assert_array_equal(arrays(x, [True, False, True]).y, [1, 0, 1])
    np.testing.assert_array_equal(arrays(x, ["1", "0", "2"]).y, [1, 0, 2])
    named = arrays(x, ["dog", "cat", "dog"])
    np.testing.assert_array_equal(named.y, [1, 0, 1])
    assert named.classes == ("cat", "dog")
    ordered = arrays(x, ["dog", "cat", "dog"], classes=["dog", "fox", "cat"])
    np.testing.assert_array_equal(ordered.y, [0, 2, 0])


@pytest.mark.parametrize(("y", "parts"), [
    ([0, 0.5, 1.5], ["2 of 3 labels are", "0.5", "row 1"]), ([0, 1, np.nan], ["1 of 3 labels is", "nan", "row 2"]),
    ([[1, 0], [0, 1], [1, 0]], ["(3, 2)", "argmax"]), (["1", "cat", "2"], ["'cat'", "row 1"]),
    (["1", "2.5", "0"], ["2.5", "row 1"]), ([1j, 0, 0], ["complex"]),
    (np.array([0, 1, 2**63], dtype=np.uint64), ["9223372036854775808", "row 2"]),
])
def test_labels_that_are_not_whole_are_refused(y: object, parts: list[str], refuses) -> None:
    with refuses("DAT113", *parts):
        arrays(np.zeros((3, 2)), y)


def test_labels_out_of_range_are_refused(refuses) -> None:
    with refuses("DAT114", "2 of 3 labels are", "label -1", "row 1", "0 or more"):
        arrays(np.zeros((3, 2)), [0, -1, -2])
    with refuses("DAT114", "1 of 3 labels is", "label 2", "row 2", "0 ... 1 for 2 classes"):
        arrays(np.zeros((3, 2)), [0, 1, 2], classes=["a", "b"])
    with refuses("DAT118", "'cta'", "2 declared classes", "did you mean 'cat'?"):
        arrays(np.zeros((2, 2)), ["dog", "cta"], classes=["cat", "dog"])
    with refuses("DAT118", "numbers that sort differently", "1, 10, 9"):
        number_names(["9", "10", "1"], None, where="folder")


def test_lengths_and_emptiness_are_refused(refuses) -> None:
    with refuses("DAT112", "4 inputs but 3 labels", "where set"):
        arrays(X, [0, 1, 2], name="set")
    with refuses("DAT105", "not one row"):
        arrays(np.zeros((0, 3)), [])


def test_values_that_are_not_finite_are_refused(refuses) -> None:
    x = X.copy()
    x[2, 3], x[3, 0] = np.nan, np.inf
    with refuses("DAT111", "2 of 4 rows", "row 2 (from 0)", "index [3]", "nan", "finite", "where set, row 2"):
        arrays(x, Y, name="set")
    x = np.zeros((2, 1, 2, 2))
    x[1, 0, 1, 0] = 1e300
    with refuses("DAT111", "1 of 2 rows", "row 1", "index [0, 1, 0]", "inf"):
        arrays(x, [0, 1])


def test_options_without_meaning_are_refused(refuses) -> None:
    with refuses("DAT120", "scale must be one of unit, none", "did you mean 'unit'?"):
        arrays(X, Y, scale="units")
    with refuses("DAT120", "layout must be one of", "did you mean 'nchw'?"):
        arrays(X, Y, layout="ncwh")
    with refuses("DAT120", "['a']"):
        arrays(X, Y, classes=["a", "a"])
    with refuses("DAT120", "(height, width)"):
        load("anything", size=(0, 3))


def test_fingerprints_are_stable_and_sensitive() -> None:
    data = arrays(X, Y)
    # A literal, so that no change of platform or release goes unnoticed in old evidence.
    assert data.fingerprint == "e060e8bbb3ad0d29518802d47dc5da3622f68860cc80c6f65681ce187daa38e7"
    assert arrays(np.asfortranarray(X), Y.astype(float), name="other", classes=["a", "b", "c"]).fingerprint == data.fingerprint
    nudged = X.copy()
    nudged[3, 5] = np.nextafter(np.float32(X[3, 5]), np.float32(2))
    others = [arrays(nudged, Y), arrays(X.reshape(4, 2, 3), Y), arrays(X, Y[::-1]), arrays(X[:3], Y[:3]),
              Dataset(data.x.astype(np.float64), data.y, "x"), Dataset(data.x, data.y.astype(np.int32), "x")]
    prints = [other.fingerprint for other in others]
    assert len({data.fingerprint, *prints}) == 7
    swapped = Dataset(data.x.astype(">f4"), data.y.astype(">i8"), "big-endian")
    assert swapped.fingerprint == data.fingerprint


def test_validate_accepts_what_the_target_takes() -> None:
    validate(arrays([[0.0, 1.0], [0.1, 0.9]], [0, 9]), bounds=(0, 1), classes=10)
    validate(arrays([[0.1, 0.7]], [0]), bounds=(0.1, 0.7), classes=None)
    validate(arrays([[-5.0, 7.0]], [3]), bounds=None, classes=None)


@pytest.mark.parametrize(("data", "code", "parts"), [
    (arrays([[0, 1], [0, 1.5], [-1, 0]], [0, 1, 1], name="set"), "DAT115",
     ["2 of 3 rows", "row 1", "index [1]", "1.5", "[0, 1]", "spans [-1, 1.5]", "where set, row 1"]),
    (arrays([[0], [1]], [0, 2]), "DAT114", ["label 2", "row 1", "0 ... 1 for 2 classes"]),
    (Dataset(np.zeros((2, 2), np.float32), np.array([0, 1, 1]), "set"), "DAT112", ["2 inputs but 3 labels"]),
    (Dataset(np.full((2, 2), np.nan, np.float32), np.array([0, 1]), "set"), "DAT111", ["2 of 2 rows", "row 0"]),
    (Dataset(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), "set"), "DAT105", ["not one row"]),
    (Dataset(np.zeros((2, 2), np.uint8), np.array([0, 1]), "set"), "DAT110", ["uint8"]),
    (Dataset(np.zeros((2, 2), np.float32), np.array([0.0, 1.0]), "set"), "DAT113", ["float64 of shape (2,)"]),
    (Dataset(np.zeros((2, 2), np.float32), np.array([[0], [1]]), "set"), "DAT113", ["shape (2, 1)"]),
])
def test_validate_refuses_the_rest(data: Dataset, code: str, parts: list[str], refuses) -> None:
    with refuses(code, *parts):
        validate(data, bounds=(0, 1), classes=2)


def test_validate_takes_the_number_of_classes_from_their_names(refuses) -> None:
    data = Dataset(np.zeros((1, 1), np.float32), np.array([2]), "set", ("a", "b"))
    with refuses("DAT114", "for 2 classes"):
        validate(data, bounds=None, classes=None)


def test_errors_survive_pickling() -> None:
    with pytest.raises(DataError) as caught:
        arrays(X, [0])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_importing_is_cheap() -> None:
    code = "import sys, assay.data; print(sorted({'torch', 'PIL', 'pyarrow', 'datasets'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
