"""What attacks that see labels alone share: what is left to ask, where a search starts, how it meets the boundary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import rowwise
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.base import Bounds
from assay.threats import View

_SIDES = (0, 4, 7, 2, 1)
"""Blocks a side of one random start after another; 0 for every pixel on its own."""

_CLOSE = 2.0**-9
"""How near to the boundary a search begins, in parts of its distance from the original."""

_HALVINGS = 24
"""The most bisections; after so many successes the original itself is asked whether it errs."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """Asks the view for labels, keeps the nearest success of every point, and never overdraws.

    Attributes:
        x, y: the originals, ``[points, …]``, and their labels.
        left: queries left for each point; written in place.
        closest: what was found; written in place.
    """

    view: View
    x: Tensor
    y: Tensor
    budget: Ball
    left: Tensor
    closest: Closest

    @classmethod
    def over(cls, view: View, x: Tensor, y: Tensor, budget: Ball, queries: int) -> Oracle:
        """Nothing asked yet. Each point may ask what the threat leaves it; where that is no limit, ``queries``."""
        at = torch.arange(len(x), device=x.device)
        left = view.remaining(at)
        left = torch.full_like(at, queries) if left is None else left.clamp_min(0)
        return cls(view, x, y, budget, left, Closest.over(x))

    def live(self, at: Tensor) -> Tensor:
        """Which of these points have queries left and something to look for, bool ``[rows]``.

        With a finite radius that is a success within it, else one that is nearer still.
        """
        enough = self.budget.radius if self.budget.radius < float("inf") else 0.0
        return (self.left[at] > 0) & ~(self.closest.length[at] <= enough)

    def judge(self, z: Tensor, at: Tensor) -> Tensor:
        """Which rows succeed, one row a point; those that do are offered to ``closest``.

        A point that is not live is not asked, and does not succeed.
        """
        live = self.live(at)
        if not bool(live.all()):
            won = torch.zeros_like(live)
            won[live] = self.judge(z[live], at[live])
            return won
        z = z.reshape(-1, *self.x.shape[1:])
        if self.budget.lattice is not None:
            z = self.budget.land(z, self.x[at], self.view.bounds)
        won = self.poll(z, at)
        rows = won.nonzero()[:, 0]
        if len(rows):
            self.closest.offer(at[rows], z[rows], self.budget.distance(z[rows], self.x[at[rows]]))
        return won

    def poll(self, z: Tensor, at: Tensor) -> Tensor:
        """Which rows succeed, any number of rows a point, all of them paid for; nothing is kept."""
        if not len(at):
            return torch.zeros(0, dtype=torch.bool, device=at.device)
        self.left.index_add_(0, at, torch.full_like(at, -1))
        hit = self.view.labels(z, at) == self.y[at]
        return hit if self.view.threat.goal == TARGETED else ~hit


def started(oracle: Oracle, rng: Stream, tries: int) -> tuple[Tensor, Tensor]:
    """The points for which a random input succeeds, and where on the way to it they meet the boundary.

    Uniform noise first (Chen et al., S&P 2020, §IV-D). One class often owns all of it, so blocks of black and white
    follow: large ones look like many classes.

    Returns:
        ``at [rows]`` and the successes ``[rows, …]``.
    """
    at = torch.arange(len(oracle.x), device=oracle.x.device)
    z, found = oracle.x.clone(), torch.zeros_like(at, dtype=torch.bool)
    pending = at[oracle.live(at)]
    for number in range(tries):
        if not len(pending):
            break
        start = _noise(oracle.x[pending], oracle.view.bounds, rng.select(pending).fold(number), number)
        won = oracle.judge(start, pending)
        z[pending[won]], found[pending[won]] = start[won], True
        pending = pending[~won & oracle.live(pending)]
    at = at[found]
    return at, bisected(oracle, z[at], at)


def _noise(x: Tensor, bounds: Bounds, rng: Stream, number: int) -> Tensor:
    shape = x.shape[1:]
    side = _SIDES[number % len(_SIDES)]
    if len(shape) < 2 or not side:
        return bounds.lower + bounds.width * rng.uniform(*shape, dtype=x.dtype)
    down, across = (torch.arange(size, device=x.device) * side // size for size in shape[-2:])
    blocks = rng.uniform(*shape[:-2], side, side, dtype=x.dtype)[..., down, :][..., across]
    return torch.where(blocks < 0.5, bounds.lower, bounds.upper).to(x.dtype)


def bisected(oracle: Oracle, z: Tensor, at: Tensor) -> Tensor:
    """The successes ``z [rows, …]``, one a point, drawn straight toward their originals until the boundary is met."""
    x = oracle.x[at]
    low, high = torch.zeros(len(z), dtype=z.dtype, device=z.device), torch.ones(len(z), dtype=z.dtype, device=z.device)
    for _ in range(_HALVINGS):
        rows = ((high - low > _CLOSE * high) & oracle.live(at)).nonzero()[:, 0]
        if not len(rows):
            break
        share = (low[rows] + high[rows]) / 2
        won = oracle.judge(x[rows] + rowwise(share, z) * (z[rows] - x[rows]), at[rows])
        high[rows], low[rows] = torch.where(won, share, high[rows]), torch.where(won, low[rows], share)
    rows = (high <= 2.0**-_HALVINGS).nonzero()[:, 0]
    oracle.judge(x[rows], at[rows])
    return x + rowwise(high, z) * (z - x)
