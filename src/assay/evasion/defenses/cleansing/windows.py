"""Images that go on beyond their edges."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(x: Tensor, before: int, after: int) -> Tensor:
    """``[rows, channels, height, width]`` with so many pixels more on each side, as in a mirror at the edge.

    The edge itself is repeated (``d c b a | a b c d | d c b a``), however far it goes: SciPy's mode ``"reflect"``.
    """
    for dimension in (2, 3):
        size = x.shape[dimension]
        index = torch.arange(-before, size + after, device=x.device) % (2 * size)
        x = x.index_select(dimension, torch.minimum(index, 2 * size - 1 - index))
    return x
