"""Gradients estimated from scores: antithetic pairs of probes, each point's estimate from its own probes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from assay.evasion.attacks.allowance import granted, portions
from assay.evasion.attacks.gradient import succeeded
from assay.evasion.threat import Ball
from assay.numerics.balls import rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.base import Loss
from assay.threats import View

Directions = Literal["gaussian", "rademacher"]

class Estimate(NamedTuple):
    """What the probes of each row say.

    Attributes:
        gradient: ``[rows, …]``; zero where a row had no probe.
        loss: its mean over the probes, ``[rows]``; zero where a row had none.
    """

    gradient: Tensor
    loss: Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """The live points of an ascent."""

    at: Tensor
    x0: Tensor
    y: Tensor
    z: Tensor
    left: Tensor
    """Queries that the row may still spend."""
    state: tuple[Tensor, ...]
    """What the attack remembers of each row."""

    def keep(self, mask: Tensor) -> Rows:
        """The rows under the mask."""
        return Rows(self.at[mask], self.x0[mask], self.y[mask], self.z[mask], self.left[mask],
                    tuple(part[mask] for part in self.state))


@dataclass(frozen=True, kw_only=True)
class Prober:
    """Central differences along random directions.

    Attributes:
        view, budget: whom to ask, and what changes probes on their way (the box, the lattice).
        loss: what is climbed.
        directions: standard normal, or a fair coin's −1 or +1 for every coordinate.
        sigma: how far a probe is from the iterate along its direction, over the width of the box.
    """

    view: View
    budget: Ball
    loss: Loss
    directions: Directions
    sigma: float

    def __call__(self, rows: Rows, pairs: Tensor, rng: Stream) -> Estimate:
        """The gradient at ``rows.z`` from so many pairs a row: 2 queries each."""
        gradient = torch.zeros_like(rows.z)
        loss = torch.zeros_like(rows.z.flatten(1)[:, 0])
        reach = self._reach()
        for owner, number in portions(pairs, rows.z[0].numel()):
            u = self._draw(rng.select(owner).fold(number), rows.z)
            pair = [self._arrive(rows.z[owner] + shift * u, rows.x0[owner]) for shift in (reach, -reach)]
            scores = self.view.scores(torch.cat(pair), rows.at[owner].repeat(2))
            above, below = self.loss(scores, rows.y[owner].repeat(2)).to(u.dtype).chunk(2)
            # (f⁺ − f⁻)·u/2σ of the papers, with what the box and the lattice left of 2σu: so that it stays unbiased.
            gap = pair[0] - pair[1]
            share = torch.where(gap == 0, 0, u.square() / torch.where(gap == 0, 1, gap))
            gradient.index_add_(0, owner, share * rowwise(above - below, share))
            loss.index_add_(0, owner, (above + below) / 2)
        many = pairs.clamp_min(1).to(loss.dtype)
        return Estimate(gradient / rowwise(many, gradient), loss / many)

    def _reach(self) -> float:
        """How far apart probe and iterate are: on a lattice at least a step of it, or the two would be one."""
        width, lattice = self.view.bounds.width, self.budget.lattice
        return width * (self.sigma if lattice is None else max(self.sigma, 1 / lattice))

    def _arrive(self, z: Tensor, x0: Tensor) -> Tensor:
        """The probe as the target sees it."""
        return self.budget.land(z.clamp(*self.view.bounds), x0, self.view.bounds)

    def _draw(self, rng: Stream, like: Tensor) -> Tensor:
        draw = rng.normal if self.directions == "gaussian" else rng.sign
        return draw(*like.shape[1:], dtype=like.dtype)


class Ascent(Protocol):
    """An attack that moves along estimated gradients."""

    @property
    def queries(self) -> int: ...
    @property
    def draws(self) -> int: ...

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """What is remembered of each row before the first step."""

    def move(self, rows: Rows, estimate: Estimate, step: int, budget: Ball, view: View) -> Rows:
        """The rows after one step, in budget and box."""


def climb(attack: Ascent, prober: Prober, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
    """Estimates, moves and judges until a point is broken or its queries are spent; the first success of each.

    The last step's estimate takes what is left; a point with 1 or 2 queries left goes on along what it remembers.
    """
    view, budget, frontier = prober.view, prober.budget, Frontier.over(x)
    at = torch.arange(len(x), device=x.device)
    rows = Rows(at, x, y, x, granted(view, at, attack.queries), attack.start(x))
    for step in count():
        rows = rows.keep(rows.left > 0)
        if not len(rows.at):
            break
        pairs = ((rows.left - 1) // 2).clamp(max=attack.draws // 2)
        estimate = prober(rows, pairs, rng.select(rows.at).fold(step))
        rows = attack.move(rows, estimate, step, budget, view)
        landed = budget.land(rows.z, rows.x0, view.bounds)
        won = succeeded(view, view.scores(landed, rows.at), rows.y)
        keep = frontier.settle(rows.at, landed, won)
        rows = replace(rows, left=rows.left - 2 * pairs - 1)
        rows = rows if keep is None else rows.keep(keep)
    return frontier.found
