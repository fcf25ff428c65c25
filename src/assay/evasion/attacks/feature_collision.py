"""Feature collision: an input that the network cannot tell from a natural one of another class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self, cast

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.attacks.gradient import expected, expected_scores, objective, succeeded
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Graded
from assay.targets.features import chosen, pooled
from assay.threats import Examples, View

_BATCH = 512


class _Rows(NamedTuple):
    """The rows of the search: some for each point.

    Attributes:
        at: the point of each row.
        x: where it started.
        z: where it is.
        y: the label to leave or to reach.
        guide: the example that it is to look like.
        apart: how far its features were from the guide's, ``[rows, layers]``.
    """

    at: Tensor
    x: Tensor
    z: Tensor
    y: Tensor
    guide: Tensor
    apart: Tensor

    def only(self, keep: Tensor) -> Self:
        """The rows of this mask or index."""
        return type(self)(*(part[keep] for part in self))


@dataclass(frozen=True, kw_only=True)
class FeatureCollision:
    """Moves the features of a point onto those of natural inputs of other classes, then climbs the joint margin."""

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2, 1, 0})

    layers: tuple[str, ...] = ()
    count: int = 4
    guides: int = 3
    steps: int = 100
    refine: int = 50
    step: float = 0.25
    every: int = 5
    draws: int = 1
    density: float = 0.05

    def __post_init__(self) -> None:
        least = min(self.count, self.guides, self.steps, self.every, self.draws)
        if not (least >= 1 and self.refine >= 0 and self.step > 0):
            raise ConfigError("ATK160", f"{self} cannot be used")

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        frontier = Frontier.over(x)
        if not len(x):
            return frontier.found
        names = self.layers or chosen(view.module(), x, self.count)
        held = _Held.by(view, names)
        rows = self._collide(view, held, self._paired(view, held, x, y), budget, frontier)
        if len(rows.at):
            self._refine(view, self._nearest(view, rows), budget, frontier)
        return frontier.found

    def _paired(self, view: View, held: _Held, x: Tensor, y: Tensor) -> _Rows:
        """Every point with each of its guides: the nearest examples that the network takes for what is wanted."""
        at = torch.arange(len(x), device=x.device)
        _, own = held.look(view, x, at)
        apart = torch.stack([torch.cdist(a, b).square() for a, b in zip(own, held.features)], 2)
        relative = (apart / apart.mean(1, keepdim=True).clamp_min(1e-12)).sum(2)
        same = held.labels[None] == y[:, None]
        fits = same if view.threat.goal == TARGETED else ~same
        count = min(self.guides, len(held.labels))
        guide = relative.masked_fill(~fits, torch.inf).topk(count, dim=1, largest=False).indices.T.reshape(-1)
        rows = at.repeat(count)
        made = _Rows(rows, x[rows], x[rows], y[rows], guide, apart[rows, guide])
        return made.only(fits[rows, guide])

    def _collide(self, view: View, held: _Held, rows: _Rows, budget: Ball, frontier: Frontier) -> _Rows:
        """Steepest descent of the distance between features; the rows of the points that are not broken by then."""
        for number in range(self.steps + 1):
            if not len(rows.at):
                break
            goals = (feature[rows.guide] for feature in held.features)
            graded = view.feature_gradient(rows.z, rows.at, held.names, _nearness, rows.apart, *goals)
            lost = succeeded(view, graded.scores, rows.y)
            gradient = torch.nan_to_num(graded.gradient)
            if number % self.every == 0 and not view.randomized and bool(lost.any()):
                keep = self._judge(view, rows, lost, frontier)
                rows, gradient = rows.only(keep), gradient[keep]
            if number < self.steps:
                rows = rows._replace(z=self._moved(view, rows, gradient, budget, number / self.steps))
        return rows

    def _judge(self, view: View, rows: _Rows, lost: Tensor, frontier: Frontier) -> Tensor:
        """Asks the target about the rows that the network gets wrong; the mask of the rows to go on with."""
        won = lost.clone()
        asked = rows.only(lost)
        won[lost] = succeeded(view, view.scores(asked.z, asked.at), asked.y)
        keep = frontier.settle(rows.at, rows.z, won)
        return torch.ones_like(won) if keep is None else keep

    def _moved(self, view: View, rows: _Rows, gradient: Tensor, budget: Ball, share: float) -> Tensor:
        length = self.step * (1 - share) * budget.radius if budget.norm else budget.radius
        z = rows.z + length * budget.steepest(gradient, density=self.density)
        return budget.land(budget.project(z, rows.x, view.bounds), rows.x, view.bounds)

    def _nearest(self, view: View, rows: _Rows) -> _Rows:
        """Of the rows of each point, the one nearest to success."""
        scores = expected_scores(view, rows.z, rows.at, self.draws)
        value = objective(view, "margin")(scores, rows.y)
        best = torch.full((len(view),), -torch.inf, dtype=value.dtype, device=value.device)
        best = best.scatter_reduce(0, rows.at, value, "amax")
        order = (value == best[rows.at]).nonzero()[:, 0].flip(0)
        first = torch.full((len(view),), -1, device=value.device).scatter(0, rows.at[order], order)
        return rows.only(first[first >= 0])

    def _refine(self, view: View, rows: _Rows, budget: Ball, frontier: Frontier) -> None:
        """Climbs the margin that the view shows, which a refusal takes part in."""
        loss = objective(view, "margin")
        for number in range(self.refine):
            graded = expected(view, rows.z, rows.at, self.draws, loss, rows.y)
            gradient = torch.nan_to_num(graded.gradient)
            if not view.randomized:
                keep = frontier.settle(rows.at, rows.z, succeeded(view, graded.scores, rows.y))
                if keep is not None:
                    rows, gradient = rows.only(keep), gradient[keep]
            if not len(rows.at):
                return
            rows = rows._replace(z=self._moved(view, rows, gradient, budget, number / self.refine))
        scores = expected_scores(view, rows.z, rows.at, self.draws)
        frontier.settle(rows.at, rows.z, succeeded(view, scores, rows.y))


class _Held(NamedTuple):
    """What the network makes of the adversary's examples.

    Attributes:
        names: of the layers.
        features: averaged over all places, ``[m, channels]`` for each layer.
        labels: what the network takes them for.
    """

    names: tuple[str, ...]
    features: tuple[Tensor, ...]
    labels: Tensor

    @classmethod
    def by(cls, view: View, names: tuple[str, ...]) -> Self:
        """Looks at every example once. Raises ``Denied`` (THR107) where there are none."""
        rehearsal = view.rehearsal()
        x = cast(Examples, view.examples).x
        blank = cls(names, (), x.new_zeros(0, dtype=torch.int64))
        scores, features = blank.look(rehearsal, x, torch.arange(len(x), device=x.device))
        view.book(rehearsal)
        return cls(names, features, scores.argmax(1))

    def look(self, view: View, x: Tensor, at: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Scores and averaged features of these inputs."""
        parts = []
        for rows in at.split(_BATCH):
            scores, features = view.features(x[rows], rows, self.names)
            parts.append((scores, *(pooled(feature) for feature in features)))
        scores, *features = (torch.cat(column) for column in zip(*parts))
        return scores, tuple(features)


def _nearness(features: tuple[Tensor, ...], apart: Tensor, *goals: Tensor) -> Tensor:
    """Minus the squared distance to the guide's features, each layer's over what it was at first."""
    terms = [(pooled(f) - goal).square().sum(1) for f, goal in zip(features, goals)]
    return -(torch.stack(terms, 1) / apart.clamp_min(1e-12)).mean(1)
