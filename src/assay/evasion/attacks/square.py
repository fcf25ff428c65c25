"""Square Attack: random search with windows that shrink."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import objective, succeeded
from assay.evasion.attacks.windows import Grid, dipoles
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import distance, rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10 000 queries the windows' area halves (Andriushchenko et al., ECCV 2020, §4.1)."""

_BLOCK = 64
"""Steps whose random numbers are drawn at once."""

_MARKS, _FIRST, _EVERY, _LEAST = 80, 8, 4, 500
"""Patience: gaps are noted this often in a search; it is tried from which mark on, every how many, and not before
this many queries."""

Patch = tuple[Tensor | None, Tensor]
"""Cells that were overwritten (``None``: all) and what they held."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points; ``x0`` and ``z`` are ``[rows, channels, cells]``, and ``z`` is written in place."""

    at: Tensor
    x0: Tensor
    y: Tensor
    z: Tensor
    keys: Tensor
    """Of the row's random stream."""
    ends: Tensor
    """How many queries the row may spend."""
    best: Tensor
    """What ``z`` earns of the climbed loss."""
    gap: Tensor
    """The best margin so far: below 0 until the point breaks."""
    noise: Tensor
    """Uniform numbers of this block, ``[rows, steps, draws]``."""
    trail: Tensor
    """The gap at each mark so far, ``[rows, marks]``; written in place."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class _Moves:
    """Proposals of one norm, written into ``z``.

    Attributes:
        ball, view: the budget and the box.
        grid: how inputs are seen.
    """

    ball: Ball
    view: View
    grid: Grid

    @property
    def draws(self) -> int:
        """Uniform numbers that one proposal takes."""
        return self.grid.channels + (2 if self.ball.norm == float("inf") else 5)

    def start(self, x: Tensor, rng: Stream) -> Tensor:
        """The first iterate: stripes for Linf, tiles of dipoles for L2 and L1."""
        grid = self.grid
        if self.ball.norm == float("inf"):
            stripes = rng.sign(grid.channels, 1, grid.width, dtype=x.dtype).expand(-1, -1, grid.height, -1)
            return self.ball.project(x + self.ball.radius * stripes.reshape(x.shape), x, self.view.bounds)
        height, width = grid.tiles()
        down, across = grid.height // height, grid.width // width
        unit = dipoles(height, width, self.ball.norm).to(x)
        turned = unit[(rng.fold("turn").uniform(down, across) < 0.5).long()]
        tile = turned.reshape(-1, 1, down, across, height, width)
        tile = tile * rng.sign(grid.channels, down, across, 1, 1, dtype=x.dtype)
        delta = torch.zeros(len(x), grid.channels, grid.height, grid.width, dtype=x.dtype, device=x.device)
        top, left = (grid.height - down * height) // 2, (grid.width - across * width) // 2
        inner = tile.transpose(3, 4).reshape(len(x), grid.channels, down * height, across * width)
        delta[:, :, top : top + down * height, left : left + across * width] = inner
        length = rowwise(distance(delta, self.ball.norm).clamp_min(torch.finfo(x.dtype).tiny), delta)
        reach = self.ball.radius * (10 if self.ball.norm == 1 else 1)  # for L1 the projection leaves the peaks
        return self.ball.project(x + (delta * (reach / length)).reshape(x.shape), x, self.view.bounds)

    def propose(self, rows: _Rows, u: Tensor, share: float) -> list[Patch]:
        """Changes ``rows.z``; returns what :func:`_undo` needs."""
        if self.ball.norm == float("inf"):
            return self._recolor(rows, u, share)
        return self._regrow(rows, u, share)

    def _recolor(self, rows: _Rows, u: Tensor, share: float) -> list[Patch]:
        """Linf: a window goes to one corner of the cube, a sign for each channel."""
        cells = self.grid.cells(u[:, 0], u[:, 1], self.grid.window(share))
        held = rows.z.gather(2, cells)
        base = rows.x0.gather(2, cells)
        shift = torch.where(u[:, 2:, None] < 0.5, -self.ball.radius, self.ball.radius).to(held.dtype)
        idle = ((base + shift).clamp_(*self.view.bounds) == held).flatten(1).all(1)
        shift = torch.where(rowwise(idle, shift), -shift, shift)  # to ask the same question again would be a waste
        rows.z.scatter_(2, cells, (base + shift).clamp_(*self.view.bounds))
        return [(cells, held)]

    def _regrow(self, rows: _Rows, u: Tensor, share: float) -> list[Patch]:
        """L2, L1: what one window spends, and what was not spent, moves into another one with a new dipole.

        Source: Andriushchenko et al., ECCV 2020, Algorithm 3; the L1 form is Croce & Hein, ICML 2021, §5.
        """
        norm, tiny = self.ball.norm, torch.finfo(rows.z.dtype).tiny
        sides = self.grid.window(share, least=3, odd=True)
        into, out = (self.grid.cells(u[:, i], u[:, i + 1], sides) for i in (0, 2))
        whole, z, x0 = rows.z.clone() if norm == 1 else None, rows.z, rows.x0
        unspent = self.ball.radius**norm - (z - x0).abs().pow(norm).sum((1, 2))
        base_in, base_out = x0.gather(2, into), x0.gather(2, out)
        before, held_out = z.gather(2, into) - base_in, z.gather(2, out)
        z.scatter_(2, out, base_out)
        held_in = z.gather(2, into)
        freed = _power(held_out - base_out, norm) + _power(held_in - base_in, norm)
        turn = dipoles(*sides, norm).to(z)[(u[:, 4] < 0.5).long()]
        fresh = turn[:, None] * torch.where(u[:, 5:, None] < 0.5, -1.0, 1.0).to(z.dtype)
        # A window that holds next to nothing has no direction: dividing by its length would magnify rounding errors.
        fresh = fresh + before / _power(before, norm).pow(1 / norm).clamp_min(1e-4 * self.ball.radius + tiny)
        grant = (unspent[:, None, None] / self.grid.channels + freed).clamp_min(0)
        if norm == 1:
            grant = grant * self.grid.channels  # more than there is: the projection keeps what sticks out
        fresh = fresh / _power(fresh, norm).pow(1 / norm).clamp_min(tiny) * grant.pow(1 / norm)
        z.scatter_(2, into, (base_in + fresh) if norm == 1 else (base_in + fresh).clamp_(*self.view.bounds))
        if whole is None:
            return [(out, held_out), (into, held_in)]
        z.copy_(self.ball.project(z, x0, self.view.bounds))
        return [(None, whole)]


def _power(values: Tensor, norm: float) -> Tensor:
    return values.abs().pow(norm).sum(2, keepdim=True)


def _pace(trail: Tensor, mark: int) -> Tensor:
    """The fastest rise of the gap per doubling of the queries, among the last three doublings, ``[rows]``.

    Of the last three: a search that rests on a plateau may yet move on.
    """
    marks = [mark >> halvings for halvings in range(4)]
    rises = [(trail[:, late] - trail[:, early]) / math.log2(late / early) for late, early in pairwise(marks)]
    return torch.stack(rises).amax(0)


def _undo(z: Tensor, patches: list[Patch], kept: Tensor) -> None:
    """Gives the cells of all rows but the kept ones what they held before."""
    for cells, held in reversed(patches):
        if cells is None:
            z.copy_(torch.where(kept[:, None, None], z, held))
        else:
            z.scatter_(2, cells, torch.where(kept[:, None, None], z.gather(2, cells), held))


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search: repaints a window of the input, keeps what brings the point closer to breaking, shrinks windows.

    *Paper*: Andriushchenko et al., ECCV 2020; L1: Croce & Hein, ICML 2021.
    *Needs*: scores.
    *Cost*: 1 query per point, restart and step, the start included; a broken point stops paying, and so does one
    that lost patience.
    *Blind spots*: scores that are quantized or random; a goal that only many small steps together can reach.
    *Held to*: exactly what is within reach of a linear model in Linf, L2 and L1, and nothing beyond.
    *Measured*: all of it (`tests/evasion/attacks/test_square.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(access="scores"))
        >>> game.play(evasion.Square(queries=500), net, seed=0)["robust accuracy"].estimate < 0.5
        True

    Attributes:
        queries: per point and restart.
        p_init: the share of the input that the first windows cover.
        restarts: searches from a new start, on the points still standing.
        patience: a point is given up when this many times its pace would not break it within the queries left;
            ``None`` never gives up. Progress slows like the logarithm of the queries, so the pace is the largest
            rise of the margin over a doubling of the queries, of the last three.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 1.0})

    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    patience: float | None = 3.0

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        frontier = Frontier.over(x)
        moves = _Moves(ball=budget, view=view, grid=Grid.of(x.shape[1:]))
        for restart in range(self.restarts):
            left = frontier.open()
            if len(left):
                self._search(view, frontier, moves, left, x[left], y[left], rng.select(left).fold(restart))
        return frontier.found

    def _horizon(self, view: View) -> int:
        """How many queries the schedule is spread over; of the threat alone, so that it is the same for every point."""
        limit = view.threat.queries
        return self.queries if limit is None else min(self.queries, limit)

    def _search(
        self, view: View, frontier: Frontier, moves: _Moves, at: Tensor, x: Tensor, y: Tensor, rng: Stream
    ) -> None:
        horizon, grid = self._horizon(view), moves.grid
        left = view.remaining(at)
        ends = torch.full_like(at, horizon) if left is None else left.clamp(max=horizon)
        nothing = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        rows = _Rows(at=at, x0=grid.flat(x), y=y, z=grid.flat(moves.start(x, rng.fold("start"))).contiguous(),
                     keys=rng.fold("steps").keys, ends=ends, best=nothing, gap=nothing, noise=nothing[:, None, None],
                     trail=nothing[:, None].repeat(1, _MARKS + 1))
        for step in range(horizon):
            rows = self._dismiss(rows, step, horizon)
            if not len(rows.at):
                return
            patches = []
            if step:
                if (step - 1) % _BLOCK == 0:
                    draws = (min(_BLOCK, horizon - step), moves.draws)
                    rows = replace(rows, noise=Stream(rows.keys).fold(step).uniform(*draws, dtype=torch.float64))
                patches = moves.propose(rows, rows.noise[:, (step - 1) % _BLOCK], self._share(step, horizon))
            rows = self._judge(view, frontier, rows, patches, x.shape[1:])

    def _dismiss(self, rows: _Rows, step: int, horizon: int) -> _Rows:
        """The rows that have queries left and may still break."""
        stay = rows.ends > step
        mark, late = divmod(step * _MARKS, horizon)
        if step and late < _MARKS and self.patience is not None:
            rows.trail[:, mark] = rows.gap
            if mark % _EVERY == 0 and mark >= _FIRST and step >= _LEAST:
                stay &= rows.gap + self.patience * _pace(rows.trail, mark) * math.log2(horizon / step) >= 0
        return rows if bool(stay.all()) else rows.keep(stay)

    def _judge(self, view: View, frontier: Frontier, rows: _Rows, patches: list[Patch], shape: torch.Size) -> _Rows:
        z = rows.z.reshape(-1, *shape)
        scores = view.scores(z, rows.at)
        won = succeeded(view, scores, rows.y)
        gap = objective(view, "margin")(scores, rows.y)
        loss = objective(view, "ce")(scores, rows.y) if view.threat.goal == TARGETED else gap
        better = loss > rows.best
        keep = frontier.settle(rows.at, z, won)
        _undo(rows.z, patches, better)
        rows = replace(rows, best=torch.where(better, loss, rows.best),
                       gap=torch.where(better, torch.maximum(gap, rows.gap), rows.gap))
        return rows if keep is None else rows.keep(keep)

    def _share(self, step: int, horizon: int) -> float:
        passed = sum(step * 10_000 > after * horizon for after in _HALVINGS)
        return float(self.p_init / 2**passed)
