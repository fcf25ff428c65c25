"""What trained models say of examples, asked the same way of the target as of the adversary's own models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from assay.privacy.signals import Values, logit_scale

Ask = Callable[[Tensor, Tensor], Tensor]
"""Scores of rows: ``(x [rows, …], at [rows]) -> [rows, classes]``; ``at`` is the example each row is about."""


def signals(ask: Ask, x: Tensor, y: Tensor, augmentations: int, *, batch: int = 4096) -> Values:
    """The logit scale of every example, as it is and mirrored: float64 ``[examples, augmentations]``.

    Args:
        augmentations: 1 for the example alone, 2 for its mirror image too (images ``[n, c, h, w]``).
    """
    found = np.empty((len(x), augmentations))
    for start in range(0, len(x), batch):
        rows = slice(start, start + batch)
        at = torch.arange(len(x), device=x.device)[rows]
        for column in range(augmentations):
            asked = x[rows].flip(-1) if column else x[rows]
            found[rows, column] = logit_scale(ask(asked, at).detach(), y[rows]).cpu().numpy()
    return found
