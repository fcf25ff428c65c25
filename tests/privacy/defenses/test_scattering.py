"""Scattering against kymatio's features and against the properties that the transform is made for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from assay.errors import DataError
from assay.privacy import Scattering

# kymatio 0.3.0, Scattering2D(J, (h, w), L=8) on `image` with phases 0 and 1, SciPy 1.16.3, float32:
# (J, h, w): channels, then image 0 at (0, 0) and image 1 at (2, 3), then the mean over everything
KYMATIO = {
    (2, 28, 28): ((0, 1, 5, 8, 9, 16, 17, 40, 80),
                  (0.8825088, 0.0170195, 0.0353709, 0.0115388, 0.0227885, 0.0302004, 0.0037688, 0.0020312, 0.0024467),
                  (0.5374893, 0.0411979, 0.0296416, 0.0157808, 0.0368468, 0.0088127, 0.0006584, 0.0019074, 0.0001318),
                  0.016695121),
    (3, 32, 32): ((0, 1, 5, 8, 9, 24, 25, 108, 216),
                  (0.7216805, 0.0160147, 0.0406634, 0.0105053, 0.0181593, 0.043391, 0.0020047, 0.0026896, 0.0012884),
                  (0.4997478, 0.0316665, 0.0233831, 0.0089046, 0.0126145, 0.0021687, 0.004148, 0.0006511, 0.0003012),
                  0.009127390),
    (2, 30, 29): ((0, 1, 5, 8, 9, 16, 17, 40, 80),
                  (0.8515593, 0.0202462, 0.0344684, 0.0110572, 0.0231978, 0.0209307, 0.0031222, 0.0017665, 0.0029698),
                  (0.6635715, 0.041453, 0.0289478, 0.0157273, 0.0370903, 0.0072522, 0.0006235, 0.0021789, 0.0001102),
                  0.016521588),
}


def image(height, width, phase):
    r, c = np.mgrid[:height, :width]
    return torch.from_numpy(0.5 + 0.3 * np.sin(0.9 * r + 0.4 * c + phase) + 0.2 * np.cos(0.05 * r * c)).float()


@pytest.mark.parametrize("size", KYMATIO)
def test_features_are_those_of_kymatio(size):
    """kymatio writes 3.1415 for π in the norm of every filter, of which order m has m + 1."""
    octaves, height, width = size
    x = torch.stack([image(height, width, 0.0), image(height, width, 1.0)])[:, None]
    scattering = Scattering(octaves=octaves)
    features = scattering(x)
    assert features.shape == (2, scattering.channels, height >> octaves, width >> octaves)
    order = torch.tensor([0] + [1] * 8 * octaves + [2] * (scattering.channels - 1 - 8 * octaves))
    features = features * ((math.pi / 3.1415) ** (order + 1))[None, :, None, None]
    channels, corner, inside, mean = KYMATIO[size]
    assert features[0, list(channels), 0, 0].tolist() == pytest.approx(corner, abs=1e-6)
    assert features[1, list(channels), 2, 3].tolist() == pytest.approx(inside, abs=1e-6)
    assert float(features.mean()) == pytest.approx(mean, rel=1e-5)


def test_channels_and_images_stay_apart():
    x = torch.rand(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    features = Scattering(rows=4)(x)
    assert features.shape == (5, 243, 7, 7)
    assert torch.allclose(features[3, 81:162], Scattering()(x[3:4, 1:2])[0], atol=1e-6)


def test_two_images_are_no_farther_apart_than_before():
    """A contraction: on the images' own grid each feature stands for 4 × 4 pixels (Mallat, 2012, Proposition 2.5)."""
    x = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = x.flip(0), x
    pixels = (a - b).flatten(1).norm(dim=1)[:10]
    features = 4 * (Scattering()(a) - Scattering()(b)).flatten(1).norm(dim=1)[:10]
    assert (features <= pixels).all()


def test_a_shift_by_one_pixel_moves_features_less_than_pixels():
    r, c = np.mgrid[:32, :32]
    wave = torch.from_numpy(np.sin(1.9 * r + 0.6 * c))[None, None]
    moved = torch.from_numpy(np.sin(1.9 * (r + 1) + 0.6 * c))[None, None]
    here, there = (Scattering()(z)[..., 2:-2, 2:-2] for z in (wave, moved))  # at the edges a mirrored wave is another
    relative = float((there - here).norm() / here.norm())
    assert float((moved - wave).norm() / wave.norm()) > 1.5
    assert relative < 0.1


def test_a_constant_image_has_only_its_mean():
    """Every wavelet has mean zero; the average's mass is 1."""
    features = Scattering()(torch.full((1, 1, 28, 28), 0.7, dtype=torch.float64))
    assert torch.allclose(features[:, 0], torch.full((1, 7, 7), 0.7, dtype=torch.float64), atol=1e-6)
    assert float(features[:, 1:].abs().max()) < 1e-12


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 1, 8, 28)])
def test_refuses_what_is_no_image_or_too_small(shape):
    with pytest.raises(DataError, match="PRV209"):
        Scattering()(torch.rand(shape))
