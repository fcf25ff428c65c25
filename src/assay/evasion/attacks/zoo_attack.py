"""ZOO: the Carlini & Wagner objective, descended one coordinate's finite difference at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import count
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.evasion.attacks.allowance import granted, portions
from assay.evasion.attacks.gradient import objective, succeeded
from assay.evasion.attacks.windows import Grid
from assay.evasion.threat import Ball
from assay.numerics.balls import distance, rowwise
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_BETAS, _TINY = (0.9, 0.999), 1e-8
"""Adam's (Chen et al., AISec 2017, Algorithm 2)."""

_GROWTH, _TURN, _MOST = 10.0, 1.5, 1e10
"""By what the constant grows before a point's first success and turns after it, and where it ends."""

_FLOOR = 0.1
"""The share of coordinates that is drawn without regard to their importance."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points; coordinates ``[rows, size]`` are those of the space that is searched, in widths of the box."""

    at: Tensor
    x0: Tensor
    y: Tensor
    p: Tensor
    """The perturbation."""
    first: Tensor
    second: Tensor
    visits: Tensor
    """Adam's moments and steps, of each coordinate."""
    c: Tensor
    """What the margin weighs beside the distance."""
    age: Tensor
    """Steps under this constant."""
    hit: Tensor
    """Whether there was a success under this constant."""
    left: Tensor
    """Queries that the row may still spend."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, eq=False)
class _Space:
    """What is searched: the input's own coordinates, or those of a coarse picture that is spread over the input.

    Attributes:
        grid: how inputs are seen.
        down, across: linear interpolation, ``[height, rows of the coarse picture]`` and ``[width, its columns]``;
            ``None`` where the input's own coordinates are searched.
    """

    grid: Grid
    down: Tensor | None
    across: Tensor | None

    @classmethod
    def of(cls, x: Tensor, side: int | None) -> _Space:
        """The space for inputs like ``x``; with ``side``, no picture in it has more rows or columns."""
        grid = Grid.of(x.shape[1:])
        if side is None:
            return cls(grid, None, None)
        return cls(grid, _interpolation(grid.height, side, x), _interpolation(grid.width, side, x))

    @property
    def size(self) -> int:
        """How many coordinates there are."""
        if self.down is None or self.across is None:
            return self.grid.channels * self.grid.height * self.grid.width
        return self.grid.channels * self.down.shape[1] * self.across.shape[1]

    def spread(self, p: Tensor, like: Tensor) -> Tensor:
        """Coordinates ``[rows, size]`` as a change of inputs like ``like``."""
        if self.down is None or self.across is None:
            return p.reshape(len(p), *like.shape[1:])
        coarse = p.reshape(len(p), self.grid.channels, self.down.shape[1], self.across.shape[1])
        return (self.down @ coarse @ self.across.T).reshape(len(p), *like.shape[1:])

    def gather(self, delta: Tensor) -> Tensor:
        """The adjoint of :meth:`spread`: a gradient in inputs as one in coordinates."""
        if self.down is None or self.across is None:
            return delta.flatten(1)
        fine = delta.reshape(len(delta), self.grid.channels, self.grid.height, self.grid.width)
        return (self.down.T @ fine @ self.across).flatten(1)


def _interpolation(fine: int, coarse: int, like: Tensor) -> Tensor:
    """``[fine, coarse]``, whose rows sum to 1."""
    basis = torch.eye(min(fine, coarse), dtype=like.dtype, device=like.device)
    return F.interpolate(basis[None], size=fine, mode="linear")[0].T


@dataclass(frozen=True, kw_only=True)
class ZOO:
    """Descends distance plus margin by Adam in a few coordinates at a time, whose slopes are finite differences.

    *Paper*: Chen et al., AISec 2017 (ZOO-ADAM, Algorithm 2), on the objective of Carlini & Wagner, S&P 2017.
    *Needs*: scores. Of logits and log-probabilities the margin is the same.
    *Cost*: 1 + ``coordinates`` queries per point and step; 1 where the iterate is adversarial: there the margin's
    part of the objective is 0, and the distance's gradient needs no query. With a finite radius a point stops paying
    once it is broken within it.
    *Blind spots*: scores that are quantized, random or piecewise constant (trees): widen ``h``; inputs with many more
    coordinates than queries: set ``side``.
    *Held to*: white-box FAB on the same points; on MNIST the paper's mean distance is 1.01 times that of white-box
    C&W, with millions of queries. ``ZooAttack`` of ART 1.20.1 at about the same number of queries.
    *Measured*: ``tests/evasion/attacks/test_zoo_attack.py``. Of 20 MNIST digits on an undefended network all fall, at a
    median of 1.09 after 10,000 queries (FAB: 1.04).

    Three things differ from the paper: differences are one-sided, which halves their price; a new constant goes on
    from where the search stands; and constants turn instead of being bisected.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:20]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(0.6).threat(access="scores", queries=1000))
        >>> game.play(evasion.ZOO(), net, seed=0)["robust accuracy"].estimate < 0.4
        True

    Attributes:
        queries: per point, at most; less where the threat grants less.
        coordinates: how many slopes are measured a step.
        rate: Adam's learning rate, over the width of the box.
        h: how far a neighbor is from the iterate, over the width of the box.
        c: what the margin weighs at first beside the squared distance in widths of the box.
        steps: how long a constant is kept.
        importance: whether coordinates that have changed much are drawn more often.
        side: search a picture of at most this many rows and columns, spread over the input by linear interpolation.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({2.0})
    minimal: ClassVar[Literal[True]] = True

    queries: int = 10_000
    coordinates: int = 128
    rate: float = 0.03
    h: float = 1e-3
    c: float = 0.5
    steps: int = 20
    importance: bool = True
    side: int | None = None

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input found."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input found for each point; a finite radius is where a point's search may end."""
        closest, space = Closest.over(x), _Space.of(x, self.side)
        rows = self._start(view, x, y, space)
        for step in count():
            rows = rows.keep(rows.left > 0)
            if not len(rows.at):
                break
            rows = self._step(view, closest, space, rows, budget, rng.select(rows.at).fold(step))
        return closest

    def _start(self, view: View, x: Tensor, y: Tensor, space: _Space) -> _Rows:
        at = torch.arange(len(x), device=x.device)
        p = torch.zeros(len(x), space.size, dtype=x.dtype, device=x.device)
        c = torch.full((len(x),), self.c, dtype=x.dtype, device=x.device)
        return _Rows(at=at, x0=x, y=y, p=p, first=p, second=p, visits=p, c=c, age=torch.zeros_like(at),
                     hit=torch.zeros_like(at, dtype=torch.bool), left=granted(view, at, self.queries))

    def _step(self, view: View, closest: Closest, space: _Space, rows: _Rows, budget: Ball, rng: Stream) -> _Rows:
        """Looks at the iterate, at some of its neighbors where it fails, and moves."""
        z = rows.x0 + view.bounds.width * space.spread(rows.p, rows.x0)
        z = budget.land(z.clamp(*view.bounds), rows.x0, view.bounds)
        scores = view.scores(z, rows.at)
        won, value = succeeded(view, scores, rows.y), objective(view, "margin")(scores, rows.y).to(z.dtype)
        closest.offer(rows.at, z, torch.where(won, distance(z - rows.x0, 2), torch.inf))
        rows = replace(rows, left=rows.left - 1, hit=rows.hit | won)
        # One query is kept to judge what comes of the others. In the region that is wanted the margin's part of the
        # objective is 0: there the distance alone counts, whose gradient is known without a query.
        asked = torch.where(won, 0, (rows.left - 1).clamp(0, min(self.coordinates, space.size)))
        slope, seen = self._differences(view, space, rows, z, value, asked, budget, rng)
        rows, seen = replace(rows, left=rows.left - asked), seen | won[:, None]
        pull = 2 * space.gather(z - rows.x0) / view.bounds.width
        rows = self._descend(rows, pull - rows.c[:, None] * slope, seen)
        if self.side is None:  # what the box does not allow is forgotten
            inside = rows.x0 + view.bounds.width * space.spread(rows.p, rows.x0)
            rows = replace(rows, p=((inside.clamp(*view.bounds) - rows.x0) / view.bounds.width).flatten(1))
        rows = self._weigh(rows, torch.isfinite(closest.length[rows.at]))
        over = closest.length[rows.at] <= (budget.radius if budget.radius < float("inf") else -1.0)
        return rows.keep(~over & (won | (asked > 0)))

    def _differences(
        self, view: View, space: _Space, rows: _Rows, z: Tensor, value: Tensor, asked: Tensor, budget: Ball, rng: Stream
    ) -> tuple[Tensor, Tensor]:
        """The loss's slope along so many coordinates of each row, and which these are; ``[rows, size]`` both.

        Forward differences: ``value`` is known, so a coordinate costs 1 query; Eq. 6 of the paper costs 2.
        """
        slope, seen = torch.zeros_like(rows.p), torch.zeros_like(rows.p, dtype=torch.bool)
        most = int(asked.max())
        chosen = self._chosen(rows, most, rng) if most else asked
        for owner, number in portions(asked, z[0].numel()):
            column = chosen[owner, number]
            unit = torch.zeros(len(owner), space.size, dtype=z.dtype, device=z.device)
            unit.scatter_(1, column[:, None], 1.0)
            probe, moved = self._probe(view, z[owner], space.spread(unit, z), budget)
            loss = objective(view, "margin")(view.scores(probe, rows.at[owner]), rows.y[owner])
            slope[owner, column] = (loss.to(z.dtype) - value[owner]) / moved
            seen[owner, column] = True
        return slope, seen

    def _probe(self, view: View, z: Tensor, unit: Tensor, budget: Ball) -> tuple[Tensor, Tensor]:
        """Neighbors along ``unit``, on the side where the box leaves more room, and how far they are, signed."""
        h = self.h if budget.lattice is None else max(self.h, 1 / budget.lattice)
        change = view.bounds.width * h * unit
        up, down = ((z + sign * change).clamp(*view.bounds) - z for sign in (1, -1))
        above, below = up.flatten(1).sum(1), down.flatten(1).sum(1)
        upward = above >= -below
        share = torch.where(upward, above, below) / change.flatten(1).sum(1)
        return z + torch.where(rowwise(upward, z), up, down), h * share

    def _chosen(self, rows: _Rows, most: int, rng: Stream) -> Tensor:
        """Coordinates for each row, int64 ``[rows, most]``: each once before any twice, then by importance (§3.4).

        The paper pools importance, the size of the change, over regions of images far larger than ours.
        """
        size = rows.p.shape[1]
        u = rng.uniform(size, dtype=torch.float64)
        weight = torch.full_like(u, 1 / size)
        if self.importance:
            change = rows.p.abs().double()
            weight = _FLOOR * weight + change / change.sum(1, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
        # Of log-weights with Gumbel noise the largest are a weighted sample without replacement.
        key = weight.log() - (-(u.clamp_min(1e-300)).log()).log()
        return torch.where(rows.visits == 0, key + 1e3, key).topk(most, dim=1).indices

    def _descend(self, rows: _Rows, gradient: Tensor, seen: Tensor) -> _Rows:
        """A step of Adam in the coordinates that were seen (Algorithm 2)."""
        visits = rows.visits + seen
        first = torch.where(seen, _BETAS[0] * rows.first + (1 - _BETAS[0]) * gradient, rows.first)
        second = torch.where(seen, _BETAS[1] * rows.second + (1 - _BETAS[1]) * gradient.square(), rows.second)
        mean, square = (m / (1 - beta ** visits.clamp_min(1)) for m, beta in zip((first, second), _BETAS))
        p = torch.where(seen, rows.p - self.rate * mean / (square.sqrt() + _TINY), rows.p)
        return replace(rows, p=p, first=first, second=second, visits=visits)

    def _weigh(self, rows: _Rows, ever: Tensor) -> _Rows:
        """Every ``steps`` steps: a smaller constant where there was a success under it, a larger one elsewhere.

        C&W bisects and starts over from the point. Going on from where one is takes far fewer queries, but then a
        failure no longer says that the constant is too small for good: so it turns and turns and never settles.
        """
        age = rows.age + 1
        turn = age >= self.steps
        factor = torch.where(rows.hit, 1 / _TURN, torch.where(ever, _TURN, _GROWTH)).to(rows.c.dtype)
        c = torch.where(turn, rows.c * factor, rows.c).clamp(1 / _MOST, _MOST)
        return replace(rows, c=c, age=torch.where(turn, 0, age), hit=rows.hit & ~turn)
