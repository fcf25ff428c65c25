"""Random directions at the price of a memory copy: windows of one long table of normal numbers.

Source: Salimans et al., 2017, "Evolution strategies as a scalable alternative to reinforcement learning", §2.1 (the
shared table). Searches that look only at the sign of an answer need directions by the million; drawn afresh, they
would cost more than the model that is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.numerics.seeds import Stream

_NUMBERS = 2**20
"""Numbers in each half of the table; more, where a direction is longer than a quarter of it."""

_LEAST = 8
"""Images with a shorter side have no coarse directions."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Normal directions for inputs of one shape; of images every second one is coarse.

    A coarse direction is noise on a grid of ``1.5·side^⅔`` cells a side (14 of 28, 15 of 32, 56 of 224), drawn out
    to the image: what turns a classifier is seldom in single pixels (Brunner et al., ICCV 2019; Li et al., CVPR 2020).

    Attributes:
        windows: every window of the table, a view ``[offsets, numbers]``.
        fine: how many windows of white noise there are, from offset 0.
        first, stride, coarse: where the coarse ones begin, how far apart they are and how many there are; 0 if none.
    """

    windows: Tensor
    fine: int
    first: int
    stride: int
    coarse: int

    @classmethod
    def of(cls, shape: torch.Size, like: Tensor) -> Directions:
        """Directions for inputs ``[*shape]``, in the dtype and on the device of ``like``."""
        size = shape.numel()
        image = len(shape) >= 2 and min(shape[-2:]) >= _LEAST
        width = shape[-1] if image else 0
        table, first = _table(max(_NUMBERS, 4 * size), width, like.dtype, like.device)
        coarse = (len(table) - first - size) // width + 1 if image else 0
        return cls(table.unfold(0, size, 1), first - size + 1, first, width, coarse)

    def offsets(self, rng: Stream, count: int) -> Tensor:
        """Which windows each row looks through, ``[rows, count]``; of images those of odd number are coarse."""
        bits = (rng.bits(count) >> 1).bitwise_and_((1 << 62) - 1)
        chosen = bits % self.fine
        if self.coarse:
            chosen[:, 1::2] = self.first + self.stride * (bits[:, 1::2] % self.coarse)
        return chosen

    def at(self, offsets: Tensor) -> Tensor:
        """The directions at these offsets, ``[…, numbers]``, of no particular length."""
        return self.windows.index_select(0, offsets.reshape(-1)).reshape(*offsets.shape, self.windows.shape[1])


@lru_cache(maxsize=8)
def _table(numbers: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, int]:
    """White noise, and behind it a tall coarse image of this width; also where the image begins."""
    rng = Stream.seeded(0, torch.zeros(1, dtype=torch.int64, device=device)).fold("directions")
    white = rng.normal(numbers, dtype=dtype)[0]
    if not width:
        return white, numbers
    height, across = numbers // width, round(1.5 * width ** (2 / 3))
    grid = rng.fold("coarse").normal(1, height * across // width, across, dtype=dtype)
    image = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    return torch.cat([white, image.flatten()]), numbers
