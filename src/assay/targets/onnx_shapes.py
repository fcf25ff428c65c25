"""ONNX operators that rearrange a tensor, resolved for any batch size."""

from __future__ import annotations

import math
import operator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from assay.targets.onnx_trace import PROBES, Known, Step, Traced, Value, tensor_of


def reshaped(step: Step, value: Traced, sizes: tuple[int, ...]) -> Traced:
    """A reshape, with −1 for the dimension that holds the batch; the plainest node that does it."""
    first, second = (tuple(torch.reshape(probe, sizes).shape) for probe in value.probes)
    if (first, second) == value.shapes:
        return value
    last = len(sizes) - 1
    if 0 < last < value.rank and all(new[:last] == old[:last] for new, old in zip((first, second), value.shapes)):
        return step.function(torch.flatten, value, last)
    return step.function(torch.reshape, value, sizes)


def fixed_sizes(step: Step, value: Traced) -> tuple[int, ...]:
    """The sizes of a value, with −1 for the batch."""
    if len(value.batch_axes) > 1:
        step.mixes("meets a tensor in which the batch spreads over several dimensions")
    return tuple(-1 if axis in value.batch_axes else size for axis, size in enumerate(value.sizes))


def convert_reshape(step: Step) -> Traced:
    value, pair = step.traced(), step.pair(1)
    if pair is None:
        step.refuse("without a shape is not supported")
    copied = not step.integer("allowzero", 0)
    targets = [[shape[axis] if size == 0 and copied else int(size) for axis, size in enumerate(target.reshape(-1))]
               for shape, target in zip(value.shapes, pair)]
    return reshaped(step, value, _generic(step, value, targets))


def _generic(step: Step, value: Traced, targets: list[list[int]]) -> tuple[int, ...]:
    """The target of a reshape for any batch size: −1 where the batch goes, numbers elsewhere.

    A file that was exported with one row has that 1 baked into its targets; where it stands in for the batch,
    the batch takes its place.
    """
    baked = _baked(value, targets, step.builder.fixed)
    if baked is not None:
        others = [size for axis, size in enumerate(targets[0]) if axis != baked and size != -1]
        row = math.prod(value.sizes) // PROBES[0] // max(math.prod(others), 1)
        return tuple(-1 if axis == baked else row if size == -1 else size for axis, size in enumerate(targets[0]))
    first, fixed = targets[0], step.builder.fixed
    if first == targets[1] and math.prod(first) * PROBES[0] == math.prod(value.sizes) * fixed and len(first) > 1:
        guess = _swallowed(first, fixed)
        return tuple(-1 if axis == guess else size for axis, size in enumerate(first))
    filled = [_filled(step, target, math.prod(shape)) for target, shape in zip(targets, value.shapes)]
    moving = [axis for axis, (a, b) in enumerate(zip(*filled)) if a != b]
    if len(moving) > 1:
        step.mixes("spreads the batch over several dimensions")
    return tuple(-1 if axis in moving else size for axis, size in enumerate(filled[0]))


def _baked(value: Traced, targets: list[list[int]], fixed: int) -> int | None:
    """The position in a target at which the exported batch size stands for the batch, if there is one."""
    if len(value.batch_axes) != 1:
        return None
    before, reached = math.prod(value.sizes[:value.batch_axes[0]]), 1
    for axis, (a, b) in enumerate(zip(*targets)):
        if reached == before and a == b == fixed:
            return axis
        if a != b or a < 1 or reached > before:
            return None
        reached *= a
    return None


def _swallowed(target: list[int], fixed: int) -> int:
    """Where the batch most likely went in a target of plain numbers that has the size of the exported batch.

    A dimension of just that size, or else the last one before the features: attention joins the batch with the
    heads. The guess is safe because the finished graph is held to computing rows together as it does alone.
    """
    return target.index(fixed) if fixed in target else len(target) - 2


def _filled(step: Step, target: list[int], total: int) -> list[int]:
    """A reshape target with its −1 worked out."""
    rest = math.prod(size for size in target if size != -1)
    if rest == 0 or total % rest or (-1 not in target and rest != total):
        step.mixes(f"to {target} does not keep the rows of a batch apart")
    return [total // rest if size == -1 else size for size in target]


def convert_flatten(step: Step) -> Traced:
    value = step.traced()
    axis = step.integer("axis", 1)
    axis = axis + value.rank if axis < 0 else axis
    rows = 1 if axis == 0 else -1
    inner = -1 if axis == 0 else math.prod(value.sizes[axis:])
    if any(batch >= axis for batch in value.batch_axes) and axis > 0:
        step.mixes(f"from axis {axis} joins the batch with the features")
    if axis == 0 and step.builder.fixed != 1:
        step.mixes("from axis 0 joins all rows")
    return reshaped(step, value, _generic(step, value, [[rows, inner]] * 2))


def convert_squeeze(step: Step) -> Traced:
    value = step.traced()
    axes = step.integers("axes", 1)
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(value.sizes) if size == 1)
    gone = {axis % value.rank for axis in axes}
    if any(value.sizes[axis] != 1 for axis in gone):
        step.mixes(f"removes a dimension that is not 1, or the batch (axes {sorted(gone)})")
    sizes = fixed_sizes(step, value)
    return reshaped(step, value, tuple(size for axis, size in enumerate(sizes) if axis not in gone))


def convert_unsqueeze(step: Step) -> Traced:
    value, axes = step.traced(), step.integers("axes", 1) or ()
    rank = value.rank + len(axes)
    fresh = {axis % rank for axis in axes}
    kept = iter(fixed_sizes(step, value))
    return reshaped(step, value, tuple(1 if axis in fresh else next(kept) for axis in range(rank)))


def convert_transpose(step: Step) -> Traced:
    value = step.traced()
    order = step.integers("perm") or tuple(reversed(range(value.rank)))
    return value if order == tuple(range(value.rank)) else step.function(torch.permute, value, order)


def convert_expand(step: Step) -> Traced:
    value, pair = step.traced(), step.pair(1)
    if pair is None:
        step.refuse("without a shape is not supported")
    shapes = [np.broadcast_shapes(shape, tuple(int(size) for size in target))
              for shape, target in zip(value.shapes, pair)]
    if tuple(shapes) == value.shapes:
        return value
    rows = tuple(axis for axis, sizes in enumerate(zip(*shapes)) if sizes == PROBES)
    if len(rows) != sum(a != b for a, b in zip(*shapes)):
        step.mixes("repeats the rows of a batch")
    return step.builder.expand("expand", value, rows, tuple(shapes[0]))


def convert_concat(step: Step) -> Traced:
    like = next(value for value in step.inputs if isinstance(value, Traced))
    axis = step.axis(1, like.rank)
    if axis in like.batch_axes:
        step.mixes("joins tensors along the batch")
    parts = [value if isinstance(value, Traced) else _beside(step, index, like, axis)
             for index, value in enumerate(step.inputs)]
    return parts[0] if len(parts) == 1 else step.function(torch.cat, parts, axis)


def _beside(step: Step, index: int, like: Traced, axis: int) -> Traced:
    """A constant repeated for every row, so that it can stand beside a tensor with a batch."""
    constant = step.tensor(index)
    rows = tuple(batch for batch in like.batch_axes if constant.shape[batch] == 1)
    return step.builder.expand("concat", constant, rows, tuple(constant.shape))


def convert_split(step: Step) -> tuple[Value, ...]:
    value = step.traced()
    axis = step.axis(0, value.rank)
    if axis in value.batch_axes:
        step.mixes("takes the batch apart")
    chunk = -(-value.sizes[axis] // step.outputs)
    even = [min(chunk, value.sizes[axis] - start) for start in range(0, value.sizes[axis], chunk)]
    parts = step.function(torch.split, value, list(step.integers("split", 1) or even), axis)
    return tuple(step.function(operator.getitem, parts, index) for index in range(step.outputs))


def convert_slice(step: Step) -> Traced:
    value = step.traced()
    starts, ends = step.pair(1), step.pair(2)
    if "starts" in step.attributes:
        starts, ends = ((np.array(step.attributes[name]),) * 2 for name in ("starts", "ends"))
    if starts is None or ends is None:
        step.refuse("without starts and ends is not supported")
    axes = step.integers("axes", 3) or tuple(range(starts[0].size))
    strides = step.integers("steps", 4) or (1,) * len(axes)
    for index, (axis, stride) in enumerate(zip(axes, strides)):
        bounds = [(int(s.reshape(-1)[index]), int(e.reshape(-1)[index])) for s, e in zip(starts, ends)]
        value = _sliced(step, value, axis % value.rank, bounds, stride)
    return value


def _sliced(step: Step, value: Traced, axis: int, bounds: list[tuple[int, int]], stride: int) -> Traced:
    """One axis of a slice, ``bounds`` being its start and end at each probe."""
    taken = [range(shape[axis])[start:end:stride] for (start, end), shape in zip(bounds, value.shapes)]
    if all(part == range(shape[axis]) for part, shape in zip(taken, value.shapes)):
        return value
    if axis in value.batch_axes:
        if stride == 1 and bounds[0] == bounds[1] and bounds[0] == (0, step.builder.fixed):
            return value
        step.mixes("takes the batch apart")
    if taken[0] != taken[1]:
        step.mixes("cuts features at a place that depends on how many rows there are")
    if stride < 0:
        return step.function(torch.index_select, value, axis, torch.tensor(list(taken[0]), dtype=torch.int64))
    cut = slice(taken[0].start, taken[0].stop, stride)
    return step.function(operator.getitem, value, (*[slice(None)] * axis, cut))


def convert_gather(step: Step) -> Traced:
    value, indices = step.traced(), step.array(1)
    axis = step.axis(0, value.rank)
    if indices is None:
        step.refuse("without indices is not supported")
    if axis in value.batch_axes:
        step.mixes("picks rows of the batch")
    indices = indices % value.sizes[axis]
    if indices.ndim == 0:
        return step.function(torch.select, value, axis, int(indices))
    picked = step.function(torch.index_select, value, axis, tensor_of(indices.reshape(-1)))
    sizes = fixed_sizes(step, picked)
    return reshaped(step, picked, (*sizes[:axis], *indices.shape, *sizes[axis + 1:]))


def convert_pad(step: Step) -> Traced:
    value, pads = step.traced(), step.integers("pads", 1) or ()
    axes = step.integers("axes", 3) or tuple(range(len(pads) // 2))
    before, after = [0] * value.rank, [0] * value.rank
    for index, axis in enumerate(axes):
        before[axis % value.rank], after[axis % value.rank] = pads[index], pads[index + len(axes)]
    if any(before[axis] or after[axis] for axis in value.batch_axes):
        step.mixes("pads the batch")
    first = next((axis for axis in range(value.rank) if before[axis] or after[axis]), value.rank)
    sides = [side for axis in reversed(range(first, value.rank)) for side in (before[axis], after[axis])]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(step.text("mode", "constant"))
    if mode is None or (mode != "constant" and first < 2):
        step.refuse(f"in mode {step.text('mode', '')!r} over axis {first} is not supported")
    fill = step.attributes.get("value", step.scalar(2))
    return _pad(step, value, sides, mode, float(fill or 0.0)) if sides else value


def _pad(step: Step, value: Traced, sides: list[int], mode: str, fill: float) -> Traced:
    """Constant padding of an image as a module, anything else as the function."""
    if mode == "constant" and value.rank == 4 and len(sides) <= 4:
        left, right, top, bottom = sides + [0] * (4 - len(sides))
        return step.module(nn.ConstantPad2d((left, right, top, bottom), fill), value)
    if mode == "constant":
        return step.function(functional.pad, value, sides, mode, fill)
    return step.function(functional.pad, value, sides + [0] * (2 * (value.rank - 2) - len(sides)), mode)


def convert_shape(step: Step) -> Known:
    start, end = step.integer("start", 0), step.attributes.get("end")
    first, second = (np.array(shape[start:end], dtype=np.int64) for shape in step.traced().shapes)
    return Known((first, second))


def convert_size(step: Step) -> Known:
    first, second = (np.array(math.prod(shape), dtype=np.int64) for shape in step.traced().shapes)
    return Known((first, second))
