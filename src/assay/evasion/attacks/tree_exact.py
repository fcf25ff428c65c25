"""The smallest change that flips an ensemble of trees, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from assay.evasion.threat import TARGETED, Ball
from assay.evasion.tree_search import Question, Surroundings, Word, forest_of, questions
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.trees import Forest, Ints
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class TreeExact:
    """Finds, for each point, the nearest input at which an ensemble of trees decides otherwise.

    Branch and bound over sets of leaves, one a tree, that have a common input: exact for single trees, for forests
    that average class shares and for boosted trees that add up margins, of two classes or many, in the floating type
    of the target. It goes point by point: the search of each is a tree of its own.

    *Paper*: Kantchelian, Tygar & Joseph, ICML 2016 (the problem, solved there as a mixed integer program); Chen et al.,
    NeurIPS 2019 (leaves that overlap as cliques, which is what is searched here).
    *Needs*: the weights.
    *Cost*: no query to search, 1 to make sure of what was found (2 where rounding decides). The search is exponential
    in the worst case; ``nodes`` bounds it, and beyond it the nearest input found is returned, which may not be the
    nearest there is.
    *Blind spots*: none within ``nodes``, but for ties: where two scores differ by no more than the library's own
    rounding, its word decides. Other norms.
    *Held to*: enumeration of every cell of small forests: the same distance, to the last bit.
    *Measured*: that, on 120 random models of 5 kinds (``tests/evasion/attacks/test_tree_exact.py``).

    Example:
        >>> import numpy as np
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> from assay import evasion, targets
        >>> x = np.random.default_rng(0).random((300, 4))
        >>> forest = RandomForestClassifier(20, max_depth=4, random_state=0).fit(x, x[:, 0] + x[:, 1] > 1)
        >>> y = (x[:20, 0] + x[:20, 1] > 1).astype(int)
        >>> game = evasion.EvasionGame(x[:20], y, threat=evasion.Linf(0.2).threat(access="weights"))
        >>> attack, proof = game.bracket([evasion.TreeExact()], [evasion.TreeRadius()], targets.sklearn(forest), seed=0)
        >>> attack["robust accuracy"].estimate == proof["robust accuracy"].estimate
        True

    Attributes:
        nodes: how many sets of leaves one question ("is there an input within this distance?") may look at; about 30
            questions lead to a point's smallest distance.
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})
    minimal: ClassVar[Literal[True]] = True
    plays: ClassVar[Literal["trees"]] = "trees"

    nodes: int = 10_000

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input there is."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input of each point; with a finite radius, any within it. Raises ATK150."""
        forest, closest = forest_of(view), Closest.over(x)
        left = torch.arange(len(x), device=x.device)
        words: tuple[Word, Word] = ("own", "sure")
        for word in words:  # where the library rounds otherwise than the structure, a clear lead is sought
            rest = view.remaining(left)
            left = left if rest is None else left[rest > 0]
            if not len(left):
                break
            z, found = self._searched(view, forest, x[left], y[left], budget, word)
            rows, z = left[found], z[found]
            labels = view.labels(z, rows)
            won = labels == y[rows] if view.threat.goal == TARGETED else labels != y[rows]
            closest.offer(rows[won], z[won], budget.distance(z, x[rows])[won])
            left = rows[~won]
        return closest

    def _searched(
        self, view: View, forest: Forest, x: Tensor, y: Tensor, budget: Ball, word: Word
    ) -> tuple[Tensor, Tensor]:
        """Of each point the nearest input by the structure's word, and whether there is one."""
        points, kind = x.flatten(1).cpu().numpy(), np.float32 if x.dtype == torch.float32 else np.float64
        regions, targeted = forest.regions(kind), view.threat.goal == TARGETED
        step = None if budget.lattice is None else view.bounds.width / budget.lattice
        z, found = points.copy(), np.zeros(len(points), dtype=bool)
        for row, (point, label) in enumerate(zip(points.astype(np.float64), y.tolist())):
            around = Surroundings.of(regions, point, view.bounds, step)
            radius = budget.radius if step is None else budget.radius / step * (1 + 1e-6)
            leaves = self._leaves(around, questions(forest, label, word, targeted=targeted), radius)
            if leaves is not None:
                z[row], found[row] = around.nearest(leaves), True
        return torch.from_numpy(z).reshape(x.shape).to(x), torch.from_numpy(found).to(x.device)

    def _leaves(self, around: Surroundings, asked: list[Question], radius: float) -> Ints | None:
        """Those of the nearest hit; with a finite radius, of the first within it."""
        best, distance = None, np.inf
        for question in sorted(asked, key=around.first):
            if radius < np.inf:
                leaves, _ = around.within(question, radius, self.nodes)
                if leaves is not None:
                    return leaves
                continue
            answer = around.search(question, distance, self.nodes)
            if answer.leaves is not None:
                best, distance = answer.leaves, answer.distance
        return best

