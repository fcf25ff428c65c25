"""A network whose ReLUs do something else, and how an attack that knows it gets gradients through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from assay.errors import TargetError
from assay.targets.access import Access
from assay.targets.around import Around, Declared
from assay.targets.base import Graded, Loss, Target, WhiteBox
from assay.targets.pytorch import TorchTarget, torch_target

_RELUS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_IN_PLACE = frozenset({F.relu_, torch.relu_, Tensor.relu_})


class Rewiring(Declared, Protocol):
    """What happens in place of every ReLU; a frozen dataclass whose ``parts`` are declared as a class variable."""

    def fire(self, x: Tensor) -> Tensor:
        """The activations for what a ReLU would take, ``[rows, …]``; draws are torch's global random numbers."""


@dataclass(frozen=True, eq=False)
class RewiredTarget(Around):
    """A target with other activations; build it with the defense's ``protect``.

    The weights are those of the target below, shared, and its module is left as it is. Of an ONNX file the imported
    graph answers: onnxruntime cannot be rewired.
    """

    defense: Rewiring

    @classmethod
    def of(cls, target: Target, defense: Rewiring) -> RewiredTarget:
        """The target rewired. Raises ``TargetError`` (PRF133) where there is no network to rewire."""
        if target.offers < Access.WEIGHTS:
            said = f"{defense!r} changes a network from inside; {target.name} offers only {target.offers}"
            raise TargetError("PRF133", said)
        return cls(target, defense)

    @cached_property
    def inner(self) -> TorchTarget:
        """The rewired network as a target of its own."""
        module = Rewired(cast(WhiteBox, self.base).module(), self.defense, self.knows)
        return torch_target(module, bounds=self.bounds, name=self.name, batch=getattr(self.base, "batch", 512))

    def labels(self, x: Tensor) -> Tensor:
        """Classes as the rewired network predicts them, int64 ``[rows]``."""
        return self.inner.labels(x)

    def scores(self, x: Tensor) -> Tensor:
        """The rewired network's logits, ``[rows, classes]``."""
        return self.inner.scores(x)

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """One forward and backward of the rewired network: naively as autograd has it, knowingly through ReLUs."""
        return self.inner.graded(x, loss, *labels)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and class gradients of the rewired network."""
        return self.inner.jacobian(x, classes)

    def check(self, x: Tensor) -> None:
        """What the target below checks, and the rewired network. Raises ``TargetError`` (PRF134) without a ReLU."""
        self.base.check(x)
        self.inner.check(x)

    def naive(self) -> WhiteBox:
        """Gradients by autograd through what the activations really are."""
        return self._knowing(False)

    def adapted(self) -> WhiteBox:
        """The true scores, and gradients as if the activations were ReLUs."""
        return self._knowing(True)


class Rewired(nn.Module):
    """A network that runs with something else in place of every ReLU it calls; the network itself is shared.

    Attributes:
        straight: whether gradients go through ReLUs all the same.
    """

    def __init__(self, network: nn.Module, rewiring: Rewiring, straight: bool) -> None:
        super().__init__()
        self.network, self.rewiring, self.straight = network, rewiring, straight
        self.training = network.training  # the attribute alone: train() would descend into the user's module

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, …]`` to ``[rows, classes]``."""
        with _InPlaceOfReLUs(self._fire) as mode:
            out: Tensor = self.network(x)
        if not mode.calls:
            raise TargetError("PRF134", f"{self.rewiring!r} found no ReLU in {type(self.network).__name__}")
        return out

    def _fire(self, x: Tensor) -> Tensor:
        if not self.straight:
            return self.rewiring.fire(x)
        smooth = F.relu(x)
        return smooth + (self.rewiring.fire(x.detach()) - smooth).detach()


class _InPlaceOfReLUs(TorchFunctionMode):
    """Inside, whoever calls a ReLU gets something else: modules, functions, methods and traced graphs alike.

    Attributes:
        calls: how many did.
    """

    def __init__(self, fire: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fire, self.calls = fire, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _RELUS:
            return func(*args, **kwargs)
        self.calls += 1
        x = args[0] if args else kwargs["input"]
        in_place = func in _IN_PLACE or kwargs.get("inplace", len(args) > 1 and args[1])
        # Whoever asks for it in place may read it there.
        return x.copy_(self.fire(x.clone())) if in_place else self.fire(x)
