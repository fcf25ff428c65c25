"""The two-dimensional scattering transform: features of an image that nobody had to train."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Scattering:
    """Wavelets, moduli and a local average, up to twice: stable to small shifts and deformations, nothing learned.

    Source: Bruna & Mallat (TPAMI 2013); wavelets, padding and the order of channels as in kymatio (Andreux et al., JMLR
    2020).

    Attributes:
        octaves: J: the average is over 2^J pixels, and so is the stride.
        angles: L: directions of the wavelets.
        order: how many moduli deep, 0 to 2.
        rows: images at a time.
    """

    octaves: int = 2
    angles: int = 8
    order: int = 2
    rows: int = 16

    def __post_init__(self) -> None:
        if not (self.octaves >= 1 and self.angles >= 1 and 0 <= self.order <= 2 and self.rows >= 1):
            raise ConfigError("CFG134", f"{self} cannot be used")

    @property
    def channels(self) -> int:
        """How many features a channel and place has: 81 for two octaves and eight angles."""
        first, second = self.octaves * self.angles, math.comb(self.octaves, 2) * self.angles**2
        return 1 + (first if self.order > 0 else 0) + (second if self.order > 1 else 0)

    def __call__(self, x: Tensor) -> Tensor:
        """The features of images ``[n, c, h, w]``: ``[n, c · channels, h // 2^J, w // 2^J]``.

        Raises:
            DataError: PRV209 where these are no images, or too small for the stride.
        """
        if x.ndim != 4 or min(x.shape[2:]) <= 2 << self.octaves:
            raise DataError("PRV209", f"images of shape {list(x.shape)}, averaged over {1 << self.octaves} pixels")
        images = x.reshape(-1, *x.shape[2:])
        bank = _Bank.of(self.octaves, self.angles, x.shape[2], x.shape[3]).to(images)
        features = torch.cat([torch.cat(list(self._paths(part, bank)), 1) for part in torch.split(images, self.rows)])
        return features.reshape(len(x), -1, *features.shape[2:])

    def _paths(self, images: Tensor, bank: _Bank) -> Iterator[Tensor]:
        """The features order by order, ``[rows, channels, h', w']``, coarser wavelets after finer."""
        padded = F.pad(images[:, None], bank.margin, mode="reflect")[:, 0]
        yield bank.averaged(padded[:, None], 0)
        if self.order == 0:
            return
        deeper = []
        spectra = torch.fft.fft2(padded)
        for first in range(self.octaves):
            waves = _moduli(spectra, bank.wavelets[first][0], first)
            yield bank.averaged(waves, first)
            if self.order == 2 and first < self.octaves - 1:
                deeper.append(self._second(torch.fft.fft2(waves), first, bank))
        yield from deeper

    def _second(self, spectra: Tensor, first: int, bank: _Bank) -> Tensor:
        """The second order below the first wavelets of one octave: for each of them, every coarser wavelet."""
        below = spectra.flatten(0, 1)
        coarser = [
            bank.averaged(_moduli(below, bank.wavelets[octave][first], octave - first), octave)
            for octave in range(first + 1, self.octaves)
        ]
        return torch.cat(coarser, 1).reshape(len(spectra), -1, *coarser[0].shape[2:])


def _moduli(spectra: Tensor, wavelets: Tensor, octaves: int) -> Tensor:
    """The modulus behind every wavelet, every 2^octaves-th sample of it: ``[n, h, w]`` to ``[n, wavelets, h', w']``.

    Keeping every k-th sample of a signal averages k aliases of its spectrum, along either axis.
    """
    k = 1 << octaves
    high, wide = spectra.shape[1] // k, spectra.shape[2] // k
    aliases = torch.einsum("nakbl,fakbl->nfkl", spectra.reshape(-1, k, high, k, wide),
                           wavelets.reshape(-1, k, high, k, wide) / k**2)
    signal = torch.fft.ifft2(aliases)
    square: Tensor = signal.real * signal.real
    return square.addcmul_(signal.imag, signal.imag).sqrt_()


@dataclass(frozen=True, eq=False)
class _Bank:
    """The filters for one size of image, float64 until moved.

    Attributes:
        margin: how far the image is mirrored beyond its edges: left, right, top, bottom.
        wavelets: by octave and by how often the signal was halved before: spectra ``[angles, height, width]``, which
            are real numbers.
        down, across: by how often the signal was halved before: the Gaussian average along an axis at the stride,
            without the margin, a matrix ``[out, in]``.
    """

    margin: tuple[int, int, int, int]
    wavelets: tuple[tuple[Tensor, ...], ...]
    down: tuple[Tensor, ...]
    across: tuple[Tensor, ...]

    @classmethod
    def of(cls, octaves: int, angles: int, height: int, width: int) -> _Bank:
        """The filters of kymatio's ``Scattering2D``."""
        return _bank(octaves, angles, height, width)

    def to(self, like: Tensor) -> _Bank:
        """The filters in the precision and on the device of these images."""
        def move(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(like) for tensor in tensors)

        spectra = tuple(tuple(torch.complex(w, torch.zeros_like(w)) for w in move(octave)) for octave in self.wavelets)
        return _Bank(self.margin, spectra, move(self.down), move(self.across))

    def averaged(self, signal: Tensor, halved: int) -> Tensor:
        """The local average: the Gaussian is a product, so it is a matrix on either side."""
        smooth: Tensor = self.down[halved] @ signal @ self.across[halved].T
        return smooth


@lru_cache(maxsize=8)
def _bank(octaves: int, angles: int, height: int, width: int) -> _Bank:
    stride = 1 << octaves
    tall, wide = (((side + stride) // stride + 1) * stride for side in (height, width))
    spare, beside = tall - height, wide - width
    wavelets = []
    for octave in range(octaves):
        spectra = torch.stack([
            _morlet(tall, wide, 0.8 * 2**octave, (angles - angles // 2 - 1 - turn) * math.pi / angles,
                    0.75 * math.pi / 2**octave, 4 / angles) for turn in range(angles)])
        wavelets.append(tuple(_coarse(_coarse(spectra, -2, halved), -1, halved) for halved in range(octave + 1)))
    deviation = 0.8 * 2 ** (octaves - 1)
    return _Bank(
        (beside // 2, beside - beside // 2, spare // 2, spare - spare // 2), tuple(wavelets),
        *(tuple(_average(side, deviation, halved, octaves) for halved in range(octaves)) for side in (tall, wide)))


def _morlet(height: int, width: int, deviation: float, angle: float, frequency: float, slant: float) -> Tensor:
    """The spectrum of a wave under an elliptic Gaussian, less as much of the Gaussian as makes its mean zero."""
    rows, columns = _unrolled(height)[:, None], _unrolled(width)
    along = rows * math.cos(angle) + columns * math.sin(angle)
    beside = columns * math.cos(angle) - rows * math.sin(angle)
    envelope = torch.exp(-(along**2 + (slant * beside) ** 2) / (2 * deviation**2)) * slant / (
        2 * math.pi * deviation**2)
    wave = _rolled(envelope * torch.exp(1j * frequency * along), height, width)
    still = _rolled(envelope, height, width)
    spectrum: Tensor = torch.fft.fft2(wave - wave.sum() / still.sum() * still)
    return spectrum.real


def _average(side: int, deviation: float, halved: int, octaves: int) -> Tensor:
    """The matrix that smooths a signal along an axis, keeps every 2^J-th sample, and drops the margin's."""
    gaussian = torch.exp(-_unrolled(side) ** 2 / (2 * deviation**2)) / math.sqrt(2 * math.pi * deviation**2)
    response = _coarse(torch.fft.fft(_rolled(gaussian[:, None], side, 1)[:, 0]).real, 0, halved)
    impulses = torch.fft.fft(torch.eye(len(response), dtype=torch.float64), dim=0) * response[:, None]
    matrix: Tensor = torch.fft.ifft(impulses, dim=0)
    return matrix.real[:: 1 << (octaves - halved)][1:-1]


def _unrolled(side: int) -> Tensor:
    """Coordinates over five periods of a circle."""
    return torch.arange(-2 * side, 3 * side, dtype=torch.float64)


def _rolled(signal: Tensor, height: int, width: int) -> Tensor:
    """All periods laid on top of each other."""
    return signal.reshape(len(signal) // height, height, -1, width).sum((0, 2))


def _coarse(spectrum: Tensor, dim: int, halved: int) -> Tensor:
    """A filter's spectrum for a signal that was halved so often: its low frequencies."""
    side = spectrum.shape[dim]
    low = (side >> halved) // 2
    return torch.cat([spectrum.narrow(dim, 0, (side >> halved) - low), spectrum.narrow(dim, side - low, low)], dim)
