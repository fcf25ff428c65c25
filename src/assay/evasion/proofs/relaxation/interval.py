"""Interval bound propagation: one forward pass of boxes (Gowal et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Network
from .ops import Convolution, Dense, Relu, Reshape, Scale
from .region import Box


def interval_bounds(net: Network, lower: Tensor, upper: Tensor) -> tuple[Box, ...]:
    """The range of every node of ``net`` for inputs in ``[lower, upper]``.

    Args:
        net: the network.
        lower, upper: ``[rows, *shape]``.

    Returns one :class:`Box` a node, ``[rows, *node.shape]``, the last that of the logits.
    """
    boxes: list[Box] = []
    with torch.no_grad():
        for node in net.nodes:
            read = [boxes[i] for i in node.inputs] or [Box(net.shaped(lower), net.shaped(upper))]
            boxes.append(node.op.enclose(*read))
    return tuple(boxes)


def exact_nodes(net: Network) -> frozenset[int]:
    """The nodes whose interval is exact, each value by itself, when the input set is a box.

    These see the input through one mixing layer at most: its values then move independently, and elementwise
    operations keep a range exact.
    """
    mixed: list[int] = []
    for node in net.nodes:
        depth = max((mixed[i] for i in node.inputs), default=0)
        if isinstance(node.op, Dense | Convolution):
            depth += 1
        elif node.inputs and not isinstance(node.op, Scale | Reshape | Relu):
            depth = 2
        mixed.append(depth)
    return frozenset(i for i, depth in enumerate(mixed) if depth <= 1)
