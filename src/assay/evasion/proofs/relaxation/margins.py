"""Certified margins: how far, at the least, the labeled class stays ahead of each other one over the whole region."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal

import torch
from torch import Tensor

from assay.errors import DataError

from .forms import Form
from .linear import Bounds, Slopes, chunks, footprint, linear_bounds, pull_back
from .network import Network
from .refine import refined
from .region import Ball, Region

Method = Literal["ibp", "crown-ibp", "crown"]
"""Intervals only; CROWN for the margins on interval bounds; CROWN for every bound."""

BLOCK = 1 << 22
"""How many activations one block of rows may have: bounds the memory of a call."""


def certified_margins(net: Network, x: Tensor, y: Tensor, ball: Ball, *, method: Method = "crown",
                      slopes: Slopes = "adaptive", optimize: int = 0) -> Tensor:
    """Lower bounds of ``logit_y - logit_j`` over every input the ball allows, for each row and class.

    Args:
        net: from :func:`read_network`.
        x: the examples ``[rows, *shape]``, inside the ball's box.
        y: the labels ``[rows]``.
        ball: the perturbation set.
        method: each includes the cheaper ones: bounds are intersected, so ``crown >= crown-ibp >= ibp``.
        slopes: the lower relaxation of unstable ReLUs; ``"adaptive"`` is CROWN. ``"best"`` bounds every neuron and
            margin by both rules; mostly but not always it is tighter than either alone.
        optimize: steps of gradient ascent on the lower slopes for pairs still undecided (alpha-CROWN with fixed
            intermediate bounds, Xu et al., ICLR 2021); 0 for none, and it needs a CROWN method.

    Returns ``[rows, classes]``, with ``+inf`` in the column of the label: a row is certified iff
    ``(margins > 0).all(1)``. Rounding is paid for: every sum gives up ``ROUNDING`` units of its own relative error,
    about 4e-6 of the magnitudes summed in float32 and 7e-15 in float64.

    Raises ``DataError`` PRF106 for examples outside the box or radii that are not, PRF107 for labels that no logit has,
    PRF108 for examples of another shape than the network's.
    """
    y = _labels(net, x, y)
    region = ball.around(net.shaped(x))
    margins = [_block(net, region.take(part), y[part], method, slopes, optimize) for part in _blocks(net, len(x))]
    return torch.cat(margins) if margins else region.center.new_zeros(0, net.classes)


def certify(net: Network, x: Tensor, y: Tensor, ball: Ball, *, method: Method = "crown",
            slopes: Slopes = "adaptive", optimize: int = 0) -> Tensor:
    """Which rows are proved: boolean ``[rows]``; at least those of :func:`certified_margins`, and sooner.

    Each row goes through the methods from the cheapest on and stops at the first that proves it: IBP, CROWN-IBP,
    CROWN, then the slopes and steps asked for. A row that is misclassified to begin with goes through none.
    Arguments and errors as there.
    """
    y = _labels(net, x, y)
    proved = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with torch.no_grad():
        parts = [net.apply(x[part]).argmax(1) == y[part] for part in _blocks(net, len(x))]
    open_rows = torch.cat(parts) if parts else proved
    stages: list[tuple[Method, Slopes, int]] = [("ibp", "adaptive", 0), ("crown-ibp", "adaptive", 0),
                                                ("crown", "adaptive", 0)]
    final = (method, slopes, optimize)  # what is asked for comes last, and nothing that costs more
    reached = [stage for stage in stages if _cost(stage) < _cost(final)] + [final]
    for stage in reached:
        rows = (open_rows & ~proved).nonzero().squeeze(1)
        radius = ball.radius[rows] if isinstance(ball.radius, Tensor) and ball.radius.dim() else ball.radius
        margins = certified_margins(net, x[rows], y[rows], replace(ball, radius=radius), method=stage[0],
                                    slopes=stage[1], optimize=stage[2])
        proved[rows] = (margins > 0).all(1)
    return proved


def _block(net: Network, region: Region, y: Tensor, method: Method, slopes: Slopes, optimize: int) -> Tensor:
    """The margins of one block of rows."""
    with torch.no_grad():
        margins = region.center.new_full((len(y), net.classes), torch.inf)
        pairs = torch.ones_like(margins).scatter_(1, y[:, None], 0).nonzero()
        found = region.center.new_full((len(pairs),), -torch.inf)
        # Tighter intermediate bounds can flip an adaptive slope and loosen a margin: the coarser ones count as well.
        for tighten in (False, True)[:1 + (method == "crown")]:
            bounds = linear_bounds(net, region, tighten=tighten, slopes=slopes)
            found = torch.fmax(found, _pair_margins(net, region, y, pairs, bounds, method))
        margins[pairs[:, 0], pairs[:, 1]] = found
        undecided = (margins <= 0).nonzero()
        if optimize and method != "ibp" and len(undecided):
            better = _refined_margins(net, region, y, undecided, bounds, optimize)
            margins[undecided[:, 0], undecided[:, 1]] = torch.fmax(margins[undecided[:, 0], undecided[:, 1]], better)
    return margins


def _pair_margins(net: Network, region: Region, y: Tensor, pairs: Tensor, bounds: Bounds, method: Method) -> Tensor:
    """The margin of each (row, class) in ``pairs [P, 2]``: the best of every bound the method has."""
    last, found = len(net.nodes) - 1, []
    for part in chunks(len(pairs), footprint(net, last)):
        form = _difference(net, y, pairs[part], region.center)
        margin = pull_back(net, last, form, region, {}, stops=bounds.boxes)
        for table in bounds.relaxations if method != "ibp" else ():
            margin = torch.fmax(margin, pull_back(net, last, form, region, table))
        found.append(margin)
    return torch.cat(found) if found else region.center.new_zeros(0)


def _refined_margins(net: Network, region: Region, y: Tensor, pairs: Tensor, bounds: Bounds, steps: int) -> Tensor:
    last = len(net.nodes) - 1
    return torch.cat([refined(net, _difference(net, y, pairs[part], region.center), region, bounds, steps)
                      for part in chunks(len(pairs), footprint(net, last))])


def _difference(net: Network, y: Tensor, pairs: Tensor, like: Tensor) -> Form:
    """The forms ``e_y - e_j`` over the logits for pairs (row, j)."""
    rows, others = pairs[:, 0], pairs[:, 1]
    data = like.new_zeros(len(pairs), net.classes)
    data.scatter_(1, y[rows][:, None], 1.0).scatter_(1, others[:, None], -1.0)
    return Form(data, rows, (net.classes,))


def _blocks(net: Network, rows: int) -> list[Tensor]:
    size = max(1, BLOCK // sum(prod(node.shape) for node in net.nodes))
    return [torch.arange(start, min(start + size, rows)) for start in range(0, rows, size)]


def _cost(stage: tuple[Method, Slopes, int]) -> tuple[int, int, int]:
    return (("ibp", "crown-ibp", "crown").index(stage[0]), ("adaptive", "parallel", "best").index(stage[1]), stage[2])


def _labels(net: Network, x: Tensor, y: Tensor) -> Tensor:
    if y.shape != (len(x),) or bool(((y < 0) | (y >= net.classes)).any()):
        raise DataError("PRF107", f"labels must be {len(x)} integers below {net.classes}")
    return y.long()
