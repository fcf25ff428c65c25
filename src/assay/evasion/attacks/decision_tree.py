"""The path attack on a single decision tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.threat import TARGETED, Ball
from assay.evasion.tree_search import forest_of
from assay.numerics.balls import distance
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.trees import LEAF, Forest, Ints, Regions
from assay.threats import View

_NUMBERS = 2**23
"""How many numbers a group of points may take."""


@dataclass(frozen=True, kw_only=True)
class DecisionTreeAttack:
    """Climbs from a point's leaf to the first ancestor below which another class is, and goes down to it.

    Each feature asked about on the way down moves just past its threshold, and no farther. Of the leaves below the
    same ancestor the nearest is taken, and leaves out of the budget are passed over, so that under a finite radius no
    point is left that any leaf could break. Under an infinite one the nearest leaf of all is taken.

    *Paper*: Papernot, McDaniel & Goodfellow, 2016 ("Transferability in machine learning", §5, Algorithm 2), where the
    first leaf met is taken and changes are not bounded.
    *Needs*: the weights of a single tree.
    *Cost*: 1 query, to make sure of what was found.
    *Blind spots*: none for a single tree; ensembles, which are :class:`~assay.evasion.attacks.tree_exact.TreeExact`'s.
    *Held to*: the exact distance to the nearest leaf of another class, by enumeration, in Linf, L2, L1 and L0.
    *Measured*: equal to it (``tests/evasion/attacks/test_decision_tree.py``).

    Example:
        >>> import numpy as np
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from assay import evasion, targets
        >>> x = np.random.default_rng(0).random((300, 3))
        >>> y = (x[:, 0] + x[:, 1] > 1).astype(int)
        >>> tree = targets.sklearn(DecisionTreeClassifier().fit(x, y))
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L0(1).threat(access="weights"))
        >>> game.play(evasion.DecisionTreeAttack(), tree, seed=0)["robust accuracy"].estimate < 0.1
        True
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 1.0, 0.0})
    minimal: ClassVar[Literal[True]] = True
    plays: ClassVar[Literal["tree"]] = "tree"

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input there is."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input; with a finite radius, the first on the way. Raises ATK150, ATK152."""
        forest, closest = forest_of(view), Closest.over(x)
        if len(forest.root) != 1:
            raise ConfigError("ATK152", f"the target has {len(forest.root)} trees")
        regions = forest.regions(np.float32 if x.dtype == torch.float32 else np.float64)
        for rows in _groups(len(x), regions):
            z, length = _nearest(view, forest, regions, x[rows], y[rows], budget)
            left = view.remaining(rows)
            found = torch.isfinite(length) if left is None else torch.isfinite(length) & (left > 0)
            z, length, rows = z[found], length[found], rows[found]
            if len(rows):
                labels = view.labels(z, rows)
                won = labels == y[rows] if view.threat.goal == TARGETED else labels != y[rows]
                closest.offer(rows[won], z[won], length[won])
        return closest


def _groups(points: int, regions: Regions) -> Iterator[Tensor]:
    """The points, as many at a time as memory has room for."""
    size = max(_NUMBERS // max(regions.lower.size, 1), 1)
    for start in range(0, points, size):
        yield torch.arange(start, min(start + size, points))


def _nearest(
    view: View, forest: Forest, regions: Regions, x: Tensor, y: Tensor, budget: Ball
) -> tuple[Tensor, Tensor]:
    """Of each point the input in the chosen leaf, and how far it is; ``inf`` where there is none in the budget."""
    flat, labels = x.flatten(1).cpu(), y.cpu()
    used = flat[:, regions.features][:, None]  # [rows, 1, used]
    lower = torch.from_numpy(regions.lower).clamp_min(view.bounds.lower).to(flat)
    upper = torch.from_numpy(regions.upper).clamp_max(view.bounds.upper).to(flat)
    inside = (lower <= upper).all(1)
    if budget.lattice is None:
        place = torch.minimum(torch.maximum(used, lower), upper)
    else:
        step = view.bounds.width / budget.lattice
        least, most = ((lower - used) / step).ceil(), ((upper - used) / step).floor()
        inside = inside & (least <= most).all(2)
        place = used + step * torch.minimum(least.clamp_min(0), most)
    length = distance((place - used).flatten(0, 1), budget.norm).reshape(len(x), -1)
    decided = torch.from_numpy(forest.value[regions.leaf].argmax(1))
    wanted = (decided == labels[:, None]) == (view.threat.goal == TARGETED)
    length = torch.where(wanted & inside & (length <= budget.radius), length, torch.inf)
    order = length
    if budget.radius < float("inf"):
        order = torch.where(torch.isfinite(length), _climbed(forest, regions, flat) + length / (1 + length), torch.inf)
    best = order.argmin(1)
    z = flat.clone()
    z[:, regions.features] = place[torch.arange(len(x)), best]
    return z.reshape(x.shape).to(x), length.gather(1, best[:, None])[:, 0].to(x)


def _climbed(forest: Forest, regions: Regions, x: Tensor) -> Tensor:
    """How many steps up it is from each point's leaf to the nearest ancestor of each leaf, ``[rows, leaves]``."""
    above = _ancestors(forest, regions.leaf)
    own = above[np.searchsorted(regions.leaf, forest.leaves(x.double().numpy())[:, 0])]
    return torch.from_numpy(own.sum(1, keepdims=True) - own @ above.T)


def _ancestors(forest: Forest, leaves: Ints) -> npt.NDArray[np.float32]:
    """Which nodes are above each leaf, 0 or 1, ``[leaves, nodes]``."""
    inner = np.flatnonzero(forest.feature != LEAF)
    parent = np.full(len(forest.feature), LEAF)
    parent[forest.left[inner]] = parent[forest.right[inner]] = inner
    above = np.zeros((len(leaves), len(parent)), np.float32)
    node = parent[leaves]
    while (rows := np.flatnonzero(node != LEAF)).size:
        above[rows, node[rows]] = 1
        node[rows] = parent[node[rows]]
    return above
