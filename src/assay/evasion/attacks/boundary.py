"""Boundary attack: a walk along the boundary toward the original."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
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

_BLOCK = 64
"""Steps whose directions are chosen at once."""

_SUCCESS = 0.25
"""The share of successes at which the steps are neither too long nor too short."""

_PACE = 0.1
"""How fast the steps follow the successes: at most by so much of their logarithm."""

_FIRST, _LEAST, _MOST = 0.1, 1e-4, 1.0
"""The first, the shortest and the longest orthogonal step, in parts of the perturbation's length."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points, one row each; inputs are flat."""

    at: Tensor
    x: Tensor
    delta: Tensor
    """What the best success adds to ``x``; written in place."""
    far: Tensor
    """Its length; written in place."""
    steps: Tensor
    """Logarithms of the orthogonal steps of fine and of coarse directions, ``[rows, 2]``; written in place."""
    keys: Tensor
    """Of the row's random stream."""
    offsets: Tensor
    """This block's directions, ``[rows, steps]``."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Walks along the boundary: a random step around the original, a small one toward it, kept where it succeeds.

    *Paper*: Brendel, Rauber & Bethge, ICLR 2018; every second direction of an image is coarse, as in Brunner et al.,
    ICCV 2019.
    *Needs*: labels.
    *Cost*: all queries granted, or ``queries``: 1 per point and step, and about 10 to meet the boundary first. With a
    finite radius, a point with a success within it stops paying.
    *Blind spots*: a target that no random input breaks; answers that vary; of several boundaries, those it did not
    meet first.
    *Held to*: no larger a median L2 distance at 1,000, 5,000 and 20,000 queries than foolbox 3.3.4's
    ``BoundaryAttack`` on the same network and images (``benchmarks/against_decision_attacks.py``).
    *Measured*: by that benchmark; a part of it in ``tests/evasion/attacks/test_boundary.py``.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:20]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(1.5).threat(access="labels", queries=300))
        >>> game.play(evasion.Boundary(), net, seed=0)["robust accuracy"].estimate < 0.6
        True

    Attributes:
        queries: per point, where the threat sets no limit; else all that it leaves are used.
        tries: random inputs looked at for a start.
    """

    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[float]] = frozenset({2.0})
    minimal: ClassVar[Literal[True]] = True

    queries: int = 10_000
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
        origin, directions = x[at].flatten(1), Directions.of(x.shape[1:], x)
        delta = z.flatten(1) - origin
        steps = torch.full((len(at), 2), _FIRST, dtype=x.dtype, device=x.device).log()
        keys = rng.select(at).fold("walk").keys
        rows = _Rows(at, origin, delta, distance(delta, 2), steps, keys, at[:, None])
        for step in count():
            live = oracle.live(rows.at)
            rows = rows if bool(live.all()) else rows.keep(live)
            if not len(rows.at):
                break
            if step % _BLOCK == 0:
                rows = replace(rows, offsets=directions.offsets(Stream(rows.keys).fold(step), _BLOCK))
            _stride(oracle, rows, directions, step % _BLOCK)
        return oracle.closest


def _stride(oracle: Oracle, rows: _Rows, directions: Directions, number: int) -> None:
    """One proposal of every row: it is taken where it succeeds, and the steps grow; elsewhere they shrink.

    The orthogonal step δ and the step home ε are one: with ε = δ²/2 a boundary that is a plane is approached fastest,
    whatever its angle, as ε · P(success) says when both are normal. So one statistic adapts both, and no query is
    spent, as in the paper, on the orthogonal step alone.
    """
    length = rows.steps[:, number % 2].exp()
    v = directions.at(rows.offsets[:, number])
    along = (v * rows.delta).sum(1) / rows.far.square()
    square = distance(v, 2).square()
    aside = (square - (along * rows.far).square()).clamp_min(1e-9 * square).sqrt()
    shrink = (1 - length.square() / 2) / (1 + length.square()).sqrt()
    turn = shrink * length * rows.far / aside
    move = v.mul_(turn[:, None]).addcmul_(rows.delta, (shrink - turn * along)[:, None])
    z = move.add_(rows.x).clamp_(*oracle.view.bounds)
    won = oracle.judge(z, rows.at)
    taken = won.nonzero()[:, 0]
    delta = z[taken] - rows.x[taken]
    rows.delta[taken], rows.far[taken] = delta, distance(delta, 2)
    longer = rows.steps[:, number % 2] + _PACE * (won.to(length.dtype) - _SUCCESS)
    rows.steps[:, number % 2] = longer.clamp(math.log(_LEAST), math.log(_MOST))
