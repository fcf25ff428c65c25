"""From a prover's view of a target to the radius that each point is proved at."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.evasion.threat import Ball as Budget
from assay.threats import View

from .graph import read_network
from .linear import Slopes
from .margins import Method, certify
from .region import Ball, Norm

NORMS = {float("inf"): Norm.LINF, 2.0: Norm.L2, 1.0: Norm.L1}
"""The norms that bound propagation covers."""


def proved_radius(
    view: View, x: Tensor, y: Tensor, budget: Budget, method: Method, slopes: Slopes = "adaptive", optimize: int = 0
) -> Tensor:
    """``budget.radius`` where the point is proved at it, ``-inf`` elsewhere; ``[points]``.

    Books one forward a point for the clean prediction; bound propagation itself is not counted in forwards.
    """
    network = read_network(view.module(), x)
    ball = Ball(NORMS[budget.norm], budget.radius, view.bounds.lower, view.bounds.upper)
    held = certify(network, x, y, ball, method=method, slopes=slopes, optimize=optimize)
    view.charge(torch.arange(len(x), device=x.device), forwards=1)
    radius = torch.full(held.shape, budget.radius, dtype=torch.float64, device=held.device)
    return radius.masked_fill(~held, -torch.inf)
