"""CROWN: linear bounds pulled backward through the network to the input (Zhang et al., NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, final

import torch
from torch import Tensor

from .forms import Form
from .interval import exact_nodes
from .network import Network
from .ops import Affine, Curved, Relaxation
from .region import ROUNDING, Box, Norm, Region

Slopes = Literal["adaptive", "parallel", "best"]
"""Lower slopes of unstable ReLUs: 1 or 0 (CROWN), the chord's (Fast-Lin), or the better bound of the two."""

CHUNK = 1 << 20
"""How many coefficients one pass backward holds at a time: few enough to stay near the processor."""


@final
@dataclass(frozen=True)
class Bounds:
    """What one propagation yields.

    Attributes:
        boxes: one a node.
        relaxations: one table a slope rule, from the index of a curved node to its linear bounds.
    """

    boxes: tuple[Box, ...]
    relaxations: tuple[Mapping[int, Relaxation], ...]


def linear_bounds(net: Network, region: Region, *, tighten: bool, slopes: Slopes = "adaptive") -> Bounds:
    """Bounds of every node over the region: by intervals, and with ``tighten`` by CROWN where a relaxation needs it.

    Each box is the intersection of the CROWN bound and the interval of the already tightened inputs. Neurons whose
    interval decides their relaxation keep the interval: CROWN could not change what is built on them.
    """
    rules = {"adaptive": (False,), "parallel": (True,), "best": (False, True)}[slopes]
    relaxations: tuple[dict[int, Relaxation], ...] = tuple({} for _ in rules)
    readers = {i: node.op for node in net.nodes for i in node.inputs if isinstance(node.op, Curved)}
    exact = exact_nodes(net) if region.norm is Norm.LINF else frozenset({0})
    boxes: list[Box] = []
    for index, node in enumerate(net.nodes):
        if isinstance(node.op, Curved):
            for parallel, table in zip(rules, relaxations):
                table[index] = node.op.relax(boxes[node.inputs[0]], parallel=parallel)
        box = node.op.enclose(*[boxes[i] for i in node.inputs] or [region.interval()])
        if tighten and index in readers and index not in exact:
            box = _tightened(net, index, box, readers[index].needs(box), region, relaxations)
        boxes.append(box)
    return Bounds(tuple(boxes), relaxations)


def pull_back(net: Network, target: int, form: Form, region: Region, relaxations: Mapping[int, Relaxation], *,
              stops: tuple[Box, ...] | None = None, slopes: Mapping[int, Tensor] | None = None) -> Tensor:
    """Lower bounds ``[N]`` of linear forms over the output of node ``target``, valid on the whole region.

    Args:
        net: the network.
        target: the node the forms are over.
        form: the forms.
        region: the perturbation set of each row.
        relaxations: linear bounds of the curved nodes; ignored where ``stops`` is given.
        stops: boxes of every node: the pass ends at curved nodes and takes the form's least value over their box.
        slopes: lower slopes ``[N, *shape]`` in [0, 1] by curved node, instead of the relaxation's own.
    """
    pending = {target: form}
    bound = form.data.new_zeros(len(form.data))
    size = bound
    for index in range(target, 0, -1):
        current = pending.pop(index, None)
        if current is None:
            continue
        node = net.nodes[index]
        shape = net.nodes[node.inputs[0]].shape
        if isinstance(node.op, Affine):
            forms, constant = node.op.pull(current, shape)
        elif stops is not None:
            forms, constant = [], stops[index].minimize(current)
        else:
            pulled, constant = relaxations[index].pull(current, shape, slopes.get(index) if slopes else None)
            forms = [pulled]
        bound, size = bound + constant, size + constant.abs()
        for parent, part in zip(node.inputs, forms):
            pending[parent] = pending[parent].plus(part) if parent in pending else part
    if 0 in pending:
        bound = bound + region.minimize(pending[0])
    return bound - ROUNDING * torch.finfo(size.dtype).eps * size


def _tightened(net: Network, target: int, box: Box, needed: Tensor, region: Region,
               relaxations: tuple[Mapping[int, Relaxation], ...]) -> Box:
    """``box`` with CROWN bounds, intersected, at the values marked in ``needed [rows, *shape]``."""
    rows, places = needed.flatten(1).nonzero(as_tuple=True)
    lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
    shape = net.nodes[target].shape
    for part in chunks(len(rows), footprint(net, target)):
        row, place = rows[part], places[part]
        form = _unit_forms(row, place, shape, lower)
        opposite = replace(form, data=-form.data)
        for table in relaxations:
            low, high = pull_back(net, target, form, region, table), -pull_back(net, target, opposite, region, table)
            # A bound that overflowed says nothing; the interval stays.
            lower[row, place] = torch.fmax(lower[row, place], low)
            upper[row, place] = torch.fmin(upper[row, place], high)
    return Box(lower.view_as(box.lower), upper.view_as(box.upper))


def _unit_forms(rows: Tensor, places: Tensor, shape: tuple[int, ...], like: Tensor) -> Form:
    """The forms that read one value each: windows of one place on a map, unit vectors elsewhere."""
    if len(shape) != 3:
        data = like.new_zeros(len(rows), prod(shape)).scatter_(1, places[:, None], 1.0)
        return Form(data.view(-1, *shape), rows, shape)
    area, width = shape[1] * shape[2], shape[2]
    data = like.new_zeros(len(rows), shape[0]).scatter_(1, (places // area)[:, None], 1.0)
    within = places % area
    return Form(data[:, :, None, None], rows, shape, torch.stack([within // width, within % width], 1))


def footprint(net: Network, target: int) -> int:
    """The most coefficients one form over a single value of ``target`` takes at any node on its way back."""
    sizes: dict[int, tuple[int, int] | None] = {target: (1, 1) if len(net.nodes[target].shape) == 3 else None}
    most = 1
    for index in range(target, -1, -1):
        if index not in sizes:
            continue
        node, size = net.nodes[index], sizes[index]
        if size is not None and 2 * size[0] * size[1] > node.shape[1] * node.shape[2]:
            size = None
        most = max(most, prod(node.shape) if size is None else node.shape[0] * size[0] * size[1])
        for parent in node.inputs:
            passed = size
            if isinstance(node.op, Affine) and size is not None:
                passed = node.op.extent(size, net.nodes[parent].shape)
            known = sizes.get(parent, (0, 0))
            sizes[parent] = None if known is None or passed is None else (max(known[0], passed[0]),
                                                                          max(known[1], passed[1]))
    return most


def chunks(count: int, weight: int) -> Iterator[slice]:
    """Slices that cover ``count`` forms of ``weight`` coefficients each, :data:`CHUNK` coefficients at a time."""
    step = max(1, CHUNK // weight)
    return (slice(start, start + step) for start in range(0, count, step))
