"""The network on which peers' minimum-norm attacks were measured, and how ours fare on the same points."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import Tensor

from assay.evasion.threat import BUDGETS
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream
from assay.targets.pytorch import TorchTarget

ROOT = Path(__file__).parents[3]
POINTS = 100


@dataclass(frozen=True)
class Found:
    """What an attack found on the network's first 100 correct points; passes are per point."""

    median: float
    success: float
    forwards: float
    backwards: float


@cache
def network() -> tuple[TorchTarget, Tensor, Tensor]:
    """CNN-A, adversarially trained on CIFAR-10 (``sdp("cifar_cnn_a_adv")``), and the points."""
    spec = spec_from_file_location("assay_benchmarks_zoo", ROOT / "benchmarks" / "zoo.py")
    zoo = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(zoo)
    if reason := zoo.missing():
        pytest.skip(reason)
    target, x, y = zoo.sdp("cifar_cnn_a_adv")
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    right = (target.labels(x) == y).nonzero()[:POINTS, 0]
    return target, x[right], y[right]


def found(attack, norm: str) -> Found:
    """The attack with an infinite radius; distances are measured here, on inputs that the network gets wrong."""
    target, x, y = network()
    budget = BUDGETS[norm](float("inf"))
    view = budget.threat().grant(target, len(x))
    z = attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x))))
    assert z.min() >= 0
    assert z.max() <= 1
    won = target.labels(z) != y
    length = torch.where(won, distance((z - x).double(), budget.norm), 1e9)
    passes = view.meter.forwards.double().mean(), view.meter.backwards.double().mean()
    return Found(float(length.quantile(0.5)), float(won.double().mean()), float(passes[0]), float(passes[1]))
