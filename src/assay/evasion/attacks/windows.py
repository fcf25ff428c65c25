"""Rectangles on inputs: where a random search changes them, by index arithmetic for all rows at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """An input seen as channels of a picture, ``[rows, channels, height · width]``.

    A vector is one row of pixels; two dimensions are a gray picture; of more, all but the last two are channels.
    """

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> Grid:
        """The grid of one input of this shape."""
        sizes = [1, 1, *shape]
        height, width = sizes[-2:]
        if width == 1:
            height, width = 1, height
        return cls(math.prod(sizes[:-2]), height, width)

    def flat(self, x: Tensor) -> Tensor:
        """``[rows, *input]`` as ``[rows, channels, cells]``."""
        return x.reshape(len(x), self.channels, self.height * self.width)

    def window(self, share: float, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
        """The sides of a window over this share of the cells: a square, or what fits of its area."""
        side = max(round(math.sqrt(share * self.height * self.width)), least)
        side += odd and side % 2 == 0
        height = min(side, self.height)
        width = min(side, self.width)
        if height < side:
            width = min(max(round(share * self.width * self.height / height), least), self.width)
        elif width < side:
            height = min(max(round(share * self.width * self.height / width), least), self.height)
        return height, width

    def cells(self, top: Tensor, left: Tensor, sides: tuple[int, int]) -> Tensor:
        """The cells of one window a row at a place given by uniform numbers: int64 ``[rows, channels, h·w]``."""
        height, width = sides
        first = (top * (self.height - height + 1)).long() * self.width + (left * (self.width - width + 1)).long()
        index = first[:, None] + _offsets(height, width, self.width).to(first.device)
        return index[:, None].expand(-1, self.channels, -1)

    def tiles(self) -> tuple[int, int]:
        """The sides of the tiles that cover the picture five by five, where it is large enough."""
        return max(self.height // 5, 1), max(self.width // 5, 1)


@lru_cache(maxsize=64)
def _offsets(height: int, width: int, stride: int) -> Tensor:
    return (torch.arange(height)[:, None] * stride + torch.arange(width)).flatten()


def bump(height: int, width: int, norm: float) -> Tensor:
    """A positive peak of unit norm that falls off from the middle in nested rectangles, ``[height, width]``.

    A cell ``d`` rectangles from the middle weighs ``Σ_{k ≥ d} (k+1)^−q`` with q = 2 for L2 (Andriushchenko et al.,
    ECCV 2020, Eq. 2) and q = 4 for L1 (Croce & Hein, ICML 2021, §5).
    """
    rings = max(height, width) // 2 + 1
    weights = torch.arange(1, rings + 1, dtype=torch.float64) ** (-2.0 if norm == 2 else -4.0)
    tail = weights.flip(0).cumsum(0).flip(0)
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    peak = tail[torch.maximum(down[:, None], across)]
    unit: Tensor = peak / torch.linalg.vector_norm(peak, ord=norm)
    return unit


@lru_cache(maxsize=64)
def dipoles(height: int, width: int, norm: float) -> Tensor:
    """A peak beside its negative, of unit norm, split across and along: ``[2, height · width]``."""
    both = torch.stack([_dipole(height, width, norm), _dipole(width, height, norm).T])
    if height == 1 or width == 1:  # one of the two has nothing to split
        both = both[[1, 1]] if height == 1 else both[[0, 0]]
    flat = both.flatten(1)
    unit: Tensor = flat / torch.linalg.vector_norm(flat, ord=norm, dim=1, keepdim=True)
    return unit


def _dipole(height: int, width: int, norm: float) -> Tensor:
    half = height // 2
    low = -bump(height - half, width, norm)
    return torch.cat([bump(half, width, norm), low]) if half else low
