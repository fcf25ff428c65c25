"""What the tests of attacks that see labels alone share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from assay import demo, targets
from assay.evasion import L2, Linf
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.threats import View

UNBOUNDED = {2.0: L2(math.inf), math.inf: Linf(math.inf)}


def digits() -> tuple[Target, Tensor, Tensor]:
    """The demo network and the first 40 of its test images that it gets right."""
    target = demo.target()
    x, y = (torch.as_tensor(part) for part in demo.digits("test[:80]"))
    x, y = x.to(target.dtype), y.long()
    right = target.labels(x) == y
    return target, x[right][:40], y[right][:40]


def nearest(attack, target: Target, x: Tensor, y: Tensor, norm: float, queries: int | None,
            goal: str = "misclassify", points: Tensor | None = None) -> tuple[Closest, View]:
    """The nearest success for each point, and the view that the attack had: of labels alone."""
    budget = UNBOUNDED[norm]
    view = budget.threat(access="labels", goal=goal, queries=queries).grant(target, len(x))
    points = torch.arange(len(x)) if points is None else points
    return attack.closest(view, x, y, budget, Stream.seeded(3, points)), view


class Stubborn(nn.Module):
    """Says 0 whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), 3)


def stubborn() -> Target:
    """A target that no input breaks."""
    return targets.torch(Stubborn(), name="stubborn")
