"""Alpha-CROWN: the lower slopes of unstable ReLUs, chosen per row and class by gradient ascent on the bound itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .forms import Form
from .linear import Bounds, pull_back
from .network import Network
from .ops import Relu
from .region import Region

STEP = 0.1
"""Adam's step on slopes that live in [0, 1]."""


def refined(net: Network, form: Form, region: Region, bounds: Bounds, steps: int) -> Tensor:
    """Lower bounds ``[N]`` of forms over the logits, the best seen over ``steps`` of ascent on the lower slopes.

    Any slopes in [0, 1] bound soundly, so every step's bound counts (Xu et al., ICLR 2021, with the intermediate
    bounds kept as they are). Each form has its own slopes; rows do not influence each other.
    """
    table = bounds.relaxations[0]
    slopes = {index: relaxation.lower.index_select(0, form.rows).clone().requires_grad_()
              for index, relaxation in table.items() if isinstance(net.nodes[index].op, Relu)}
    if not slopes:
        return form.data.new_full((len(form.data),), -torch.inf)
    free = {index: _unstable(bounds, net, index).index_select(0, form.rows) for index in slopes}
    fixed = {index: slope.detach().clone() for index, slope in slopes.items()}
    optimizer = torch.optim.Adam(list(slopes.values()), lr=STEP, maximize=True)
    best = form.data.new_full((len(form.data),), -torch.inf)
    for _ in range(steps):
        with torch.enable_grad():
            held = {index: torch.where(free[index], slope, fixed[index]) for index, slope in slopes.items()}
            bound = pull_back(net, len(net.nodes) - 1, form, region, table, slopes=held)
            optimizer.zero_grad()
            bound.sum().backward()  # type: ignore[no-untyped-call]
        best = torch.fmax(best, bound.detach())
        optimizer.step()
        for slope in slopes.values():
            slope.data.clamp_(0, 1)
    return best


def _unstable(bounds: Bounds, net: Network, index: int) -> Tensor:
    return Relu().needs(bounds.boxes[net.nodes[index].inputs[0]])
