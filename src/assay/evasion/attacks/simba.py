"""SimBA: one orthonormal direction after another, forward or backward, kept where it helps."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.allowance import granted
from assay.evasion.attacks.gradient import LossName, objective, succeeded
from assay.evasion.attacks.windows import Grid
from assay.evasion.threat import Ball
from assay.numerics.balls import rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

Basis = Literal["pixel", "dct"]

_BASES: dict[float, Basis] = {float("inf"): "pixel", 2.0: "dct"}


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points."""

    at: Tensor
    x0: Tensor
    y: Tensor
    z: Tensor
    best: Tensor
    """What ``z`` earns of the climbed loss."""
    left: Tensor
    """Queries that the row may still spend."""
    keys: Tensor
    """Of the row's random stream."""
    order: Tensor
    """In which order the directions are tried in this round, ``[rows, directions]``."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class _Directions:
    """Outer products of the rows of two orthonormal matrices, in one channel each.

    Attributes:
        grid: how inputs are seen.
        down, across: ``[height, height]`` and ``[width, width]``; the lower a row, the lower its frequency.
    """

    grid: Grid
    down: Tensor
    across: Tensor

    @classmethod
    def of(cls, x: Tensor, basis: Basis) -> _Directions:
        """The directions for inputs like ``x``."""
        grid = Grid.of(x.shape[1:])
        make = cosines if basis == "dct" else torch.eye
        down, across = (make(size, dtype=x.dtype, device=x.device) for size in (grid.height, grid.width))
        return cls(grid, down, across)

    def order(self, rng: Stream, share: float) -> Tensor:
        """A random order for each row, int64 ``[rows, directions]``: the low frequencies before all others."""
        grid = self.grid
        late = torch.arange(grid.height)[:, None] >= math.ceil(share * grid.height)
        late = (late | (torch.arange(grid.width) >= math.ceil(share * grid.width))).flatten().repeat(grid.channels)
        return (rng.uniform(len(late), dtype=torch.float64) + late.to(rng.keys.device)).argsort(1)

    def take(self, number: Tensor, like: Tensor) -> Tensor:
        """The direction of this number for each row, as a change of ``like``."""
        cells = self.grid.height * self.grid.width
        channel, cell = number // cells, number % cells
        product = self.down[cell // self.grid.width][:, :, None] * self.across[cell % self.grid.width][:, None]
        change = torch.zeros(len(like), self.grid.channels, cells, dtype=like.dtype, device=like.device)
        change[torch.arange(len(like), device=like.device), channel] = product.flatten(1)
        return change.reshape(like.shape)


def cosines(size: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II), ``[frequencies, cells]`` (Ahmed et al., 1974)."""
    cells = torch.arange(size, dtype=torch.float64, device=device)
    waves = torch.cos(torch.pi / size * (cells + 0.5) * cells[:, None]) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.to(dtype)


@dataclass(frozen=True, kw_only=True)
class SimBA:
    """Tries one orthonormal direction after another, forward, then backward, and keeps what brings the point closer.

    *Paper*: Guo et al., ICML 2019, Algorithm 1.
    *Needs*: scores.
    *Cost*: 1 query per point for the start, and 1 or 2 a step; a broken point stops paying, and a candidate that
    budget or box leave where the iterate is costs nothing.
    *Blind spots*: scores that are quantized or random; goals that only several directions together bring closer.
    *Held to*: ``SimBA`` of ART 1.20.1 on the same network: as many points broken with fewer queries.
    *Measured*: ``tests/evasion/attacks/test_simba.py``. Of 30 MNIST digits on an undefended network all fall within L2
    3 and 2000 queries, after 402 on average (ART, in whatever distance: 439); in Linf 0.1, 77 % (PGD: 85 %).

    The paper has no budget: the perturbation grows with every step. Here a candidate is projected first and judged
    where it arrives, so that a search at the budget's edge goes on by moving what it spends.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(access="scores"))
        >>> game.play(evasion.SimBA(queries=300), net, seed=0)["robust accuracy"].estimate < 0.3
        True

    Attributes:
        queries: per point, at most; less where the threat grants less.
        basis: ``"pixel"``, or ``"dct"``, the cosine waves of each channel; ``None`` for waves in L2 and pixels in Linf,
            where they reach the corners of the cube.
        step: in L2 over the width of the box, ``None`` for 0.2 as in the paper; in Linf the largest change of a
            coordinate over the radius, ``None`` for 2: from face to face.
        share: the lowest frequencies, this share of the rows and of the columns, are tried before all others.
        loss: ``"ce"``, ``"margin"`` or ``"dlr"``.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0})

    queries: int = 5000
    basis: Basis | None = None
    step: float | None = None
    share: float = 0.5
    loss: LossName = "ce"

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        frontier, directions = Frontier.over(x), _Directions.of(x, self.basis or _BASES[budget.norm])
        rows, total = self._start(view, frontier, x, y, rng), math.prod(x.shape[1:])
        for number in count():
            rows = rows.keep(rows.left > 0)
            if not len(rows.at):
                break
            turn, column = divmod(number, total)
            if not column:
                rows = replace(rows, order=directions.order(Stream(rows.keys).fold(turn), self.share))
            direction = directions.take(rows.order[:, column], rows.z)
            rows = self._try(view, frontier, rows, budget, self._scaled(direction, view, budget))
        return frontier.found

    def _start(self, view: View, frontier: Frontier, x: Tensor, y: Tensor, rng: Stream) -> _Rows:
        """The points themselves, with what they earn: 1 query."""
        at = torch.arange(len(x), device=x.device)
        nothing = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        rows = _Rows(at=at, x0=x, y=y, z=x, best=nothing, left=granted(view, at, self.queries), keys=rng.keys,
                     order=at[:, None])
        return self._ask(view, frontier, rows, x, rows.left > 0)[0]

    def _scaled(self, direction: Tensor, view: View, budget: Ball) -> Tensor:
        """The direction with the length of a step."""
        if budget.norm == 2:
            return direction * (view.bounds.width * (0.2 if self.step is None else self.step))
        largest = rowwise(direction.abs().flatten(1).amax(1), direction)
        return direction * (budget.radius * (2.0 if self.step is None else self.step) / largest)

    def _try(self, view: View, frontier: Frontier, rows: _Rows, budget: Ball, change: Tensor) -> _Rows:
        """Forward, and where that does not help, backward: at most 2 queries."""
        undecided = torch.ones_like(rows.left, dtype=torch.bool)
        for sign in (1, -1):
            z = budget.project(rows.z + sign * change, rows.x0, view.bounds)
            z = budget.land(z, rows.x0, view.bounds)
            moved = (z != rows.z).flatten(1).any(1)  # what budget or box undo is no question worth a query
            rows, better = self._ask(view, frontier, rows, z, undecided & moved & (rows.left > 0))
            undecided = undecided & ~better
        return rows

    def _ask(self, view: View, frontier: Frontier, rows: _Rows, z: Tensor, who: Tensor) -> tuple[_Rows, Tensor]:
        """Asks about the candidates ``z`` of these rows and keeps those that earn more; which they were."""
        better, index = torch.zeros_like(who), who.nonzero()[:, 0]
        if not len(index):
            return rows, better
        scores = view.scores(z[index], rows.at[index])
        value = objective(view, self.loss)(scores, rows.y[index]).to(z.dtype)
        won = succeeded(view, scores, rows.y[index])
        frontier.settle(rows.at[index], z[index], won)
        better[index] = value > rows.best[index]
        best, left = rows.best.clone(), rows.left.clone()
        best[index] = torch.maximum(best[index], value)
        left[index] = torch.where(won, 0, left[index] - 1)  # a broken point is done
        return replace(rows, z=torch.where(rowwise(better, z), z, rows.z), best=best, left=left), better
