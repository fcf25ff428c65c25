"""ONNX operators that slide a window: convolutions and pools."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from assay.targets.onnx_trace import Step, Traced, loaded

_CONV: tuple[Callable[..., nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Callable[..., nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX: tuple[Callable[..., nn.Module], ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE: tuple[Callable[..., nn.Module], ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_GLOBAL_AVERAGE: tuple[Callable[..., nn.Module], ...] = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_GLOBAL_MAX: tuple[Callable[..., nn.Module], ...] = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_PAD: tuple[Callable[..., nn.Module], ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)


@dataclass(frozen=True)
class Window:
    """Where a window is laid, one number a spatial dimension.

    Attributes:
        kernel: its size.
        stride: how far it moves.
        dilation: the distance between its taps.
        begin: padding before.
        end: padding after.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """The extent from the first tap to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation))

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding can express the padding."""
        return self.begin == self.end and min(self.begin) >= 0


def choose(step: Step, kinds: tuple[Callable[..., nn.Module], ...], value: Traced) -> Callable[..., nn.Module]:
    """The module for this many spatial dimensions."""
    if not 3 <= value.rank <= 5:
        step.refuse(f"on a tensor with {value.rank} dimensions is not supported")
    return kinds[value.rank - 3]


def _window(step: Step, value: Traced, kernel: tuple[int, ...]) -> Window:
    count = len(kernel)
    stride = step.integers("strides") or (1,) * count
    dilation = step.integers("dilations") or (1,) * count
    pads = step.integers("pads") or (0,) * (2 * count)
    window = Window(kernel, stride, dilation, pads[:count], pads[count:])
    auto = step.text("auto_pad", "NOTSET")
    if auto == "VALID":
        return replace(window, begin=(0,) * count, end=(0,) * count)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return window
    total = tuple(max((-(-size // s) - 1) * s + r - size, 0)
                  for size, s, r in zip(value.sizes[2:], stride, window.reach))
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return replace(window, begin=less, end=more) if auto == "SAME_UPPER" else replace(window, begin=more, end=less)


def _padded(step: Step, value: Traced, begin: tuple[int, ...], end: tuple[int, ...], fill: float) -> Traced:
    pads = [size for pair in zip(reversed(begin), reversed(end)) for size in pair]
    return step.module(choose(step, _PAD, value)(tuple(pads), fill), value) if any(pads) else value


def convert_conv(step: Step) -> Traced:
    value, weight, bias = step.traced(), step.tensor(1), step.optional(2)
    kind = choose(step, _CONV, value)
    window = _window(step, value, tuple(weight.shape[2:]))
    padding = window.begin
    if not window.symmetric:
        value, padding = _padded(step, value, window.begin, window.end, 0.0), (0,) * len(padding)
    groups = step.integer("group", 1)
    module = kind(weight.shape[1] * groups, weight.shape[0], window.kernel, window.stride, padding, window.dilation,
                  groups, bias is not None, device="meta")
    return step.module(loaded(module, _state(weight, bias)), value)


def _state(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def convert_conv_transpose(step: Step) -> Traced:
    value, weight, bias = step.traced(), step.tensor(1), step.optional(2)
    kind = choose(step, _TRANSPOSED, value)
    window, extra = _transposed(step, value, tuple(weight.shape[2:]))
    padding = window.begin if window.symmetric else (0,) * len(window.begin)
    groups = step.integer("group", 1)
    module = kind(weight.shape[0], weight.shape[1] * groups, window.kernel, window.stride, padding, extra, groups,
                  bias is not None, window.dilation, device="meta")
    result = step.module(loaded(module, _state(weight, bias)), value)
    if window.symmetric:
        return result
    # Padding of a transposed convolution is a crop of its output.
    crop = (slice(None), slice(None), *(slice(b, size - e) for b, e, size in
                                        zip(window.begin, window.end, result.sizes[2:])))
    return step.function(operator.getitem, result, crop)


def _transposed(step: Step, value: Traced, kernel: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
    """The window of a transposed convolution and its output padding, once the wanted output shape is honored."""
    window = _window(step, value, kernel)
    extra = step.integers("output_padding") or (0,) * len(kernel)
    auto = step.text("auto_pad", "NOTSET")
    same = tuple(size * s for size, s in zip(value.sizes[2:], window.stride)) if auto.startswith("SAME") else None
    wanted = step.integers("output_shape") or same
    if wanted is None:
        return window, extra
    total = tuple((size - 1) * s + more + r - out for size, s, more, r, out in
                  zip(value.sizes[2:], window.stride, extra, window.reach, wanted[-len(kernel):]))
    if min(total) < 0:
        step.refuse("with an output shape larger than its input reaches is not supported")
    less, more_ = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    begin, end = (less, more_) if auto == "SAME_UPPER" else (more_, less)
    return replace(window, begin=begin, end=end), extra


def _pool(step: Step) -> tuple[Traced, Window, bool]:
    """The value to pool, the window, and whether the last window may hang over the edge."""
    value = step.traced()
    kernel = step.integers("kernel_shape")
    if kernel is None or len(kernel) != value.rank - 2:
        step.refuse("without a kernel_shape of the tensor's spatial rank is not supported")
    window = _window(step, value, kernel)
    ceil = bool(step.integer("ceil_mode", 0)) and step.text("auto_pad", "NOTSET") == "NOTSET"
    return value, window, ceil


def _plain(window: Window) -> bool:
    """Whether torch's pools accept this padding as it is."""
    return window.symmetric and all(2 * pad <= k for pad, k in zip(window.begin, window.kernel))


def _overhang(value: Traced, window: Window, ceil: bool) -> tuple[int, ...]:
    """How far the last window of a ceil-mode pool hangs over the padded edge, a spatial dimension."""
    result = []
    for size, reach, stride, begin, end in zip(value.sizes[2:], window.reach, window.stride, window.begin, window.end):
        steps = -(-(size + begin + end - reach) // stride) if ceil else (size + begin + end - reach) // stride
        # A window that would start in the padding after the data is dropped.
        steps -= int(ceil and steps * stride >= size + begin)
        result.append(max(steps * stride + reach - size - begin - end, 0))
    return tuple(result)


def convert_max_pool(step: Step) -> Traced:
    value, window, ceil = _pool(step)
    kind = choose(step, _MAX, value)
    if _plain(window):
        return step.module(
            kind(window.kernel, window.stride, window.begin, window.dilation, ceil_mode=ceil), value)
    end = tuple(e + o for e, o in zip(window.end, _overhang(value, window, ceil)))
    padded = _padded(step, value, window.begin, end, -math.inf)
    return step.module(kind(window.kernel, window.stride, 0, window.dilation), padded)


def convert_average_pool(step: Step) -> Traced:
    value, window, ceil = _pool(step)
    kind = choose(step, _AVERAGE, value)
    if set(window.dilation) != {1}:
        step.refuse("with dilations is not supported")
    include = bool(step.integer("count_include_pad", 0))
    if _plain(window):
        return step.module(kind(window.kernel, window.stride, window.begin, ceil, include or not any(window.begin)),
                           value)
    overhang = _overhang(value, window, ceil)
    end = tuple(e + o for e, o in zip(window.end, overhang))
    module = kind(window.kernel, window.stride)
    pooled = step.module(module, _padded(step, value, window.begin, end, 0.0))
    # Which cells of the padded plane count in the mean: the data, and the padding when the file says so.
    counted = torch.ones(1, 1, *value.sizes[2:])
    sides = zip(reversed(window.begin), reversed(window.end))
    counted = nn.functional.pad(counted, [side for pair in sides for side in pair], value=float(include))
    counted = nn.functional.pad(counted, [side for extra in reversed(overhang) for side in (0, extra)])
    share = module(counted)
    return pooled if bool((share == 1).all()) else step.function(operator.mul, pooled, share.reciprocal())


def convert_global_average_pool(step: Step) -> Traced:
    value = step.traced()
    return step.module(choose(step, _GLOBAL_AVERAGE, value)(1), value)


def convert_global_max_pool(step: Step) -> Traced:
    value = step.traced()
    return step.module(choose(step, _GLOBAL_MAX, value)(1), value)


def convert_resize(step: Step) -> Traced:
    """Resize and the older Upsample, in the forms that nn.Upsample computes exactly."""
    value = step.traced()
    spatial = value.rank - 2
    scales, sizes = _scales(step, value.rank)
    if any(scale != 1 for scale in scales[:2]) or any(step.integer(n, 0) for n in ("antialias", "exclude_outside")):
        step.refuse("of the batch or channels, with antialias, or with exclude_outside is not supported")
    if step.integers("axes") is not None or step.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        step.refuse("with axes or an aspect ratio policy is not supported")
    mode = step.text("mode", "nearest")
    old = step.operator == "Upsample" or step.opset < 11
    grid = step.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    factor = None if sizes else scales[2:]
    if mode == "nearest":
        _check_nearest(step, grid, step.text("nearest_mode", "floor" if old else "round_prefer_floor"), scales)
        return step.module(nn.Upsample(sizes, factor, "nearest"), value)
    if mode != "linear" or spatial not in (1, 2, 3) or grid not in ("half_pixel", "pytorch_half_pixel",
                                                                    "align_corners"):
        step.refuse(f"with mode {mode!r} and coordinates {grid!r} is not supported")
    linear = ("linear", "bilinear", "trilinear")[spatial - 1]
    return step.module(nn.Upsample(sizes, factor, linear, align_corners=grid == "align_corners"), value)


def _scales(step: Step, rank: int) -> tuple[tuple[float, ...], tuple[int, ...] | None]:
    """The scale of every dimension, and the spatial sizes when the file gives sizes."""
    if "scales" in step.attributes:
        return tuple(float(part) for part in step.attributes["scales"]), None
    old = step.operator == "Upsample" or step.opset < 11
    scales = step.array(1 if old else 2)
    if scales is not None and scales.size == rank:
        return tuple(float(part) for part in scales), None
    pair = None if old else step.pair(3)
    if pair is None or pair[0].size != rank:
        step.refuse("without scales or sizes for every dimension is not supported")
    given = tuple(int(part) for part in pair[0])
    value = step.traced()
    # A size equal to the exported batch keeps the rows; anything else in front would resize the batch.
    first = 1.0 if given[0] in (value.sizes[0], step.builder.fixed) else math.nan
    return (first, *(out / size for out, size in zip(given[1:], value.sizes[1:]))), given[2:]


def _check_nearest(step: Step, grid: str, rounding: str, scales: tuple[float, ...]) -> None:
    """Refuses the nearest-neighbor grids that differ from torch's, which takes the floor of the plain quotient."""
    whole = all(scale >= 1 and scale == int(scale) for scale in scales)
    floor = grid == "asymmetric" and rounding == "floor"
    centered = grid in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round_prefer") and whole
    if not (floor or centered):
        step.refuse(f"to the nearest with coordinates {grid!r} and rounding {rounding!r} is not supported")
