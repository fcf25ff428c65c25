"""What a model says of an example, on the scale on which members and others are normally distributed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError


def logit_scale(logits: Tensor, y: Tensor) -> Tensor:
    """``φ = z_y − log Σ_{y'≠y} exp z_{y'}``: float64, the leading shape of ``logits``.

    Args:
        logits: ``[..., classes]``, before any softmax.
        y: int64, broadcastable to the leading shape.

    Source: Carlini, Chien, Nasr, Song, Terzis, Tramèr (S&P 2022), §IV-C: computed from the logits, since
    ``log p − log(1 − p)`` of a rounded probability is infinite exactly where members are.
    """
    z = logits.to(torch.float64)
    y = y.expand(z.shape[:-1])[..., None]
    right = z.gather(-1, y)[..., 0]
    others = z.scatter(-1, y, -torch.inf).logsumexp(-1)
    return right - others


def logit_of_probability(probabilities: Tensor, y: Tensor) -> Tensor:
    """The same from the probabilities that an API returns, as far as their rounding leaves it: float64.

    The wrong classes' probabilities are summed rather than ``1 − p`` taken; both sides are floored at 1e-45, so the
    result is finite.
    """
    p = probabilities.to(torch.float64)
    y = y.expand(p.shape[:-1])[..., None]
    right = p.gather(-1, y)[..., 0].clamp_min(1e-45)
    others = p.scatter(-1, y, 0.0).sum(-1).clamp_min(1e-45)
    return right.log() - others.log()


Values = NDArray[np.float64]
"""Numbers about examples, computed in double precision."""


@dataclass(frozen=True, eq=False)
class Signals:
    """The interchange: what every model says of every example under every augmentation.

    Attributes:
        values: float32 or float64 ``[models, examples, augmentations]``; usually :func:`logit_scale`.
        keep: bool ``[models, examples]``: whether the model was trained on the example.

    Raises:
        DataError: PRV110 where the shapes do not fit, PRV102 where a signal is not finite.
    """

    values: NDArray[np.floating]
    keep: NDArray[np.bool_]

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        values = values[..., None] if values.ndim == 2 else values
        keep = np.asarray(self.keep, dtype=bool)
        if values.ndim != 3 or keep.shape != values.shape[:2]:
            raise DataError("PRV110", f"signals of shape {values.shape} and memberships of shape {keep.shape}")
        if not np.isfinite(values).all():
            raise DataError("PRV102", f"{int((~np.isfinite(values)).sum())} of {values.size} signals are not finite")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "keep", keep)

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.values)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return int(self.values.shape[1])

    def models(self, index: slice | NDArray[np.int64] | list[int]) -> Signals:
        """The signals of these models alone."""
        return Signals(self.values[index], self.keep[index])

    def select(self, examples: NDArray[np.generic] | slice) -> Signals:
        """The signals about these examples alone: an index or a mask."""
        return Signals(self.values[:, examples], self.keep[:, examples])


def balanced_keep(n: int, examples: int, seed: int) -> NDArray[np.bool_]:
    """Which of ``n`` models is trained on which example: bool ``[n, examples]``, each example in exactly half of them.

    Models come in pairs that share no example and leave none out, so any even number of first models is balanced
    too; a last model without a partner is trained on an independent half. The models of a pair are dependent: where
    one of them is to be judged by the other, it matters; shadow models that are only compared with a target may be.
    """
    halves = np.random.default_rng(seed).random((-(-n // 2), examples)) < 0.5
    return np.stack([halves, ~halves], axis=1).reshape(-1, examples)[:n]
