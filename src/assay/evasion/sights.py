"""How an attack sees a target: the same decisions, with gradients that are of more use than the plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Loss, Target, WhiteBox, refuses
from assay.targets.pytorch import TorchTarget


@dataclass(frozen=True)
class Sight:
    """A target as an attack sees it.

    Attributes:
        name: the composition in the field's words.
        target: what answers the attack; the referee looks at the real one.
        handicap: by how much a score has to do better than win (see ``ThreatModel.grant``).
    """

    name: str
    target: Target
    handicap: float = 0.0


@dataclass(frozen=True, eq=False)
class _Facade:
    """What a sight has in common with the target behind it."""

    inner: WhiteBox

    @property
    def name(self) -> str:
        """The target's."""
        return self.inner.name

    @property
    def offers(self) -> Access:
        """The target's."""
        return self.inner.offers

    @property
    def bounds(self) -> Bounds:
        """The target's."""
        return self.inner.bounds

    @property
    def dtype(self) -> torch.dtype:
        """The target's."""
        return self.inner.dtype

    @property
    def device(self) -> torch.device:
        """The target's."""
        return self.inner.device

    @property
    def randomized(self) -> bool:
        """The target's."""
        return self.inner.randomized

    @property
    def refuses(self) -> bool:
        """The target's."""
        return refuses(self.inner)

    @property
    def classes(self) -> int:
        """The target's, where it refuses inputs."""
        return int(cast(Any, self.inner).classes)

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``."""
        return cast(Tensor, cast(Any, self).scores(x).argmax(1))

    def module(self) -> nn.Module:
        """The target's."""
        return self.inner.module()

    def check(self, x: Tensor) -> None:
        """The target's own check."""
        self.inner.check(x)

    def fingerprint(self) -> dict[str, str]:
        """The target's."""
        return self.inner.fingerprint()


@dataclass(frozen=True, eq=False)
class Averaged(_Facade):
    """A randomized target through ``draws`` looks at once: shares of votes, and the mean of the gradients (EOT).

    Source: Athalye et al., ICML 2018: the gradient of the expectation is the expectation of gradients.
    """

    draws: int

    @property
    def forwards_per_query(self) -> int:
        """So many looks."""
        return self.draws * self.inner.forwards_per_query

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """So many looks of forwards and backwards each."""
        forwards, backwards = self.inner.passes(gradients)
        return self.draws * forwards, self.draws * backwards

    def scores(self, x: Tensor) -> Tensor:
        """Log of the shares of votes, ``[rows, classes]``, a further vote being split by the mean softmax."""
        return self._shares(self.inner.scores(x.repeat_interleave(self.draws, 0)))

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Shares of votes; the means of loss and gradient over the looks."""
        many = self.inner.graded(x.repeat_interleave(self.draws, 0), loss,
                                 *(label.repeat_interleave(self.draws, 0) for label in labels))
        return Graded(self._shares(many.scores), *(_mean(part, self.draws) for part in many[1:]))

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of votes, and the means of the scores' gradients."""
        scores, rows = self.inner.jacobian(x.repeat_interleave(self.draws, 0),
                                           classes.repeat_interleave(self.draws, 0))
        return self._shares(scores), _mean(rows, self.draws)

    def _shares(self, scores: Tensor) -> Tensor:
        scores = scores.reshape(-1, self.draws, scores.shape[1])
        votes = nn.functional.one_hot(scores.argmax(2), scores.shape[2]).sum(1)
        return ((votes + scores.softmax(2).mean(1)) / (self.draws + 1)).clamp_min(1e-30).log()


@dataclass(frozen=True, eq=False)
class Borrowed(_Facade):
    """The defended target's decisions with the bare model's gradients: a surrogate that is always at hand."""

    bare: WhiteBox

    @property
    def forwards_per_query(self) -> int:
        """The defended target's."""
        return self.inner.forwards_per_query

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """A look at the defended target, and the bare model's passes."""
        forwards, backwards = self.bare.passes(gradients)
        return self.inner.forwards_per_query + forwards, backwards

    def scores(self, x: Tensor) -> Tensor:
        """The defended target's."""
        return self.inner.scores(x)

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """The defended target's scores; the bare model's loss and gradient."""
        return self.bare.graded(x, loss, *labels)._replace(scores=self.inner.scores(x))

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The defended target's scores, and the gradients of the bare model's."""
        return self.inner.scores(x), self.bare.jacobian(x, classes)[1]


@dataclass(frozen=True, eq=False)
class Softened(_Facade):
    """Gradients averaged over Gaussian noise around the input, where the loss is rugged (Athalye et al., 2018, §4).

    Attributes:
        width: the noise's standard deviation.
        draws: noisy copies a gradient.
    """

    width: float
    draws: int

    @property
    def forwards_per_query(self) -> int:
        """The target's."""
        return self.inner.forwards_per_query

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """A look, and so many noisy copies' forwards and backwards."""
        forwards, backwards = self.inner.passes(gradients)
        return self.inner.forwards_per_query + self.draws * forwards, self.draws * backwards

    def scores(self, x: Tensor) -> Tensor:
        """The target's."""
        return self.inner.scores(x)

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """The target's scores; loss and gradient as means over the noisy copies."""
        many = self.inner.graded(self._noisy(x), loss, *(label.repeat_interleave(self.draws, 0) for label in labels))
        return Graded(self.inner.scores(x), _mean(many.loss, self.draws), _mean(many.gradient, self.draws))

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The target's scores, and the means of the scores' gradients."""
        rows = self.inner.jacobian(self._noisy(x), classes.repeat_interleave(self.draws, 0))[1]
        return self.inner.scores(x), _mean(rows, self.draws)

    def _noisy(self, x: Tensor) -> Tensor:
        copies = x.repeat_interleave(self.draws, 0)
        return (copies + self.width * torch.randn_like(copies)).clamp(*self.bounds)


def straightened(target: WhiteBox, layers: Sequence[str]) -> WhiteBox:
    """The target with the identity's gradient through the named layers of its module, which have none of their own."""
    torch_target = cast(TorchTarget, target if isinstance(target, TorchTarget) else cast(Any, target).surrogate)
    return replace(torch_target, pipeline=_Straightened(torch_target.pipeline, tuple(layers)))


class _Straightened(nn.Module):
    """A module whose named layers pass gradients on as they are; it shares the module's weights."""

    def __init__(self, body: nn.Module, layers: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.layers = body, layers
        self.training = body.training

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, …]`` to scores."""
        held = [self.body.get_submodule(name).register_forward_hook(_straight) for name in self.layers]
        try:
            return cast(Tensor, self.body(x))
        finally:
            for hook in held:
                hook.remove()


def _straight(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """The output's value with the input's gradient."""
    return inputs[0] + (output - inputs[0]).detach()


def _mean(rows: Tensor, draws: int) -> Tensor:
    return rows.reshape(-1, draws, *rows.shape[1:]).mean(1)

