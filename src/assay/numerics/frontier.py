"""The rows of a lock-step search: what was found for each point, and which rows still have work to do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Frontier:
    """Collects the first success of every point; a point's other rows then leave the batch.

    Attributes:
        found: ``[points, …]``: the success where there is one, the original elsewhere; written in place.
        done: bool ``[points]``; written in place.
    """

    found: Tensor
    done: Tensor

    @classmethod
    def over(cls, x: Tensor) -> Frontier:
        """Nothing found yet for the points ``x``."""
        return cls(x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def settle(self, at: Tensor, z: Tensor, won: Tensor) -> Tensor | None:
        """Keeps the rows ``z`` that won; returns the mask of rows to go on with, or ``None`` for all of them.

        Args:
            at: int64 ``[rows]``, the point of each row.
            z: ``[rows, …]``.
            won: bool ``[rows]``. Of several winning rows of one point the first is kept.
        """
        if not bool(won.any()):
            return None
        rows = won.nonzero()[:, 0].flip(0)  # reversed, so that the first row's write is the last one
        self.found[at[rows]] = z[rows].to(self.found.dtype)
        self.done[at[rows]] = True
        return ~self.done[at]

    def open(self) -> Tensor:
        """The points without a success, int64."""
        return (~self.done).nonzero()[:, 0]
