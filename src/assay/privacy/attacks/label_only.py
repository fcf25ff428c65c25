"""Membership from labels alone: how far an example lies from the decision boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from assay.numerics.seeds import Stream
from assay.privacy.methods import Sight
from assay.privacy.signals import Values
from assay.targets.access import Access
from assay.threats import View


class Boundary(Protocol):
    """An attack that finds a misclassified input near each example: any minimum-norm evasion attack by labels."""

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: object, rng: Stream) -> Tensor:
        """The nearest misclassified input found of each example, the example itself where there is none."""


@dataclass(frozen=True, kw_only=True)
class LabelOnly:
    """Members lie farther from the decision boundary: the distance at which an evasion attack breaks each example.

    *Paper*: Choquette-Choo, Tramèr, Carlini & Papernot, "Label-Only Membership Inference Attacks", ICML 2021, §4.2.

    *Needs*: labels.

    *Cost*: the evasion attack's queries, hundreds to thousands an example, and one more; no shadow models.

    *Blind spots*: a global threshold on the distance, so it shares those of the loss threshold; an attack that stops
    early measures itself rather than the model.

    *Held to*: on a linear model, whose distances are known, the order of the examples by distance: rank correlation
    above 0.95; never below the gap attack's balanced accuracy, of which it is a refinement.

    *Measured*: in `tests/privacy/test_membership_game.py`.

    Example:
        >>> from assay import evasion, privacy
        >>> attack = privacy.LabelOnly(boundary=evasion.HopSkipJump(queries=300), budget=evasion.L2(float("inf")))
        >>> attack.needs.name
        'LABELS'

    Attributes:
        boundary: the evasion attack, which must work with labels: ``evasion.HopSkipJump()``.
        budget: the ball that it searches, with an infinite radius: ``evasion.L2(inf)``.
    """

    needs: ClassVar[Access] = Access.LABELS

    boundary: Boundary
    budget: object

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """Distances to the boundary, 0 for those already wrong: float64 ``[targets, examples]``."""
        x, y = torch.as_tensor(sight.x), torch.as_tensor(sight.y)
        seed = int(rng.integers(2**31))
        return np.stack([self._distances(view, x, y, seed) for view in sight.views])

    def _distances(self, view: View, x: Tensor, y: Tensor, seed: int) -> Values:
        right = view.labels(x, torch.arange(len(x))) == y
        z = x.clone()
        if right.any():
            points = right.nonzero()[:, 0]
            z[points] = self.boundary.perturb(view.select(points), x[points], y[points], self.budget,
                                              Stream.seeded(seed, points))
        moved = (z - x).flatten(1).double().norm(dim=1)
        beyond = moved.max() + 1 if len(moved) else moved.sum()
        return np.asarray(torch.where(right & (moved == 0), beyond, moved).numpy(), dtype=np.float64)
