"""Training with a guarantee: what it returns, and how it stands where a training procedure is asked for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.evidence.bound import Bound
from assay.games import name_of
from assay.privacy.mechanisms import Mechanism
from assay.privacy.proofs.accountant import Accountant
from assay.targets.procedure import Training

Init = Callable[[], nn.Module]
"""Builds the module that training starts from."""

ACCOUNTANT = Accountant()
"""The one that is used where the caller names no other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Private:
    """A model trained with a guarantee.

    Attributes:
        module: the model, in evaluation mode.
        mechanism: what its privacy rests on.
        n: how many examples the guarantee is about.
    """

    module: nn.Module
    mechanism: Mechanism
    n: int

    def bound(self, *, delta: float, accountant: Accountant = ACCOUNTANT) -> Bound:
        """``epsilon@delta=…`` at most …"""
        return accountant.certify(self.mechanism, delta=delta, n=self.n)


class Trainer(Protocol):
    """A private way to train."""

    def fit(self, module: nn.Module | Init, x: Tensor, y: Tensor, *, seed: int) -> Private:
        """A trained model and what its privacy rests on; ``module`` is left as it was."""

    def mechanism(self, n: int) -> Mechanism:
        """What the privacy of a run on ``n`` examples rests on."""


@runtime_checkable
class Guaranteed(Protocol):
    """A procedure that says what its privacy rests on."""

    def mechanism(self, n: int) -> Mechanism:
        """That of a run on ``n`` examples."""


def mechanism_of(training: Training, n: int) -> Mechanism:
    """What a run on ``n`` examples rests on. Raises ``ConfigError`` (PRV313) where the procedure does not say."""
    fit: object = training.fit
    if not isinstance(fit, Guaranteed):
        raise ConfigError("PRV313", f"{training.name} has no mechanism(n)")
    return fit.mechanism(n)


class Examples(Protocol):
    """Training data as :class:`~assay.data.Dataset` holds it."""

    @property
    def x(self) -> Any: ...
    @property
    def y(self) -> Any: ...


def privately(training: Training, trainer: Trainer, *, delta: float = 1e-5) -> Training:
    """The procedure with its models trained by ``trainer`` from the same start.

    Raises:
        ConfigError: PRV114 where the procedure does not say what its models start from.
    """
    init = getattr(training.fit, "init", None)
    if init is None:
        raise ConfigError("PRV114", f"{training.name} does not say what its models start from")
    return replace(training, fit=Procedure(trainer=trainer, init=init, delta=delta),
                   name=f"{training.name} + {name_of(trainer)}", bare=training.bare or training)


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """Private training as the ``fit(data, seed) -> module`` that :func:`assay.targets.training` takes.

    Attributes:
        trainer: how to train.
        init: builds the module that training starts from; evidence knows it by its name and source.
        delta: at which the procedure claims its ε.
    """

    trainer: Trainer
    init: Init = field(repr=False)
    delta: float = 1e-5
    start: str = field(init=False)

    def __post_init__(self) -> None:
        name = str(getattr(self.init, "__qualname__", type(self.init).__name__))
        try:
            source = hashlib.sha256(inspect.getsource(self.init).encode()).hexdigest()[:16]
        except (OSError, TypeError):  # written at a prompt, or no function at all
            source = ""
        object.__setattr__(self, "start", f"{name} {source}".rstrip())

    def __call__(self, data: Examples, seed: int) -> nn.Module:
        """The trained module."""
        return self.trainer.fit(self.init, torch.as_tensor(data.x), torch.as_tensor(data.y), seed=seed).module

    def mechanism(self, n: int) -> Mechanism:
        """What the privacy of a run on ``n`` examples rests on."""
        return self.trainer.mechanism(n)
