"""Random numbers that belong to a point, not to a batch: counter-based streams."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's is arithmetic on int64."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a bijection that scatters every bit."""
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)


@dataclass(frozen=True, eq=False)
class Stream:
    """One independent random stream a row; the same key gives the same numbers in any batch and on any device.

    Nothing is consumed by drawing: a fresh draw needs a fresh ``fold``. This is what lets a point's trajectory
    be the same alone and among a thousand others, with rows leaving the batch at any time.

    Attributes:
        keys: int64, shape ``[rows]``.
    """

    keys: Tensor

    @classmethod
    def seeded(cls, seed: int, points: Tensor) -> Stream:
        """Streams for the points with these indices (int64, ``[rows]``) under one seed."""
        start = torch.full_like(points, seed) * _GOLDEN
        return cls(_mix(_mix(start + _GOLDEN) + points * _GOLDEN))

    def __len__(self) -> int:
        return len(self.keys)

    def fold(self, tag: int | str | Tensor) -> Stream:
        """Independent streams for a step number, a purpose, or a per-row int64 tensor of numbers."""
        if isinstance(tag, str):
            tag = zlib.crc32(tag.encode()) + (1 << 40)
        offset = tag * _GOLDEN if isinstance(tag, Tensor) else _signed((tag * _GOLDEN) % 2**64)
        return Stream(_mix(self.keys + offset))

    def select(self, rows: Tensor) -> Stream:
        """The streams of these rows: an index or a mask."""
        return Stream(self.keys[rows])

    def bits(self, *shape: int) -> Tensor:
        """Uniform int64 over all 64 bits, shape ``[rows, *shape]``."""
        count = 1
        for size in shape:
            count *= size
        steps = torch.arange(1, count + 1, device=self.keys.device, dtype=torch.int64) * _GOLDEN
        return _mix(self.keys[:, None] + steps).reshape(len(self.keys), *shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on [0, 1), shape ``[rows, *shape]``."""
        digits = 53 if dtype == torch.float64 else 24
        return _shift(self.bits(*shape), 64 - digits).to(dtype) * 2.0**-digits

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, shape ``[rows, *shape]`` (Box & Muller, 1958)."""
        u = self.fold("radius").uniform(*shape, dtype=torch.float64)
        angle = self.fold("angle").uniform(*shape, dtype=torch.float64) * (2 * torch.pi)
        return ((-2 * torch.log1p(-u)).sqrt() * angle.cos()).to(dtype)

    def sign(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """−1 or +1 with equal chance, shape ``[rows, *shape]``."""
        return 1 - 2 * _shift(self.bits(*shape), 63).to(dtype)

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform on 0 … high−1, int64, shape ``[rows, *shape]``; ``high`` broadcasts against it."""
        u = self.uniform(*shape, dtype=torch.float64)
        return (u * high).to(torch.int64)
