"""What a black-box search may spend on each point, and rows for what differs in number from point to point."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.threats import View


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
