"""The nearest input at which an ensemble of trees decides otherwise: branch and bound over its leaves, exact.

A set of leaves, one a tree, is reached by some input exactly where their boxes overlap pair by pair: boxes with
parallel sides that meet in pairs have a common point (Helly). A cube around the original is such a box too. So "is
there an input within this distance" is a search for a clique of leaves that are all near (Chen et al., NeurIPS 2019),
and the smallest distance at which the answer is yes is one of finitely many: that from the original to an end of a
leaf's interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from assay.errors import ConfigError
from assay.targets.trees import Floats, Forest, Ints, Regions
from assay.threats import View

Bools = npt.NDArray[np.bool_]
Hit = Callable[[Ints], bool]
"""Whether one leaf a tree, nodes ``[trees]``, is what is looked for."""

Word = Literal["own", "sure", "possible"]
"""Whose word counts where scores all but tie: the structure's own, one that no rounding of the library can undo, or
that some rounding of it could give."""


def forest_of(view: View) -> Forest:
    """The ensemble of trees that the target is. Raises ``ConfigError`` (ATK150) where it is none."""
    forest = view.structure(Forest)
    if forest is None:
        raise ConfigError("ATK150", "no ensemble of trees can be read from the target")
    return forest


@dataclass(frozen=True, eq=False)
class Question:
    """What is looked for: leaves whose scores put one class ahead, or ahead of all others.

    Attributes:
        ahead: ``[pairs, nodes]``: what each node adds to the leads that are all wanted.
        base: ``[pairs]``: the leads before any tree.
        least: a lead below this is none.
        hit: the last word on a full set of leaves.
    """

    ahead: Floats
    base: Floats
    least: float
    hit: Hit

    @classmethod
    def lead(cls, forest: Forest, first: int, others: list[int], least: float, hit: Hit | None = None) -> Question:
        """Whether class ``first`` leads all of ``others`` by at least ``least``, and ``hit`` agrees."""
        value, base = forest.value, forest.base
        return cls((value[:, [first]] - value[:, others]).T, base[first] - base[others], least, hit or _agreed)


def _agreed(leaves: Ints) -> bool:
    return True


def questions(forest: Forest, y: int, word: Word, *, targeted: bool = False) -> list[Question]:
    """What has to be asked to leave the label ``y``, or to reach it: pairs of classes, or one against all."""
    others = [label for label in range(forest.classes) if label != y]
    least = float(np.nextafter(forest.rounding, np.inf)) if word == "sure" else -forest.rounding

    def decided(leaves: Ints) -> bool:
        return bool((forest.added(leaves[None])[0].argmax() == y) == targeted)

    hit = decided if word == "own" else None
    if targeted:
        return [Question.lead(forest, y, others, least, hit)]
    return [Question.lead(forest, other, [y], least, hit) for other in others]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a search found.

    Attributes:
        leaves: of the nearest clique, nodes ``[trees]``; ``None`` where there is none.
        distance: to it; ``inf`` where there is none.
        clear: nothing is nearer than this. Equal to ``distance`` unless the limit was met.
    """

    leaves: Ints | None
    distance: float
    clear: float


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The leaves of a forest as one point sees them.

    Attributes:
        regions: the forest's.
        point: ``[features]``.
        step: the lattice's, of whose multiples inputs differ from the point, or ``None``.
        origin: ``[used]``: the point; 0 with a ``step``.
        lower, upper: ``[leaves, used]``: the leaves' boxes met with the inputs' own; with a ``step``, the multiples.
        reach: ``[leaves]``: how far each is from the origin; ``inf`` where no input reaches it.
    """

    regions: Regions
    point: Floats
    step: float | None
    origin: Floats
    lower: Floats
    upper: Floats
    reach: Floats

    @classmethod
    def of(cls, regions: Regions, x: Floats, box: tuple[float, float], step: float | None = None) -> Surroundings:
        """Around ``x [features]``."""
        origin = x[regions.features]
        lower, upper = np.maximum(regions.lower, box[0]), np.minimum(regions.upper, box[1])
        if step is not None:
            lower, upper = np.ceil((lower - origin) / step), np.floor((upper - origin) / step)
            origin = np.zeros_like(origin)
        reach = np.maximum(np.maximum(lower - origin, origin - upper), 0).max(1, initial=0)
        return cls(regions, x, step, origin, lower, upper, np.where((lower <= upper).all(1), reach, np.inf))

    @cached_property
    def levels(self) -> Floats:
        """All distances at which the answer can turn, ascending from 0."""
        near = np.isfinite(self.reach)
        ends = np.maximum(np.maximum(self.lower[near] - self.origin, self.origin - self.upper[near]), 0)
        return np.unique(np.append(ends, 0.0))

    def _place(self, leaves: Ints) -> Floats:
        """The place nearest to the origin that all these leaves share, ``[used]``."""
        rows = np.flatnonzero(np.isin(self.regions.leaf, leaves))
        place: Floats = np.clip(self.origin, self.lower[rows].max(0), self.upper[rows].min(0))
        return place

    def nearest(self, leaves: Ints) -> Floats:
        """The input nearest to the point that reaches all these leaves, ``[features]``."""
        z, used, place = self.point.copy(), self.regions.features, self._place(leaves)
        z[used] = place if self.step is None else z[used] + self.step * place
        return z

    def first(self, question: Question) -> int:
        """The first of ``levels`` at which the best leaf of every tree, each for itself, would do."""
        low, high = 0, len(self.levels)
        while low < high:
            middle = (low + high) // 2
            near = np.flatnonzero(self.reach <= self.levels[middle])
            if self._bound(question, near) >= question.least:
                high = middle
            else:
                low = middle + 1
        return low

    def _bound(self, question: Question, near: Ints) -> float:
        tree, ahead = self.regions.tree[near], question.ahead[:, self.regions.leaf[near]]
        starts = np.flatnonzero(np.diff(tree, prepend=-1))
        return float((np.maximum.reduceat(ahead, starts, axis=1).sum(1) + question.base).min())

    def within(self, question: Question, distance: float, nodes: int) -> tuple[Ints | None, bool]:
        """A clique of leaves no farther than this, depth first from the best one.

        Returns:
            The leaves, nodes ``[trees]``, or ``None``; and whether the search came to its end before ``nodes`` sets
            of leaves had been looked at.
        """
        near = np.flatnonzero(self.reach <= distance)
        if self._bound(question, near) < question.least:
            return None, True
        leaf, tree = self.regions.leaf[near], self.regions.tree[near]
        starts = np.flatnonzero(np.diff(tree, prepend=-1))
        ahead, overlap = question.ahead[:, leaf], self._overlap(near)
        stack = [np.ones(len(near), dtype=bool)]
        for _ in range(nodes):
            if not stack:
                return None, True
            alive = stack.pop()
            branch = _widest(ahead, alive, starts)
            if branch is None:
                if question.hit(leaf[alive]):
                    return leaf[alive], True
                continue
            children = np.flatnonzero(alive & (tree == branch))
            kept = alive & overlap[children]
            leads = np.where(kept[:, None], ahead, -np.inf)
            bound = (np.maximum.reduceat(leads, starts, axis=2).sum(2) + question.base).min(1)
            order = np.argsort(bound, kind="stable")
            stack.extend(kept[child] for child in order if bound[child] >= question.least)
        return None, not stack

    def _overlap(self, near: Ints) -> Bools:
        """Which of these leaves have a common point, ``[near, near]``."""
        tree = self.regions.tree[near]
        together: Bools = (tree[:, None] != tree) | np.eye(len(near), dtype=bool)
        for lower, upper in zip(self.lower[near].T, self.upper[near].T):
            together &= (lower[:, None] <= upper) & (lower <= upper[:, None])
        return together

    def search(self, question: Question, below: float, nodes: int) -> Answer:
        """The nearest clique that is nearer than ``below``.

        From the first distance that bounds cannot exclude, in steps that double, to one that has a clique, and back
        by halving.
        """
        levels = self.levels
        low, high = self.first(question), int(np.searchsorted(levels, below))
        best, clear, sure = None, low, True  # `clear`: below this level nothing is left open
        stride = 1
        while low < high:
            at = min(low + stride - 1, high - 1) if best is None else (low + high - 1) // 2
            leaves, ended = self.within(question, float(levels[at]), nodes)
            if leaves is not None:
                best = leaves
                high = int(np.searchsorted(levels, np.abs(self._place(leaves) - self.origin).max(initial=0)))
                continue
            low, stride = at + 1, 2 * stride
            sure = sure and ended
            clear = low if sure else clear
        found = float(levels[high]) if best is not None else np.inf
        if clear >= int(np.searchsorted(levels, below)):
            return Answer(best, found, below)
        return Answer(best, found, float(levels[clear]))


def _widest(ahead: Floats, alive: Bools, starts: Ints) -> int | None:
    """The tree whose leaves that are left differ most in what they add; ``None`` when every tree has one leaf."""
    count = np.add.reduceat(alive, starts, dtype=np.int64)
    if (count == 1).all():
        return None
    most = np.maximum.reduceat(np.where(alive, ahead, -np.inf), starts, axis=1)
    least = np.minimum.reduceat(np.where(alive, ahead, np.inf), starts, axis=1)
    spread = np.where(count > 1, (most - least).max(0), -1.0)
    return int(spread.argmax())
