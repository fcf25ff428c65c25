"""The nearest success of every point, for searches that look for the smallest perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.numerics.balls import rowwise


@dataclass(frozen=True, eq=False)
class Closest:
    """The nearest adversarial input of every point; written in place.

    Attributes:
        found: ``[points, …]``; the original where there is none.
        length: ``[points]``: how far it is, ``inf`` where there is none.
    """

    found: Tensor
    length: Tensor

    @classmethod
    def over(cls, x: Tensor) -> Closest:
        """Nothing found yet for the points ``x``."""
        return cls(x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device))

    def offer(self, at: Tensor, z: Tensor, length: Tensor) -> None:
        """Keeps of the rows ``z`` what is nearer than what was found before; ``inf`` says that a row has nothing."""
        least = self.length.scatter_reduce(0, at, length, "amin")
        rows = ((length == least[at]) & (length < self.length[at])).nonzero()[:, 0].flip(0)  # the first row counts
        self.found[at[rows]] = z[rows]
        self.length[at[rows]] = length[rows]

    def within(self, x: Tensor, radius: float) -> Tensor:
        """What was found no farther than ``radius``, and the original ``x`` of every other point."""
        return torch.where(rowwise(torch.isfinite(self.length) & (self.length <= radius), x), self.found, x)
