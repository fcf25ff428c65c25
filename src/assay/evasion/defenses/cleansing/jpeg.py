"""JPEG compression, and a differentiable stand-in for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from assay.errors import ConfigError, TargetError
from assay.evasion.defenses.cleansing.target import CleansedTarget, require_images
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.targets.defended import Parts

_BLOCK = 8
_MODES = {1: "L", 3: "RGB"}
_FLOOR = 0.03
"""The least slope of the stand-in's rounding."""


@dataclass(frozen=True, kw_only=True)
class JPEG:
    """Images are compressed and decompressed before the model sees them.

    *Paper*: Dziugaite, Ghahramani & Roy, 2016; Guo et al., ICLR 2018. The stand-in is Shin & Song's differentiable
    JPEG (NeurIPS 2017 workshop).
    *Needs*: images of 1 or 3 channels; anything of the model.
    *Cost*: the codec, once an image; with a gradient also the stand-in's transforms.
    *Blind spots*: every attack that goes back through a stand-in; without one the gradient is zero, and a black-box
    search does better than any gradient.
    *Held to*: the codec itself: the stand-in's images against Pillow's; and what the attack leaves of the network
    without it, 0 %.
    *Measured*: of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 81.7 % accurate behind it, an attack that does not
    know (PGD-40) leaves 75.7 %, one that knows (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``, where the
    stand-in's images are also 0.5 to 0.8 levels of 255 from the codec's on average, which themselves are 3 to 7 from
    the originals.

    What really happens is Pillow's codec on 8-bit pixels with chroma at half the resolution. The stand-in computes
    the same (color transform, subsampling, cosine transform, the codec's own quantization tables), and rounds as the
    codec does, but with a slope.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.JPEG().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> found = game.play(evasion.PGD(steps=10), safe, seed=0)
        >>> found["non-adaptive robust accuracy"].estimate > 0.9, found["robust accuracy"].estimate < 0.1
        (True, True)

    Attributes:
        quality: of the codec, 1 to 95.
    """

    parts: ClassVar[Parts] = Parts(surrogate=True)

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ConfigError("PRF131", f"{self} cannot be used: quality must be from 1 to 95")

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the codec; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """Pillow's answer for every image."""
        self._require(x)
        pixels = (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, 3).cpu().numpy()
        out = np.empty_like(pixels)
        for row, image in enumerate(pixels):
            out[row] = _recoded(image, self.quality)
        return torch.from_numpy(out).movedim(3, 1).to(x) / 255

    def stand_in(self, x: Tensor, rng: Stream) -> Tensor:
        """The codec in torch, differentiable where it rounds."""
        self._require(x)
        height, width = x.shape[2:]
        cell = _BLOCK if x.shape[1] == 1 else 2 * _BLOCK
        padded = F.pad(_pixels(x * 255), (0, -width % cell, 0, -height % cell), mode="replicate")
        out = self._gray(padded) if x.shape[1] == 1 else self._color(padded)
        return out[:, :, :height, :width] / 255

    def _gray(self, pixels: Tensor) -> Tensor:
        return _quantized(pixels, 0, self.quality)

    def _color(self, pixels: Tensor) -> Tensor:
        offset = torch.tensor([0, 128, 128]).to(pixels).reshape(3, 1, 1)
        planes = _pixels(torch.einsum("ij,njhw->nihw", _TO_YCC.to(pixels), pixels) + offset)
        luma = _quantized(planes[:, :1], 0, self.quality)
        chroma = _quantized(_pixels(F.avg_pool2d(planes[:, 1:], 2)), 1, self.quality)
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")  # the decoder's triangle filter
        whole = torch.cat([luma, _pixels(chroma)], 1) - offset
        return _pixels(torch.einsum("ij,njhw->nihw", _TO_RGB.to(pixels), whole))

    def _require(self, x: Tensor) -> None:
        require_images(x, self)
        if x.shape[1] not in _MODES:
            raise TargetError("PRF130", f"{self} takes images of 1 or 3 channels, not {x.shape[1]}")


# ITU-R BT.601 as JFIF has it.
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]],
                       dtype=torch.float64)
_TO_RGB = torch.tensor([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], dtype=torch.float64)


def _recoded(image: np.ndarray, quality: int) -> np.ndarray:
    """One image ``[height, width, channels]`` through the codec."""
    buffer = BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
        buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer)).reshape(image.shape)


@cache
def tables(quality: int) -> Tensor:
    """The codec's own quantization tables for luma and chroma, ``[2, 8, 8]``."""
    buffer = BytesIO()
    Image.new("RGB", (_BLOCK, _BLOCK)).save(buffer, format="JPEG", quality=quality, subsampling="4:2:0")
    read: dict[int, list[int]] = Image.open(buffer).quantization  # type: ignore[attr-defined]  # of a JPEG file
    return torch.tensor([read[0], read[1]], dtype=torch.float64).reshape(2, _BLOCK, _BLOCK)


@cache
def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 samples."""
    angle = torch.arange(_BLOCK)[:, None] * (2 * torch.arange(_BLOCK) + 1) * torch.pi / (2 * _BLOCK)
    scale = torch.full((_BLOCK, 1), 0.5, dtype=torch.float64)
    scale[0] = 0.125**0.5
    return scale * angle.double().cos()


def _quantized(planes: Tensor, table: int, quality: int) -> Tensor:
    """Planes ``[rows, k, height, width]`` with the coefficients of every block rounded to the table's multiples."""
    rows, k, height, width = planes.shape
    cosines, steps = _cosines().to(planes), tables(quality)[table].to(planes)
    blocks = planes.reshape(rows, k, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    ratio = cosines @ (blocks - 128) @ cosines.T / steps
    nearest = ratio.detach().round()
    error = ratio - nearest
    # Shin & Song's rounding: its slope, 3 · error², says which coefficients are about to change. A slope of 1, as in
    # _passing, leaves 26 of 184 images standing at quality 25; this leaves none, nor does it with the few percent that
    # keep coefficients which are whole already, as those of a flat block are, from being stuck.
    kept = _passing(error**3 + _FLOOR * error, nearest) * steps
    back = (cosines.T @ kept @ cosines).transpose(3, 4).reshape(rows, k, height, width)
    return _pixels(back + 128)


def _pixels(x: Tensor) -> Tensor:
    """Whole numbers of 8 bits, as every stage of the codec has them."""
    return _passing(x, x.round().clamp(0, 255))


def _passing(x: Tensor, value: Tensor) -> Tensor:
    """The value, with gradients that go to ``x`` as if it were ``x``."""
    return x + (value - x).detach()
