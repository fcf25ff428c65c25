"""Feature collision: an input that the network cannot tell from a natural one of another class."""

from __future__ import annotations

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
from assay.targets.features import chosen, pooled
from assay.threats import Examples, View

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class FeatureCollision:
    """Moves the features of a point onto those of natural inputs of other classes, then climbs the margin.

    *Paper*: Sabour, Cao, Faghri & Fleet, ICLR 2016 (Eq. 1–3, by steepest descent instead of L-BFGS); the attack of
    choice against detectors in Tramèr, Carlini, Brendel & Mądry, NeurIPS 2020: whatever a detector looks at in the
    network, it sees a natural input.
    *Needs*: weights, for the features, and natural inputs that the adversary holds (``view.examples``).
    *Cost*: 1 forward for each example, and 2 to find the layers, shared by all points. Per point 1 forward to choose
    its guides, and per guide and step 1 forward + 1 backward. Those are passes of the bare network, which does not
    know a refusal: every ``every`` steps the rows that it gets wrong cost 1 query more, to see what the guarded
    target says. Then 1 query for each guide, and ``refine`` steps of PGD on the view's margin from the best row of
    each point, at the view's price. A broken point stops paying, unless the target is randomized: then the last
    iterate counts.
    *Blind spots*: a detector that looks at the input itself; examples too few or too far in feature space.
    *Held to*: at most 5 % of CIFAR-10 images left of each of four detectors, at Linf 8/255 and 5 % false positives; a
    linear model, on which it ends where the guide is projected to.
    *Measured*: 0 % of 300 images behind each of feature squeezing, LID and Mahalanobis, 0 % of 40 behind
    statistical odds (`benchmarks/detectors.py`); there, to a step
    (`tests/evasion/attacks/test_feature_collision.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, (x, y) = demo.target(), demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(access="weights"))
        >>> game.play(evasion.FeatureCollision(steps=20, refine=5), net, seed=0)["robust accuracy"].estimate < 0.2
        True

    Attributes:
        layers: whose features are to collide, named as in :mod:`assay.targets.features`, averaged over all places;
            empty for ``count`` of them, the penultimate one included.
        count: how many layers are chosen where none is named.
        guides: natural inputs that each point tries to look like, as extra rows: the nearest in feature space that the
            network takes for another class (or for the class to reach).
        steps: toward the guides.
        refine: steps on the margin afterwards.
        step: the first step's length over the radius; it falls to zero linearly, in either phase.
        momentum: decay of the accumulated, L1-normalized gradient on the way to the guides: several layers pull
            different ways, and signs of gradients alone go back and forth between them.
        every: how many steps lie between two looks at the target.
        draws: looks at a randomized target averaged per gradient of the margin (EOT).
        density: for L1 and L0, the share of coordinates that a step moves.
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2, 1, 0})

    layers: tuple[str, ...] = ()
    count: int = 4
    guides: int = 3
    steps: int = 100
    refine: int = 50
    step: float = 0.1
    momentum: float = 0.9
    every: int = 5
    draws: int = 1
    density: float = 0.05

    def __post_init__(self) -> None:
        least = min(self.count, self.guides, self.steps, self.every, self.draws)
        if not (least >= 1 and self.refine >= 0 and self.step > 0 and 0 <= self.momentum < 1):
            raise ConfigError("ATK160", f"{self} cannot be used")

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        frontier = Frontier.over(x)
        if not len(x):
            return frontier.found
        held = _Held.by(view, self.layers, self.count)
        rows = self._collide(view, held, self._paired(view, held, x, y), budget, frontier)
        if len(rows.at):
            self._refine(view, rows, budget, frontier)
        return frontier.found

    def _paired(self, view: View, held: _Held, x: Tensor, y: Tensor) -> _Rows:
        """Every point with each of its guides: the nearest examples that the network takes for what is wanted."""
        at = torch.arange(len(x), device=x.device)
        own = held.look(view, x, at)[1]
        apart = torch.stack([torch.cdist(a, b).square() for a, b in zip(own, held.features)], 2)
        relative = (apart / apart.mean(1, keepdim=True).clamp_min(1e-12)).sum(2)
        same = held.labels[None] == y[:, None]
        fits = same if view.threat.goal == TARGETED else ~same
        count = min(self.guides, len(held.labels))
        guide = relative.masked_fill(~fits, torch.inf).topk(count, dim=1, largest=False).indices.T.reshape(-1)
        rows = at.repeat(count)
        still = torch.zeros_like(x[rows])
        return _Rows(rows, x[rows], x[rows], still, y[rows], guide, apart[rows, guide]).only(fits[rows, guide])

    def _collide(self, view: View, held: _Held, rows: _Rows, budget: Ball, frontier: Frontier) -> _Rows:
        """Steepest descent of the distance between features; the rows of the points that are not broken by then."""
        for number in range(self.steps):
            if not len(rows.at):
                break
            goals = (feature[rows.guide] for feature in held.features)
            shown = rows.landed(view, budget)
            graded = view.feature_gradient(shown, rows.at, held.names, _nearness, rows.apart, *goals)
            lost, gradient = succeeded(view, graded.scores, rows.y), torch.nan_to_num(graded.gradient)
            # Of a randomized target the luckiest of many looks is no success: it is judged at the end alone.
            if number % self.every == 0 and not view.randomized and bool(lost.any()):
                keep = _judged(view, rows, shown, lost, frontier)
                rows, gradient = rows.only(keep), gradient[keep]
            mean = gradient.abs().flatten(1).sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
            rows = rows._replace(memory=self.momentum * rows.memory + gradient / rowwise(mean, gradient))
            rows = self._moved(view, rows, rows.memory, budget, number / self.steps)
        return rows

    def _refine(self, view: View, rows: _Rows, budget: Ball, frontier: Frontier) -> None:
        """Climbs the margin that the view shows, in which a refusal has its part, from the best row of each point."""
        rows, best = self._best(view, rows, budget)
        if not view.randomized:
            keep = frontier.settle(rows.at, rows.landed(view, budget), best > 0)
            rows = rows if keep is None else rows.only(keep)
        start, loss = rows, objective(view, "margin")
        for number in range(self.refine):
            if not len(rows.at):
                return
            shown = rows.landed(view, budget)
            graded = expected(view, shown, rows.at, self.draws, loss, rows.y)
            won, gradient = succeeded(view, graded.scores, rows.y), torch.nan_to_num(graded.gradient)
            keep = None if view.randomized else frontier.settle(rows.at, shown, won)
            if keep is not None:
                rows, gradient = rows.only(keep), gradient[keep]
            rows = self._moved(view, rows, gradient, budget, number / self.refine)
        if view.randomized and len(start.at):
            frontier.settle(start.at, start.landed(view, budget), best > 0)
        if len(rows.at):
            shown = rows.landed(view, budget)
            scores = expected_scores(view, shown, rows.at, self.draws)
            frontier.settle(rows.at, shown, succeeded(view, scores, rows.y))

    def _best(self, view: View, rows: _Rows, budget: Ball) -> tuple[_Rows, Tensor]:
        """Of the rows of each point the one nearest to success, and its margin."""
        scores = expected_scores(view, rows.landed(view, budget), rows.at, self.draws)
        value = objective(view, "margin")(scores, rows.y)
        value = torch.where(succeeded(view, scores, rows.y), value.clamp_min(1e-12), value.clamp_max(0))
        best = torch.full((len(view),), -torch.inf, dtype=value.dtype, device=value.device)
        best = best.scatter_reduce(0, rows.at, value, "amax")
        order = (value == best[rows.at]).nonzero()[:, 0].flip(0)  # the first row of several counts
        first = torch.full((len(view),), -1, device=value.device).scatter(0, rows.at[order], order)
        first = first[first >= 0]
        return rows.only(first), value[first]

    def _moved(self, view: View, rows: _Rows, way: Tensor, budget: Ball, share: float) -> _Rows:
        """A step of steepest ascent, shorter the larger the share of the steps that were taken."""
        length = self.step * (1 - share) * budget.radius if budget.norm else budget.radius
        z = rows.z + length * budget.steepest(way, density=self.density)
        return rows._replace(z=budget.project(z, rows.x, view.bounds))


class _Rows(NamedTuple):
    """The rows of the search: one for each point and guide.

    Attributes:
        at: the point of each row.
        x: where it started.
        z: where it is, not yet on a lattice.
        memory: the gradient accumulated on the way.
        y: the label to leave or to reach.
        guide: the example that it is to look like.
        apart: the squared distance of the point's features to the guide's, ``[rows, layers]``.
    """

    at: Tensor
    x: Tensor
    z: Tensor
    memory: Tensor
    y: Tensor
    guide: Tensor
    apart: Tensor

    def only(self, keep: Tensor) -> Self:
        """The rows of this mask or index."""
        return type(self)(*(part[keep] for part in self))

    def landed(self, view: View, budget: Ball) -> Tensor:
        """Where the rows arrive."""
        return budget.land(self.z, self.x, view.bounds)


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
    def by(cls, view: View, names: tuple[str, ...], count: int) -> Self:
        """Looks at every example once. Raises ``Denied`` (THR107) where there are none."""
        rehearsal = view.rehearsal()
        x = cast(Examples, view.examples).x
        at = torch.arange(len(x), device=x.device)
        if not names:
            names = chosen(rehearsal.module(), x[:2], count)
            rehearsal.charge(at[:2], forwards=1)
        blank = cls(names, (), torch.zeros(0, dtype=torch.int64, device=x.device))
        scores, features = blank.look(rehearsal, x, at)
        view.book(rehearsal)
        return cls(names, features, scores.argmax(1))

    def look(self, view: View, x: Tensor, at: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Scores and averaged features of these inputs."""
        parts = []
        for start in range(0, len(x), _BATCH):
            rows = slice(start, start + _BATCH)
            scores, features = view.features(x[rows], at[rows], self.names)
            parts.append((scores, *(pooled(feature) for feature in features)))
        columns = [torch.cat(column) for column in zip(*parts)]
        return columns[0], tuple(columns[1:])


def _judged(view: View, rows: _Rows, shown: Tensor, lost: Tensor, frontier: Frontier) -> Tensor:
    """Asks the target about the rows that the network gets wrong; the mask of the rows to go on with."""
    won = lost.clone()
    won[lost] = succeeded(view, view.scores(shown[lost], rows.at[lost]), rows.y[lost])
    keep = frontier.settle(rows.at, shown, won)
    return torch.ones_like(won) if keep is None else keep


def _nearness(features: tuple[Tensor, ...], apart: Tensor, *goals: Tensor) -> Tensor:
    """Minus the squared distance to the guide's features, each layer's over what it was at first."""
    terms = [(pooled(f) - goal).square().sum(1) for f, goal in zip(features, goals)]
    return -(torch.stack(terms, 1) / apart.clamp_min(1e-12)).mean(1)
