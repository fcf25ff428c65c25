"""What an adversary climbs: per-row losses, never reduced over the batch, larger is closer to success.

Each is ``(scores [rows, classes], labels [rows], …) -> [rows]``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """−log softmax of the label: away from ``y``."""
    return F.cross_entropy(scores, y, reduction="none")


def toward_cross_entropy(scores: Tensor, t: Tensor) -> Tensor:
    """log softmax of the label: toward ``t``."""
    return -F.cross_entropy(scores, t, reduction="none")


def margin(scores: Tensor, y: Tensor) -> Tensor:
    """``max_{j≠y} z_j − z_y``: positive exactly where ``y`` is lost."""
    own = scores.gather(1, y[:, None])
    others = scores.scatter(1, y[:, None], -torch.inf)
    return others.max(1).values - own[:, 0]


def toward_margin(scores: Tensor, t: Tensor) -> Tensor:
    """``z_t − max_{j≠t} z_j``: positive exactly where ``t`` is reached."""
    return -margin(scores, t)


def pair_margin(scores: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """``z_t − z_y``: positive where ``t`` has overtaken ``y``."""
    return (scores.gather(1, t[:, None]) - scores.gather(1, y[:, None]))[:, 0]


def dlr(scores: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over ``z_π1 − z_π3`` (Croce & Hein, ICML 2020, Eq. 6).

    With two classes there is no third score and the ratio would be constant: the plain margin then.
    """
    if scores.shape[1] < 3:
        return margin(scores, y)
    top = scores.topk(3, dim=1).values
    return margin(scores, y) / (top[:, 0] - top[:, 2] + 1e-12)


def toward_dlr(scores: Tensor, t: Tensor) -> Tensor:
    """The targeted margin over ``z_π1 − z_π3``: for threats whose goal is a given label."""
    if scores.shape[1] < 3:
        return toward_margin(scores, t)
    top = scores.topk(3, dim=1).values
    return toward_margin(scores, t) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(scores: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """``z_t − z_y`` over ``z_π1 − (z_π3 + z_π4)/2`` (Croce & Hein, ICML 2020, Eq. 7).

    With three classes the denominator is ``z_π1 − (z_π2 + z_π3)/2``, which keeps the ratio from being constant when
    ``y`` is first and ``t`` last; with two, there is none.
    """
    classes = scores.shape[1]
    if classes < 3:
        return pair_margin(scores, y, t)
    top = scores.topk(min(classes, 4), dim=1).values
    return pair_margin(scores, y, t) / (top[:, 0] - (top[:, -1] + top[:, -2]) / 2 + 1e-12)


AWAY: dict[str, Callable[..., Tensor]] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}
"""Untargeted objectives by name: leave the label."""

TOWARD: dict[str, Callable[..., Tensor]] = {"ce": toward_cross_entropy, "dlr": toward_dlr, "margin": toward_margin}
"""Targeted objectives by name: reach the label."""
