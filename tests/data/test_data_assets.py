"""The real sets as they were published: sizes, ranges, classes and known labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.data import load, validate


def test_mnist(assets: Path) -> None:
    data = load("mnist:datasets/mnist#test", base=assets)
    assert data.x.shape == (10_000, 1, 28, 28)
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int64)
    assert data.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The published counts of the test set.
    assert np.bincount(data.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (data.x.min(), data.x.max()) == (0, 1)
    validate(data, bounds=(0, 1), classes=10)
    part = load("datasets/mnist#test[100:200]", base=assets)
    np.testing.assert_array_equal(part.x, data.x[100:200])
    np.testing.assert_array_equal(part.y, data.y[100:200])
    train = load("idx:datasets/mnist#train[:5]", base=assets)
    assert train.y.tolist() == [5, 0, 4, 1, 9]


@pytest.mark.parametrize(("spec", "shape", "classes"), [
    ("datasets/fashion_mnist#test", (10_000, 1, 28, 28), 10),
    ("datasets/cifar10_lossless/cifar10_lossless_subset.npz#train", (3997, 3, 32, 32), 10),
    ("datasets/cifar10_lossless/cifar10_lossless_subset.npz#test", (300, 3, 32, 32), 10),
    ("datasets/cifar10_jpeg/cifar10_jpeg_subset.npz#test", (3000, 3, 32, 32), 10),
    ("datasets/gtsrb/gtsrb32_subset.npz#test", (2150, 3, 32, 32), 43),
    ("datasets/att_faces/att_faces_28x23.npz", (400, 1, 28, 23), 40),
    ("datasets/face_crops/face_crops_112.npz", (40, 3, 112, 112), 8),
    ("npy:models/sdp_cnn_a/cifar_X.npy,cifar_y.npy", (200, 3, 32, 32), 10),
    ("models/sdp_cnn_a/mnist_X.npy,mnist_y.npy", (200, 1, 28, 28), 10),
])
def test_every_set_of_images_loads(assets: Path, spec: str, shape: tuple[int, ...], classes: int) -> None:
    data = load(spec, base=assets)
    assert data.x.shape == shape
    assert set(data.y.tolist()) == set(range(classes))
    assert data.x.max() > 0.9
    validate(data, bounds=(0, 1), classes=classes)


def test_gtsrb_and_faces_hold_what_their_notes_say(assets: Path) -> None:
    assert np.bincount(load("datasets/gtsrb/gtsrb32_subset.npz#test", base=assets).y).max() == 50
    assert set(np.bincount(load("datasets/att_faces/att_faces_28x23.npz", base=assets).y)) == {10}
    faces = load("datasets/face_crops/face_crops_112.npz", base=assets)
    assert faces.classes is not None
    assert faces.classes[0] == "amy"
    assert set(np.bincount(faces.y)) == {5}


def test_axes_are_moved_not_reshaped(assets: Path) -> None:
    path = assets / "datasets" / "gtsrb" / "gtsrb32_subset.npz"
    with np.load(path) as stored:
        x = stored["x_test"][:20]
    expected = x.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(load(f"{path}#test[:20]").x, expected)


def test_adult(assets: Path, refuses) -> None:
    data = load("datasets/adult/adult.csv#label=income-per-year&input=age,education-num,hours-per-week", base=assets)
    assert data.x.shape == (32_561, 3)
    assert data.x[0].tolist() == [39, 13, 40]
    assert data.classes == ("<=50K", ">50K")
    # The published counts.
    assert np.bincount(data.y).tolist() == [24_720, 7_841]
    with refuses("DAT110", "'State-gov'", "column 'workclass'", "row 0", "line 2"):
        load("datasets/adult/adult.csv#label=income-per-year", base=assets)


def test_sets_that_are_not_images_are_refused(assets: Path, refuses) -> None:
    with refuses("DAT108", "samples, offsets, digit, speaker"):
        load("datasets/spoken_digits/fsdd_8khz.npz", base=assets)
    with refuses("DAT112", "10,498,424 inputs but 3,000 labels"):
        load("datasets/spoken_digits/fsdd_8khz.npz#input=samples&label=digit", base=assets)
