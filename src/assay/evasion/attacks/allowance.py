"""What a black-box search may spend on each point, and rows for what differs in number from point to point."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.threats import View

_HELD = 2**21
"""How many numbers of such rows are held at once."""


def granted(view: View, at: Tensor, queries: int) -> Tensor:
    """How many queries each row's point may spend: what the threat leaves of them, at most ``queries``, int64."""
    most = torch.full_like(at, queries)
    left = view.remaining(at)
    return most if left is None else torch.minimum(left, most)


def ragged(counts: Tensor) -> tuple[Tensor, Tensor]:
    """One entry for each of ``counts[i]`` things of row ``i``: whose it is, and which of its owner's, both int64."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    before = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner), device=counts.device) - before[owner]


def portions(counts: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`ragged` in portions that fit into memory, for rows of ``size`` numbers each."""
    owner, number = ragged(counts)
    if len(owner):
        length = max(_HELD // max(size, 1), 1)
        yield from zip(torch.split(owner, length), torch.split(number, length))
