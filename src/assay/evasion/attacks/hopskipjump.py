"""HopSkipJump: the boundary's direction from the labels of many points around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.decisions import Oracle, started
from assay.evasion.threat import Ball
from assay.numerics.balls import distance
from assay.numerics.closest import Closest
from assay.numerics.directions import Directions
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_REACH = 1 / 25
"""How far from the iterate its surroundings are asked, in parts of the perturbation's length. The paper's 1/d asks
for a boundary that is met far more exactly, for no nearer inputs."""

_NUMBERS, _LEAST = 2**21, 512
"""Numbers in one block of directions, so that it stays near the processor; but no fewer rows than this."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points, one row each; inputs are flat."""

    at: Tensor
    x: Tensor
    z: Tensor
    """Successes at the boundary."""
    length: Tensor
    """How far ``z`` is, in the budget's norm."""

    def keep(self, index: Tensor | slice) -> _Rows:
        """The rows at this index, or under this mask."""
        return _Rows(self.at[index], self.x[index], self.z[index], self.length[index])

    def moved(self, z: Tensor, norm: float) -> _Rows:
        """The same rows at other successes."""
        return _Rows(self.at, self.x, z, distance(z - self.x, norm))


@dataclass(frozen=True, kw_only=True)
class HopSkipJump:
    """Estimates the boundary's normal from the labels around a point on it, steps along, and meets it again.

    *Paper*: Chen, Jordan & Wainwright, S&P 2020. For L2 steps are taken on the circle of Reza et al., ICCV 2023 (CGBA).
    *Needs*: labels.
    *Cost*: all queries granted, or ``queries``: in step t ``evaluations·√t`` of them estimate the normal, and about 10
    meet the boundary. With a finite radius, a point with a success within it stops paying.
    *Blind spots*: a target that no random input breaks; answers that vary; of several boundaries, those it did not
    meet first.
    *Held to*: no larger a median L2 distance at 1,000, 5,000 and 20,000 queries than foolbox 3.3.4's
    ``HopSkipJumpAttack`` on the same network and images (``benchmarks/against_decision_attacks.py``).
    *Measured*: by that benchmark; a part of it in ``tests/evasion/attacks/test_hopskipjump.py``.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:20]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(1.5).threat(access="labels", queries=300))
        >>> game.play(evasion.HopSkipJump(), net, seed=0)["robust accuracy"].estimate < 0.5
        True

    Attributes:
        queries: per point, where the threat sets no limit; else all that it leaves are used.
        evaluations: directions of the first estimate; later ones take √t times as many. (The paper's 100 is no better
            at any number of queries once the step is exact.)
        tries: random inputs looked at for a start.
    """

    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0})
    minimal: ClassVar[Literal[True]] = True

    queries: int = 5000
    evaluations: int = 30
    tries: int = 500

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input found."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input found for each point.

        A finite radius is where a point's search may end: nothing nearer is looked for.
        """
        oracle = Oracle.over(view, x, y, budget, self.queries)
        at, z = started(oracle, rng.fold("start"), self.tries)
        z, origin, directions = z.flatten(1), x[at].flatten(1), Directions.of(x.shape[1:], x)
        rows = _Rows(at, origin, z, distance(z - origin, budget.norm))
        advance = _around if budget.norm == 2 else _into_the_corner
        for step in count(1):
            live = oracle.live(rows.at)
            rows = rows if bool(live.all()) else rows.keep(live)
            if not len(rows.at):
                break
            normal = self._normal(oracle, rows, directions, step, rng.select(rows.at).fold(step))
            rows = rows.moved(advance(oracle, rows, normal, step), budget.norm)
        return oracle.closest

    def _normal(self, oracle: Oracle, rows: _Rows, directions: Directions, step: int, rng: Stream) -> Tensor:
        """Where the answers around each iterate turn to success, ``[rows, numbers]``, of no particular length.

        Source: Chen et al., S&P 2020, Eq. 9 to 11: the mean of the directions, weighted by what they met, and the mean
        of that taken off.
        """
        asked = self._share(oracle, rows, step)
        offsets = directions.offsets(rng, int(asked.max()))
        met = torch.zeros(len(rows.at), 2, rows.x.shape[1], dtype=rows.x.dtype, device=rows.x.device)
        balance = torch.zeros_like(rows.length)
        numbers = torch.arange(offsets.shape[1], device=offsets.device)
        for points, some in _blocks(len(offsets), offsets.shape[1], rows.x.shape[1]):
            part, among = rows.keep(points), numbers[some] < asked[points, None]
            around = _surroundings(oracle, part, directions.at(offsets[points, some]))
            sign = torch.where(_polled(oracle, part, around, among), 1, -1).to(rows.x.dtype) * among
            balance[points] += sign.sum(1)
            met[points] += torch.bmm(torch.stack([sign, among.to(sign.dtype)], 1), around.sub_(part.z[:, None]))
        mean = balance / asked
        return met[:, 0] - torch.where(mean.abs() == 1, 0, mean)[:, None] * met[:, 1]

    def _share(self, oracle: Oracle, rows: _Rows, step: int) -> Tensor:
        """How many directions each point asks about, int64 ``[rows]``: at the end, what meeting the boundary leaves."""
        left = oracle.left[rows.at]
        rest = torch.maximum(left - _looks(rows), (left + 1) // 2)
        return rest.clamp(max=max(int(self.evaluations * math.sqrt(step)), 1))


def _looks(rows: _Rows) -> int:
    """Bisections of a step: the boundary is to be met more exactly than one coordinate moves in an estimate."""
    return max(round(4 + math.log2(rows.x.shape[1]) / 2), 8)


def _blocks(points: int, numbers: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Points and directions, some at a time."""
    most = max(_NUMBERS // size, _LEAST)
    across, down = min(numbers, most), max(most // numbers, 1)
    for first in range(0, points, down):
        for start in range(0, numbers, across):
            yield slice(first, first + down), slice(start, start + across)


def _surroundings(oracle: Oracle, rows: _Rows, directions: Tensor) -> Tensor:
    """Inputs around each iterate, ``[rows, directions, numbers]``; ``directions`` is used up."""
    delta, (lower, upper) = rows.z - rows.x, oracle.view.bounds
    far = distance(delta, 2)
    reach, lattice = _REACH * far, oracle.budget.lattice
    if lattice is not None:  # a shorter step would be rounded away
        reach = reach.clamp_min(directions.shape[2] ** 0.5 * (upper - lower) / lattice / 2)
    tiny = torch.finfo(far.dtype).tiny
    square = torch.linalg.vector_norm(directions, dim=2).square()
    if oracle.budget.norm == 2:
        # The way to the original is no news, and would drown what is: only what is square to it is asked.
        home = delta / far.clamp_min(tiny)[:, None]
        along = torch.bmm(directions, home[:, :, None])[:, :, 0]
        scale = reach[:, None] / (square - along.square()).clamp_min(1e-9 * square + tiny).sqrt()
        weights = torch.stack([torch.ones_like(along), -scale * along], 2)
        around = torch.baddbmm(directions.mul_(scale[:, :, None]), weights, torch.stack([rows.z, home], 1))
    else:
        scale = reach[:, None] / square.clamp_min(tiny).sqrt()
        around = directions.mul_(scale[:, :, None]).add_(rows.z[:, None])
    around = around.clamp_(lower, upper)
    if lattice is None:
        return around
    many = around.reshape(-1, *oracle.x.shape[1:])
    origin = oracle.x[rows.at].repeat_interleave(around.shape[1], 0)
    return oracle.budget.land(many, origin, oracle.view.bounds).reshape(around.shape)


def _polled(oracle: Oracle, rows: _Rows, around: Tensor, among: Tensor) -> Tensor:
    """Which of these inputs succeed, bool ``[rows, directions]``; only those ``among`` are asked about."""
    at, shape = rows.at[:, None].expand(among.shape), oracle.x.shape[1:]
    if bool(among.all()):
        return oracle.poll(around.reshape(-1, *shape), at.reshape(-1)).reshape(among.shape)
    won = torch.zeros_like(among)
    won[among] = oracle.poll(around[among].reshape(-1, *shape), at[among])
    return won


def _around(oracle: Oracle, rows: _Rows, normal: Tensor, step: int) -> Tensor:
    """L2: the last success on the circle that has the way home as its diameter, in the plane of ``normal``.

    Every point of it is nearer than the iterate, and on it lies the nearest point of a boundary that is a plane
    (Thales). The first halvings are the geometric search for a step (Algorithm 2), the last ones meet the boundary.
    """
    far = rows.length[:, None].clamp_min(torch.finfo(rows.length.dtype).tiny)
    home = (rows.z - rows.x) / far
    aside = normal - (normal * home).sum(1, keepdim=True) * home
    aside = aside / distance(aside, 2).clamp_min(torch.finfo(far.dtype).tiny)[:, None]
    low, high, best = torch.zeros_like(rows.length), torch.full_like(rows.length, math.pi / 2), rows.z
    for _ in range(_looks(rows)):
        angle = (low + high) / 2
        cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
        z = (rows.x + (far * cosine) * (cosine * home + sine * aside)).clamp_(*oracle.view.bounds)
        won = oracle.judge(z, rows.at)
        best = torch.where(won[:, None], z, best)
        low, high = torch.where(won, angle, low), torch.where(won, high, angle)
    return best


def _into_the_corner(oracle: Oracle, rows: _Rows, normal: Tensor, step: int) -> Tensor:
    """Linf: a step along the normal's signs that gets no farther away, halved until it succeeds, and then inward."""
    x, signs, best = rows.x, normal.sign(), rows.z.clone()
    stride, open_ = rows.length / math.sqrt(step), torch.ones_like(rows.length, dtype=torch.bool)
    for _ in range(_looks(rows)):
        i = open_.nonzero()[:, 0]
        if not len(i):
            break
        z = _within(x[i], rows.z[i] + stride[i, None] * signs[i], rows.length[i], oracle)
        won = oracle.judge(z, rows.at[i])
        best[i[won]], open_[i[won]] = z[won], False
        stride = stride / 2
    low, high = torch.zeros_like(rows.length), rows.length.clone()
    i = (~open_).nonzero()[:, 0]
    for _ in range(_looks(rows)):
        radius = (low[i] + high[i]) / 2
        won = oracle.judge(_within(x[i], best[i], radius, oracle), rows.at[i])
        high[i], low[i] = torch.where(won, radius, high[i]), torch.where(won, low[i], radius)
    return _within(x, best, high, oracle)


def _within(x: Tensor, z: Tensor, radius: Tensor, oracle: Oracle) -> Tensor:
    """``z`` in the cube of this radius around ``x``, and in the box."""
    return (x + (z - x).clamp(-radius[:, None], radius[:, None])).clamp_(*oracle.view.bounds)
