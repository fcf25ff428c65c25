"""What every target is: a small protocol, and the white-box half that differentiable ones add."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from assay.numerics.seeds import Stream
from assay.targets.access import Access


class Bounds(NamedTuple):
    """The box in which every input lives, in the units of the data."""

    lower: float
    upper: float

    @property
    def width(self) -> float:
        """How far apart the two ends are."""
        return self.upper - self.lower


class Graded(NamedTuple):
    """One forward and one input gradient, read together.

    Attributes:
        scores: ``[rows, classes]``, from the forward that computed the loss.
        loss: ``[rows]``, never reduced.
        gradient: of each row's loss by its own input, the input's shape.
    """

    scores: Tensor
    loss: Tensor
    gradient: Tensor


Loss = Callable[..., Tensor]
"""A per-row objective: ``(scores [rows, classes], *labels [rows]) -> [rows]``."""


@runtime_checkable
class Target(Protocol):
    """What is under test. Inputs are rows in the declared box; preprocessing is the target's own business.

    Attributes:
        name: how evidence calls it.
        offers: the most it can reveal.
        bounds: the box in which inputs live.
        dtype, device: of the tensors it takes.
        randomized: whether two looks at the same input may differ by design.
        forwards_per_query: how often the model runs for one submitted input.
    """

    @property
    def name(self) -> str: ...
    @property
    def offers(self) -> Access: ...
    @property
    def bounds(self) -> Bounds: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def randomized(self) -> bool: ...
    @property
    def forwards_per_query(self) -> int: ...

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``."""

    def scores(self, x: Tensor) -> Tensor:
        """Logits or anything ordered like them, ``[rows, classes]``."""

    def check(self, x: Tensor) -> None:
        """Raises :class:`~assay.errors.TargetError` where the target is not what was declared, tried on ``x``."""

    def fingerprint(self) -> dict[str, str]:
        """What identifies the target in evidence: hashes and versions, never secrets."""


@runtime_checkable
class WhiteBox(Target, Protocol):
    """A target that can be differentiated."""

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """Forwards and backwards of the model that one row costs with this many gradients."""

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """One forward and one backward a row; ``labels`` are row-aligned and handed to ``loss``."""

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the gradients of ``scores[:, classes]``: ``[rows, k, *input]`` for ``classes [rows, k]``.

        One forward and k backwards a row.
        """

    def module(self) -> nn.Module:
        """The network from declared inputs to logits, for those to whom the weights are granted."""


def passed_on(base: Target) -> Access:
    """The most that a target around ``base`` has to offer: its gradients where it has any, else its answers."""
    return min(base.offers, Access.GRADIENTS if isinstance(base, WhiteBox) else Access.SCORES)


@runtime_checkable
class Structured(Target, Protocol):
    """A target that is no network, and can be read all the same: an ensemble of trees, a Gaussian process.

    Attributes:
        structure: what was learned, in the house's own form; ``None`` where this one cannot be read. A target that has
            one offers weights.
    """

    @property
    def structure(self) -> object | None: ...


@runtime_checkable
class Protector(Protocol):
    """A defense that goes around a finished model: a defended target is a target."""

    def protect(self, target: Target) -> Target:
        """The target with the defense in place."""


@runtime_checkable
class Smoothed(Target, Protocol):
    """A target that puts the label of noisy copies of its input to the vote.

    Attributes:
        sigma: the standard deviation of the noise, in the units of the data.
        forwards_per_vote: how often the model runs for one noisy copy.
    """

    @property
    def sigma(self) -> float: ...
    @property
    def forwards_per_vote(self) -> int: ...

    def votes(self, x: Tensor, draws: int, rng: Stream) -> Tensor:
        """How many of ``draws`` noisy copies of each row the model below gives each class: int64 ``[rows, classes]``.

        A row's noise belongs to its stream alone. Where the model gives labels only, there are as many columns as
        the largest label seen asks for.
        """


@runtime_checkable
class Refusing(Target, Protocol):
    """A target that may refuse an input: its scores have one more column, the last, which wins where it does.

    Attributes:
        refuses: always true; its presence is the declaration.
        classes: how many classes there are; this number as a label means refused.
    """

    @property
    def refuses(self) -> bool: ...
    @property
    def classes(self) -> int: ...


def refuses(target: Target) -> TypeGuard[Refusing]:
    """Whether the target may refuse an input."""
    return bool(getattr(target, "refuses", False))
