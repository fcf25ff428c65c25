"""Gradient descent along noised sums: where it starts, and how it moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.privacy.per_example import Gradients
from assay.privacy.private import Init


class Descent(Protocol):
    """What a step is made of."""

    @property
    def batch(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def average(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Walk:
    """Where the parameters are, their average so far, and how they move."""

    at: dict[str, Tensor]
    average: dict[str, Tensor]
    velocity: Mapping[str, Tensor] | None = None

    def moved(self, how: Descent, released: Gradients) -> Walk:
        """One step along the noised sum over the expected batch."""
        step = {name: value / how.batch for name, value in released.items()}
        if self.velocity is not None:
            step = {name: how.momentum * self.velocity[name] + value for name, value in step.items()}
        at = {name: value - how.rate * step[name] for name, value in self.at.items()}
        average = {name: how.average * self.average[name] + (1 - how.average) * at[name] for name in at}
        return Walk(at, average if how.average else at, step)


def started(module: nn.Module | Init, x: Tensor) -> nn.Module:
    """A copy of the module, or what builds it, beside the examples and in training mode.

    Raises:
        ConfigError: PRV205 where an example's output depends on which others stand beside it.
    """
    model = (deepcopy(module) if isinstance(module, nn.Module) else module()).to(x.device)
    _refuse_mixing(model, x)
    return model.train()


def _refuse_mixing(model: nn.Module, x: Tensor) -> None:
    """Raises PRV205 where an example's output depends on which others stand beside it."""
    model.eval()
    with torch.no_grad():
        few = x[:3].to(next(model.parameters()).dtype) if x.is_floating_point() else x[:3]
        alone, together = model(few[:1]), model(few)[:1]
    if not torch.allclose(alone, together, rtol=1e-3, atol=1e-4):
        raise ConfigError("PRV205", f"{type(model).__name__} mixes the examples of a batch")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global stream under a seed, for initialization and dropout; as it was afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
