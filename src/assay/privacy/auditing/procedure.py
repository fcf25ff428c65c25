"""What is under audit: a procedure from data and a seed to a model, run many times, watched where it can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from assay.errors import TargetError

Models = Callable[[Tensor], Tensor]
"""The models of many runs: from inputs ``[n, …]`` to logits ``[runs, n, classes]``."""


class Watch(Protocol):
    """An adversary inside the training, where the promise of differential privacy still holds.

    A procedure that can be watched takes it as ``watch`` and, in every step, asks :meth:`forge` and tells :meth:`see`.
    """

    def forge(self, step: int, parameters: Tensor) -> Tensor | None:
        """The gradient that stands in for that of the last example, before it is clipped; ``None`` leaves its own.

        Args:
            step: from 0.
            parameters: ``[parameters]``, or ``[runs, parameters]``.

        Returns:
            ``[parameters]``.
        """

    def see(self, step: int, parameters: Tensor, released: Tensor, at: slice = slice(None)) -> None:
        """What a step released: the noisy gradient by which the parameters are moved, on any scale.

        Args:
            parameters: before the step, ``[runs, parameters]``, or ``[parameters]`` of a single run.
            released: the same shape.
            at: which runs these are.
        """


@runtime_checkable
class Procedure(Protocol):
    """A procedure that trains many models at once."""

    def runs(
        self, x: Tensor, y: Tensor, keep: Tensor, seeds: Sequence[int], watch: Watch | None = None
    ) -> Models:
        """A model for each row of ``keep``, trained on the examples that the row keeps.

        Args:
            x, y: ``[n, …]`` and int64 ``[n]``.
            keep: bool ``[runs, n]``.
            seeds: one a run, below 2³¹; all that a run draws follows from its own.
            watch: who watches; see :func:`watchable`.
        """

    def forward(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Logits ``[runs, n, classes]`` of these parameters ``[runs, parameters]``, differentiably."""


@dataclass(frozen=True, eq=False)
class Alone:
    """A plain ``train(x, y, seed) -> model``, one run after another.

    Attributes:
        train: the procedure, untouched. Where it takes a keyword ``watch``, it lets itself be watched.
    """

    train: Callable[..., Any]

    def runs(
        self, x: Tensor, y: Tensor, keep: Tensor, seeds: Sequence[int], watch: Watch | None = None
    ) -> Models:
        """See :class:`Procedure`."""
        models = []
        for run, (kept, seed) in enumerate(zip(keep, seeds)):
            seen = {} if watch is None else {"watch": _Lane(watch, run, bool(kept[-1]))}
            models.append(self.train(x[kept], y[kept], seed, **seen))

        def answer(z: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.stack([_logits(model, z) for model in models])

        return answer

    def forward(self, parameters: Tensor, x: Tensor) -> Tensor:
        """See :class:`Procedure`; the procedure's own. Raises ``TargetError`` (PRV320) where it has none."""
        own = getattr(self.train, "forward", None)
        if own is None:
            raise TargetError("PRV320", f"{procedure_name(self.train)} has no forward(parameters, x)")
        answer: Tensor = own(parameters, x)
        return answer


@dataclass(frozen=True, eq=False)
class _Lane:
    """One run's part of a watch."""

    watch: Watch
    run: int
    inside: bool

    def forge(self, step: int, parameters: Tensor) -> Tensor | None:
        return self.watch.forge(step, parameters) if self.inside else None

    def see(self, step: int, parameters: Tensor, released: Tensor, at: slice = slice(None)) -> None:
        self.watch.see(step, parameters.reshape(1, -1), released.reshape(1, -1), slice(self.run, self.run + 1))


def as_procedure(train: Callable[..., Any] | Procedure) -> Procedure:
    """The procedure that trains many at once, or one by one where it trains only one."""
    return train if isinstance(train, Procedure) else Alone(train)


def watchable(procedure: Procedure) -> bool:
    """Whether it lets an adversary watch: a procedure of many runs does, a plain one where it takes ``watch``."""
    if not isinstance(procedure, Alone):
        return True
    return "watch" in inspect.signature(procedure.train).parameters


def differentiable(procedure: Procedure) -> bool:
    """Whether it gives its model as a function of the parameters."""
    return not isinstance(procedure, Alone) or hasattr(procedure.train, "forward")


def procedure_name(train: object) -> str:
    """What to call it."""
    inner = train.train if isinstance(train, Alone) else train
    return str(getattr(inner, "name", None) or getattr(inner, "__name__", None) or type(inner).__name__)


def _logits(model: Any, x: Tensor) -> Tensor:
    """A model's scores: of a target, or of anything that is called with inputs."""
    scores: Tensor = model.scores(x) if hasattr(model, "scores") else model(x)
    return scores
