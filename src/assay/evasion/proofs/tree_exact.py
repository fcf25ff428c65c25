"""The exact radius of an ensemble of trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from assay.evasion.threat import TARGETED, Ball
from assay.evasion.tree_search import Surroundings, forest_of, questions
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class TreeRadius:
    """Proves, for each point, how far it is to the nearest input at which an ensemble of trees decides otherwise.

    The other side of :class:`~assay.evasion.attacks.tree_exact.TreeExact`: the same search, which excludes every input
    nearer than the one it finds. Together they leave nothing open.

    *Paper*: Kantchelian, Tygar & Joseph, ICML 2016; Chen et al., NeurIPS 2019.
    *Needs*: the weights.
    *Cost*: no query. Where a question meets ``nodes``, the radius is that of the last one that was answered.
    *Assumes*: the target computes what its structure says, up to rounding: inputs whose scores tie within that count
    as decided otherwise. The radius gives up what the referee grants a perturbation for rounding (1e-5 of it).
    *Held to*: brute force over every cell of 120 small ensembles, 240 points.
    *Measured*: equal to 1e-5 of the radius (`tests/evasion/attacks/test_tree_exact.py`).

    Example:
        >>> import numpy as np
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from assay import evasion, targets
        >>> x = np.array([[0.1], [0.3], [0.7], [0.9]])
        >>> tree = DecisionTreeClassifier().fit(x, [0, 0, 1, 1])  # splits at 0.5
        >>> game = evasion.EvasionGame(x, np.array([0, 0, 1, 1]), threat=evasion.Linf(0.3).threat(access="weights"))
        >>> print(game.prove(evasion.TreeRadius(), targets.sklearn(tree), seed=0)["robust accuracy"].estimate)
        0.5

    Attributes:
        nodes: how many sets of leaves one question ("is there an input within this distance?") may look at.
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})
    once: ClassVar[Literal[True]] = True
    plays: ClassVar[Literal["trees"]] = "trees"

    nodes: int = 10_000

    @property
    def failure(self) -> float:
        """A deterministic search: it does not fail by chance."""
        return 0.0

    def certify(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Certifier`. Raises ATK150 on a target that is no ensemble of trees."""
        forest, targeted = forest_of(view), view.threat.goal == TARGETED
        regions = forest.regions(np.float32 if x.dtype == torch.float32 else np.float64)
        radii = []
        for point, label in zip(x.flatten(1).double().cpu().numpy(), y.tolist()):
            around, clear = Surroundings.of(regions, point, view.bounds), np.inf
            asked = questions(forest, label, "possible", targeted=targeted)
            for question in sorted(asked, key=around.first):
                clear = min(clear, around.search(question, clear, self.nodes).clear)
            radii.append(_radius(clear, view.bounds, torch.finfo(x.dtype).eps))
        return torch.tensor(radii, dtype=torch.float64, device=x.device)


def _radius(clear: float, bounds: Bounds, unit: float) -> float:
    """The largest radius that the referee reads as nearer than ``clear``; see ``contains`` of the budgets."""
    slack = 4 * unit * max(abs(bounds.lower), abs(bounds.upper))
    radius = min((clear - slack) / (1 + 1e-5) * (1 - 1e-12), bounds.width)
    return radius if radius >= 0 else -np.inf
