"""What gradient attacks share: the objective that fits the goal, the test of success, averaging over randomness."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from assay.evasion.objectives import AWAY, TOWARD
from assay.evasion.threat import TARGETED
from assay.targets.base import Bounds, Graded, Loss
from assay.threats import View

LossName = Literal["ce", "dlr", "margin"]


def objective(view: View, name: LossName) -> Loss:
    """The loss of this name for the view's goal: away from the label, or toward it."""
    return (TOWARD if view.threat.goal == TARGETED else AWAY)[name]


def succeeded(view: View, scores: Tensor, y: Tensor) -> Tensor:
    """Whether each row's prediction is what the adversary wants, bool ``[rows]``."""
    hit = scores.argmax(1) == y
    return hit if view.threat.goal == TARGETED else ~hit


def expected(view: View, x: Tensor, at: Tensor, draws: int, loss: Loss, *labels: Tensor) -> Graded:
    """Scores, loss and gradient averaged over ``draws`` looks at a randomized target, in one batch of rows.

    Source: Athalye et al., ICML 2018 (EOT): the gradient of the expectation is the expectation of gradients.
    """
    if draws == 1:
        return view.gradient(x, at, loss, *labels)
    many = view.gradient(
        x.repeat_interleave(draws, 0),
        at.repeat_interleave(draws),
        loss,
        *(label.repeat_interleave(draws) for label in labels),
    )
    return Graded(*(_mean(part, draws) for part in many))


def expected_scores(view: View, x: Tensor, at: Tensor, draws: int) -> Tensor:
    """Scores averaged over ``draws`` looks."""
    if draws == 1:
        return view.scores(x, at)
    many = view.scores(x.repeat_interleave(draws, 0), at.repeat_interleave(draws))
    return _mean(many, draws)


def _mean(rows: Tensor, draws: int) -> Tensor:
    return rows.reshape(-1, draws, *rows.shape[1:]).mean(1)


def as_rows(values: Tensor, repeats: int) -> Tensor:
    """``[points, …]`` as ``[repeats·points, …]``: restarts and targets are extra rows."""
    return torch.cat([values] * repeats) if repeats > 1 else values


def movable(gradient: Tensor, z: Tensor, bounds: Bounds) -> Tensor:
    """The gradient without the coordinates that it would carry out of the box."""
    stuck = ((z >= bounds.upper) & (gradient > 0)) | ((z <= bounds.lower) & (gradient < 0))
    return gradient.masked_fill(stuck, 0)
