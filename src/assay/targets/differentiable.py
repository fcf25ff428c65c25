"""Any white-box target as a function through which autograd can go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from assay.targets.access import Access
from assay.targets.base import Target, WhiteBox
from assay.targets.defended import Defended
from assay.targets.features import Activations, read


@dataclass(frozen=True, eq=False)
class Network:
    """A target as a function through which autograd can go; its weights get no gradients.

    Of a model whose weights are at hand the module is differentiated. Anything else is asked for its scores on the
    way forward, and for the gradient of their inner product with what comes back on the way back.
    """

    target: Target

    @property
    def direct(self) -> bool:
        """Whether the module itself is differentiated."""
        return self.target.offers >= Access.WEIGHTS and not isinstance(self.target, Defended)

    def __call__(self, x: Tensor) -> Tensor:
        """Scores ``[rows, classes]``."""
        if not torch.is_grad_enabled():
            return self.target.scores(x).clone()  # a tensor of inference mode could not take part in anything else
        if self.direct:
            return self.read(x, ()).scores
        scores: Tensor = _Bridge.apply(x, self.target)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return scores

    def read(self, x: Tensor, names: tuple[str, ...]) -> Activations:
        """Scores and the activations of these layers, from one forward of the module."""
        return read(cast(WhiteBox, self.target).module(), names, x)

    def passes(self, looks: int, gradients: int) -> tuple[int, int]:
        """Forwards and backwards of the model for so many looks."""
        if self.direct:
            return looks, looks * gradients
        forwards, backwards = cast(WhiteBox, self.target).passes(1)
        return looks * (self.target.forwards_per_query + gradients * forwards), looks * gradients * backwards


class _Bridge(torch.autograd.Function):
    """Scores of a target that gives gradients but no module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: WhiteBox) -> Tensor:
        ctx.save_for_backward(x)
        ctx.target = target
        return target.scores(x).clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.target.graded(x, _weighted, cotangents[0]).gradient, None


def _weighted(scores: Tensor, weights: Tensor) -> Tensor:
    return (scores * weights).sum(1)
