"""Ensembles of decision trees as plain arrays: what a white-box adversary or a prover reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAF = -1
"""The feature of a node that asks nothing."""


@dataclass(frozen=True, eq=False)
class Regions:
    """The leaves of a forest and where they live: a box each, both ends inside it.

    Attributes:
        leaf: int ``[leaves]``, the node; leaves of one tree follow each other.
        tree: int ``[leaves]``, ascending.
        features: int ``[used]``: the features that some node asks about; all others do not matter.
        lower, upper: ``[leaves, used]``, numbers of the inputs' own precision; ``-inf`` and ``inf`` where nothing is
            asked.
    """

    leaf: Ints
    tree: Ints
    features: Ints
    lower: Floats
    upper: Floats


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees whose leaf values add up to scores; nodes of all trees lie in one list.

    Libraries compare in their own ways (``<=`` or ``<``, after rounding the input to float32 or not). Here every node
    asks ``x <= threshold`` of the unrounded float64 input, with the threshold at which the library's answer turns.

    Attributes:
        root: int ``[trees]``.
        feature: int ``[nodes]``, ``LEAF`` at leaves.
        threshold: ``[nodes]``.
        left, right: int ``[nodes]``: where to go if ``x[feature] <= threshold``, and if not.
        value: ``[nodes, classes]``: what a leaf adds to the scores.
        base: ``[classes]``: what is added for every input.
        divisor: what the sum is divided by.
        single: whether the library adds up in float32.
    """

    root: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    base: Floats
    divisor: float = 1.0
    single: bool = False

    @property
    def classes(self) -> int:
        """How many scores there are."""
        return int(self.value.shape[1])

    @cached_property
    def rounding(self) -> float:
        """How far a library's difference of two scores may be from the true one, before the division.

        Each addition rounds by half a unit in the last place of a sum no larger than all largest values together.
        """
        largest = np.maximum.reduceat(np.abs(self.value), self.root, axis=0)
        steps = 2 + (largest > 0).sum(0)
        unit = np.finfo(np.float32 if self.single else np.float64).eps
        return float((steps * (np.abs(self.base) + largest.sum(0))).max() * unit)

    def leaves(self, x: Floats) -> Ints:
        """The leaf that each row of ``x [rows, features]`` reaches in each tree, ``[rows, trees]``."""
        node = np.broadcast_to(self.root, (len(x), len(self.root))).copy()
        rows = np.arange(len(x))[:, None]
        while (inner := self.feature[node] != LEAF).any():
            below = x[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(inner, np.where(below, self.left[node], self.right[node]), node)
        return node

    def added(self, leaves: Ints) -> Floats:
        """The scores of one leaf a tree, ``[rows, trees]`` to ``[rows, classes]``, added in the library's order."""
        kind = np.float32 if self.single else np.float64
        total: npt.NDArray[Any] = np.broadcast_to(self.base, (len(leaves), self.classes)).astype(kind)
        for column in leaves.T:
            total = total + self.value[column].astype(kind)
        return total.astype(np.float64) / self.divisor

    def scores(self, x: Floats) -> Floats:
        """What the ensemble says of the rows ``x [rows, features]``, ``[rows, classes]``."""
        return self.added(self.leaves(x))

    def regions(self, kind: npt.DTypeLike = np.float64) -> Regions:
        """The boxes of all leaves, for inputs of this floating type."""
        features = np.unique(self.feature[self.feature != LEAF])
        column = np.searchsorted(features, self.feature)
        lower = np.full((len(self.feature), len(features)), -np.inf)
        upper = np.full_like(lower, np.inf)
        least, most = _next_above(self.threshold, kind), _last_below(self.threshold, kind)
        tree = np.repeat(np.arange(len(self.root)), np.diff([*self.root, len(self.feature)]))
        level = self.root
        while len(level := level[self.feature[level] != LEAF]):
            left, right, asked = self.left[level], self.right[level], column[level]
            lower[left] = lower[right] = lower[level]
            upper[left] = upper[right] = upper[level]
            upper[left, asked] = np.minimum(upper[left, asked], most[level])
            lower[right, asked] = np.maximum(lower[right, asked], least[level])
            level = np.concatenate([left, right])
        leaf = np.flatnonzero((self.feature == LEAF) & (lower <= upper).all(1))  # a split may leave nothing to one side
        return Regions(leaf, tree[leaf], features, lower[leaf], upper[leaf])


def _last_below(threshold: Floats, kind: npt.DTypeLike) -> Floats:
    """The largest number of this type that is at most the threshold."""
    rounded = threshold.astype(kind)
    last: Floats = np.where(rounded > threshold, np.nextafter(rounded, np.array(-np.inf, kind)), rounded).astype(float)
    return last


def _next_above(threshold: Floats, kind: npt.DTypeLike) -> Floats:
    """The smallest number of this type that is above the threshold."""
    above: Floats = np.nextafter(_last_below(threshold, kind).astype(kind), np.array(np.inf, kind)).astype(np.float64)
    return above


def single_threshold(threshold: Floats, *, strict: bool) -> Floats:
    """The largest float64 that, rounded to float32, is at most ``threshold`` (``strict``: below it).

    Rounding goes to the nearest float32 and, half way, to the even one: the answer is the middle between the last
    float32 that passes and the next one, or the float64 before it.
    """
    last = _last_below(threshold, np.float32).astype(np.float32)
    if strict:
        last = np.where(last == threshold, np.nextafter(last, np.float32(-np.inf)), last)
    middle = (last.astype(np.float64) + np.nextafter(last, np.float32(np.inf))) / 2
    with np.errstate(over="ignore"):
        passes = middle.astype(np.float32) <= last
    turn: Floats = np.where(passes, middle, np.nextafter(middle, -np.inf))
    return turn


def joined(trees: list[dict[str, Any]], base: Floats, *, divisor: float = 1.0, single: bool = False) -> Forest:
    """One forest from trees with nodes numbered from 0, each a table of the node-wise fields of :class:`Forest`."""
    sizes = [len(tree["feature"]) for tree in trees]
    root = np.cumsum([0, *sizes[:-1]])

    def column(name: str, kind: npt.DTypeLike, moved: bool = False) -> npt.NDArray[Any]:
        parts = [np.asarray(tree[name], kind) + (start if moved else 0) for tree, start in zip(trees, root)]
        return np.concatenate(parts)

    feature = column("feature", np.int64)
    return Forest(
        root=root, feature=np.where(feature < 0, LEAF, feature), threshold=column("threshold", np.float64),
        left=column("left", np.int64, moved=True), right=column("right", np.int64, moved=True),
        value=column("value", np.float64), base=np.asarray(base, np.float64), divisor=divisor, single=single,
    )
