"""Directions from a table: normal, a row's own, and coarse where they should be."""

from __future__ import annotations

import pytest
import torch

from assay.numerics.directions import Directions
from assay.numerics.seeds import Stream

ROWS = torch.arange(40)


def drawn(shape: tuple[int, ...], count: int = 50, rows: torch.Tensor = ROWS) -> tuple[Directions, torch.Tensor]:
    directions = Directions.of(torch.Size(shape), torch.zeros(0, dtype=torch.float64))
    return directions, directions.at(directions.offsets(Stream.seeded(1, rows), count))


@pytest.mark.parametrize("shape", [(5,), (3, 6, 6), (200,)])
def test_directions_of_small_inputs_are_white(shape):
    directions, v = drawn(shape)
    assert directions.coarse == 0
    numbers = v.flatten()
    assert abs(float(numbers.mean())) < 0.05
    assert abs(float(numbers.std()) - 1) < 0.05
    assert abs(float((numbers.abs() < 0.6745).double().mean()) - 0.5) < 0.03
    flat = v.flatten(0, 1)
    cosine = torch.nn.functional.cosine_similarity(flat[:-1], flat[1:])
    assert abs(float(cosine.mean())) < 0.05


def test_every_second_direction_of_an_image_is_coarse():
    directions, v = drawn((3, 28, 28))
    assert directions.stride == 28
    images = v.reshape(40, 50, 3, 28, 28)
    beside = (images[..., 1:] * images[..., :-1]).sum((0, 2, 3, 4)) / images.square().sum((0, 2, 3, 4))
    assert (beside[0::2].abs() < 0.05).all()
    assert (beside[1::2] > 0.6).all()


def test_a_row_has_its_own_directions_in_any_batch():
    _, together = drawn((1, 12, 12))
    _, alone = drawn((1, 12, 12), rows=ROWS[7:8])
    assert torch.equal(together[7], alone[0])
    assert not torch.equal(together[7], together[8])


def test_no_rows_and_long_inputs():
    assert drawn((1, 12, 12), rows=ROWS[:0])[1].shape == (0, 50, 144)
    directions, v = drawn((3, 400, 400), count=2, rows=ROWS[:1])
    assert v.shape == (1, 2, 480_000)
    assert directions.fine > 480_000
    assert not torch.equal(v[0, 0], v[0, 1])
