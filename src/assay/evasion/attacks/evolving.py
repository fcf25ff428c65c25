"""What attacks by evolutionary search share: a population for each point, judged slice by slice."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Literal, Protocol

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.attacks.allowance import granted, portions
from assay.evasion.attacks.gradient import LossName, objective, succeeded
from assay.evasion.threat import Ball
from assay.numerics.evolution import CMAES, DifferentialEvolution, Evolution
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.threats import View

Search = Literal["de", "cma-es"]

FULL = 64
"""Up to how many dimensions CMA-ES learns a whole covariance, and not its diagonal alone."""

_SLICE = 25
"""How many members of a generation are judged at once: a point that one of them breaks does not pay for the others."""


_SETTLED = 1e-2
"""A search starts anew when the losses of a generation differ by less than this share of the most they ever did."""


class Canvas(Protocol):
    """What vectors of the unit cube mean as inputs."""

    @property
    def size(self) -> int: ...

    def paint(self, x0: Tensor, v: Tensor) -> Tensor:
        """Inputs ``[rows, …]`` near ``x0`` from vectors ``[rows, size]``, in the budget."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live points."""

    at: Tensor
    x0: Tensor
    y: Tensor
    left: Tensor
    """Queries that the row may still spend."""
    losses: Tensor
    """Of this generation's members; ``inf`` for those not judged."""
    apart: Tensor
    """How far the losses of any generation were apart, at most."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """Evolutionary search for an adversarial input of each point.

    Attributes:
        view, budget: whom to ask, and where what is found lands.
        canvas: what is searched.
        loss: what is climbed.
        queries: per point.
        search: how.
        members: of a generation.
        wide: the first step size of CMA-ES, around the middle of the cube.
    """

    view: View
    budget: Ball
    canvas: Canvas
    loss: LossName
    queries: int
    search: Search
    members: int
    wide: float

    def run(self, x: Tensor, y: Tensor, rng: Stream) -> Tensor:
        """Generation after generation, until a point is broken or its queries are spent; the first success of each."""
        frontier, at = Frontier.over(x), torch.arange(len(x), device=x.device)
        losses = torch.full((len(x), self.members), torch.inf, dtype=torch.float64, device=x.device)
        search = self._start(rng.fold("start"))
        rows = _Rows(at, x, y, granted(self.view, at, self.queries), losses, losses.new_zeros(len(x)))
        for generation in count():
            open_ = rows.left > 0
            rows, search = rows.keep(open_), search.keep(open_)
            if not len(rows.at):
                break
            here = rng.select(rows.at).fold(generation)
            candidates = search.ask(here)
            rows = replace(rows, losses=torch.full_like(rows.losses, torch.inf))
            for first in range(0, self.members, _SLICE):
                rows = self._judge(frontier, rows, candidates[:, first : first + _SLICE], first)
            search = search.tell(candidates, rows.losses)
            apart = rows.losses.amax(1) - rows.losses.amin(1)
            rows = replace(rows, apart=torch.maximum(rows.apart, apart))
            settled = apart <= _SETTLED * rows.apart
            if bool(settled.any()):
                search = search.renewed(settled, self._start(here.fold("start")))
        return frontier.found

    def _start(self, rng: Stream) -> Evolution:
        """A search of the unit cube for each row: DE from anywhere, CMA-ES around the middle."""
        size = self.canvas.size
        if self.search == "de":
            return DifferentialEvolution.start(rng.uniform(self.members, size, dtype=torch.float64), greedy=True)
        middle = torch.full((len(rng), size), 0.5, dtype=torch.float64, device=rng.keys.device)
        return CMAES.start(middle, self.wide, members=self.members, separable=size > FULL)

    def _judge(self, frontier: Frontier, rows: _Rows, candidates: Tensor, first: int) -> _Rows:
        """Asks about these members of every point, as far as its queries reach; a broken point has none left."""
        losses, counts = rows.losses.clone(), rows.left.clamp(0, candidates.shape[1])
        for owner, number in portions(counts, rows.x0[0].numel()):
            z = self.canvas.paint(rows.x0[owner], candidates[owner, number].to(rows.x0.dtype))
            z = self.budget.land(z, rows.x0[owner], self.view.bounds)
            scores = self.view.scores(z, rows.at[owner])
            frontier.settle(rows.at[owner], z, succeeded(self.view, scores, rows.y[owner]))
            earned = objective(self.view, self.loss)(scores, rows.y[owner])
            losses[owner, first + number] = -earned.double()
        return replace(rows, losses=losses, left=torch.where(frontier.done[rows.at], 0, rows.left - counts))


def populous(members: int) -> None:
    """Raises ``ConfigError`` (ATK130) where a generation is too small for either search."""
    if members < 4:
        raise ConfigError("ATK130", f"a generation needs at least 4 members; got {members}")


def reflected(v: Tensor) -> Tensor:
    """Vectors that left the unit cube, mirrored at its faces back into it."""
    return 1 - (v.remainder(2) - 1).abs()
