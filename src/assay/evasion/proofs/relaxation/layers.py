"""How each supported torch layer, function and method is rewritten in canonical operations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import TargetError

from .ops import Convolution, Dense, GroupMax, Relu, Reshape, Scale, Sum
from .reading import Builder, Call, Extent, Signal, map_constant, map_shape

Handler = Callable[[Builder, Call], Signal]


def _same(_: Builder, call: Call) -> Signal:
    return call.signal()


def _dropout(_: Builder, call: Call) -> Signal:
    active = call.layer.training if call.layer is not None else call.argument(2, "training", True)
    if active:
        raise TargetError("PRF102", f"{call.name} is in training mode", where=call.node)
    return call.signal()


def _relu(build: Builder, call: Call) -> Signal:
    return build.add(Relu(), (call.signal(),), call.shape, call.node)


def _reshape(build: Builder, call: Call) -> Signal:
    return build.add(Reshape(map_shape(call.shape)), (call.signal(),), call.shape, call.node)


def _linear(build: Builder, call: Call) -> Signal:
    if isinstance(call.layer, nn.Linear):
        weight, bias = call.layer.weight, call.layer.bias
    else:
        weight, bias = call.argument(1, "weight", None), call.argument(2, "bias", None)
    given = call.signal()
    if len(given.shape) != 1:
        raise call.refuse(f"a linear layer on shape {given.shape}; flatten it first")
    return build.add(Dense(_frozen(weight), _bias(weight, bias)), (given,), call.shape, call.node)


def _convolution(build: Builder, call: Call) -> Signal:
    layer = call.layer
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if layer.padding_mode != "zeros":
            raise call.refuse(f"padding_mode {layer.padding_mode!r}")
        settings: tuple[Any, ...] = (layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation,
                                     layer.groups)
    else:
        names = (("weight", None), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
        settings = tuple(call.argument(i + 1, name, default) for i, (name, default) in enumerate(names))
    weight, bias, stride, padding, dilation, groups = settings
    flat = weight.dim() == 3
    steps = _pair(dilation, flat, 1)
    kernel = _frozen(weight).unsqueeze(2) if flat else _frozen(weight)
    op = Convolution(kernel, _bias(weight, bias), _pair(stride, flat, 1), _padding(call, padding, kernel, steps, flat),
                     steps, groups)
    return build.add(op, (call.signal(),), call.shape, call.node)


def _padding(call: Call, padding: Any, kernel: Tensor, dilation: tuple[int, int], flat: bool) -> tuple[int, int]:
    if padding == "valid":
        return (0, 0)
    if padding == "same":
        total = [dilation[i] * (kernel.shape[2 + i] - 1) for i in (0, 1)]
        if any(t % 2 for t in total):
            raise call.refuse("padding 'same' with an even kernel")
        return (total[0] // 2, total[1] // 2)
    return _pair(padding, flat, 0)


def _batch_norm(build: Builder, call: Call) -> Signal:
    layer = call.layer
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise TargetError("PRF102", f"{call.name} normalizes by the batch", where=call.node)
    factor = (layer.running_var + layer.eps).rsqrt()
    factor = factor if layer.weight is None else factor * layer.weight
    shift = -layer.running_mean * factor
    shift = shift if layer.bias is None else shift + layer.bias
    spread = (-1, *[1] * (len(map_shape(call.shape)) - 1))
    op = Scale(_frozen(factor).view(spread), _frozen(shift).view(spread))
    return build.add(op, (call.signal(),), call.shape, call.node)


def _average_pool(build: Builder, call: Call) -> Signal:
    given = call.signal()
    flat = len(given.shape) == 2
    kernel = _pair(_setting(call, 1, "kernel_size", None), flat, 1)
    stride = _pair(_setting(call, 2, "stride", None) or kernel[flat:], flat, 1)
    padding = _pair(_setting(call, 3, "padding", 0), flat, 0)
    if _setting(call, 4, "ceil_mode", False) or _setting(call, 6, "divisor_override", None):
        raise call.refuse("ceil_mode or divisor_override")
    if any(padding) and not _setting(call, 5, "count_include_pad", True):
        raise call.refuse("padding with count_include_pad=False")
    return _average(build, call, given, kernel, stride, padding)


def _average(build: Builder, call: Call, given: Signal, kernel: tuple[int, int], stride: tuple[int, int],
             padding: tuple[int, int], shape: tuple[int, ...] | None = None) -> Signal:
    channels = given.shape[0]
    weight = build.like.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    op = Convolution(weight, weight.new_zeros(channels), stride, padding, (1, 1), channels)
    return build.add(op, (given,), call.shape if shape is None else shape, call.node)


def _adaptive_average_pool(build: Builder, call: Call) -> Signal:
    given = call.signal()
    have, want = map_shape(given.shape)[1:], map_shape(call.shape)[1:]
    if any(h % w for h, w in zip(have, want)):
        raise call.refuse(f"adaptive pooling from {have} to {want}, which does not divide it")
    size = (have[0] // want[0], have[1] // want[1])
    return _average(build, call, given, size, size, (0, 0))


def _mean(build: Builder, call: Call) -> Signal:
    given = call.signal()
    dims = call.argument(1, "dim", None)
    rank = len(given.shape) + 1
    named = {d % rank for d in ([dims] if isinstance(dims, int) else dims or ())}
    if rank < 3 or named != set(range(2, rank)):
        raise call.refuse("a mean over anything but all places of a map")
    inner = map_shape(given.shape)
    pooled = (given.shape[0], *[1] * (rank - 2))
    average = _average(build, call, given, (inner[1], inner[2]), (1, 1), (0, 0), pooled)
    return build.add(Reshape(map_shape(call.shape)), (average,), call.shape, call.node)


def _max_pool(build: Builder, call: Call) -> Signal:
    """Unfold the windows into channels by a convolution of unit kernels, then take the maximum over each group."""
    given = call.signal()
    flat = len(given.shape) == 2
    kernel = _pair(_setting(call, 1, "kernel_size", None), flat, 1)
    stride = _pair(_setting(call, 2, "stride", None) or kernel[flat:], flat, 1)
    padding = _pair(_setting(call, 3, "padding", 0), flat, 0)
    dilation = _pair(_setting(call, 4, "dilation", 1), flat, 1)
    if _setting(call, 5, "ceil_mode", False) or _setting(call, 6, "return_indices", False):
        raise call.refuse("ceil_mode or return_indices")
    fan, channels = kernel[0] * kernel[1], given.shape[0]
    unit = torch.eye(fan).to(build.like).view(fan, 1, *kernel)
    weight = unit.repeat(channels, 1, 1, 1)
    unfold = Convolution(weight, weight.new_zeros(len(weight)), stride, padding, dilation, channels)
    unfolded = build.add(unfold, (given,), (channels * fan, *call.shape[1:]), call.node)
    inside = F.conv2d(unit.new_ones(1, 1, *map_shape(given.shape)[1:]), unit, None, stride, padding, dilation)
    return build.add(GroupMax(fan, inside > 0), (unfolded,), call.shape, call.node)


def _add(build: Builder, call: Call) -> Signal:
    return _combine(build, call, 1.0, call.argument(2, "alpha", 1))


def _subtract(build: Builder, call: Call) -> Signal:
    return _combine(build, call, 1.0, -call.argument(2, "alpha", 1))


def _combine(build: Builder, call: Call, left: float, right: float) -> Signal:
    """``left * a + right * b``, where either may be a constant."""
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    if isinstance(a, Signal) and isinstance(b, Signal):
        if a.shape != b.shape:
            raise call.refuse(f"shapes {a.shape} and {b.shape} differ")
        return build.add(Sum((left, right)), (a, b), call.shape, call.node)
    if isinstance(a, Signal):
        return _scale(build, call, a, left, _times(b, right))
    return _scale(build, call, b, right, _times(a, left))


def _multiply(build: Builder, call: Call) -> Signal:
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    if isinstance(a, Signal) and isinstance(b, Signal):
        raise TargetError("PRF100", f"{call.name} of two tensors has no linear relaxation here", where=call.node)
    return _scale(build, call, a, b, 0.0) if isinstance(a, Signal) else _scale(build, call, b, a, 0.0)


def _divide(build: Builder, call: Call) -> Signal:
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    if not isinstance(a, Signal) or isinstance(b, Signal | Extent) or call.kwargs.get("rounding_mode"):
        raise TargetError("PRF100", f"{call.name} by what depends on the input, or rounded, has no linear relaxation",
                          where=call.node)
    return _scale(build, call, a, 1 / b, 0.0)


def _negate(build: Builder, call: Call) -> Signal:
    return _scale(build, call, call.signal(), -1.0, 0.0)


def _scale(build: Builder, call: Call, given: Any, factor: Any, shift: Any) -> Signal:
    if not isinstance(given, Signal) or isinstance(factor, Extent) or isinstance(shift, Extent):
        raise call.refuse("arithmetic on a size")
    parts = [map_constant(torch.as_tensor(part).to(build.like), given.shape) for part in (factor, shift)]
    if parts[0] is None or parts[1] is None or call.shape != given.shape:
        raise call.refuse(f"a constant that does not broadcast to shape {given.shape}")
    return build.add(Scale(parts[0], parts[1]), (given,), call.shape, call.node)


def _times(value: Any, factor: float) -> Any:
    return value if isinstance(value, Extent) else factor * value


def _setting(call: Call, position: int, name: str, default: Any) -> Any:
    return getattr(call.layer, name, default) if call.layer is not None else call.argument(position, name, default)


def _pair(value: Any, flat: bool, fill: int) -> tuple[int, int]:
    """A setting as (vertical, horizontal); for one-dimensional maps ``fill`` is the vertical one."""
    sizes = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    if flat:
        return (fill, sizes[0])
    return (sizes[0], sizes[-1])


def _frozen(value: Tensor) -> Tensor:
    return value.detach().clone()


def _bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    return weight.detach().new_zeros(len(weight)) if bias is None else _frozen(bias)


MODULES: Mapping[Any, Handler] = MappingProxyType({
    nn.Linear: _linear, nn.Conv1d: _convolution, nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm, nn.BatchNorm2d: _batch_norm, nn.ReLU: _relu,
    nn.AvgPool1d: _average_pool, nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool1d: _adaptive_average_pool, nn.AdaptiveAvgPool2d: _adaptive_average_pool,
    nn.MaxPool1d: _max_pool, nn.MaxPool2d: _max_pool,
    nn.Flatten: _reshape, nn.Unflatten: _reshape, nn.Identity: _same,
    nn.Dropout: _dropout, nn.Dropout1d: _dropout, nn.Dropout2d: _dropout,
})
FUNCTIONS: Mapping[Any, Handler] = MappingProxyType({
    torch.relu: _relu, F.relu: _relu, F.linear: _linear,
    F.conv1d: _convolution, F.conv2d: _convolution, torch.conv1d: _convolution, torch.conv2d: _convolution,
    F.avg_pool1d: _average_pool, F.avg_pool2d: _average_pool,
    F.adaptive_avg_pool1d: _adaptive_average_pool, F.adaptive_avg_pool2d: _adaptive_average_pool,
    F.max_pool1d: _max_pool, F.max_pool2d: _max_pool, torch.max_pool1d: _max_pool, torch.max_pool2d: _max_pool,
    torch.flatten: _reshape, torch.reshape: _reshape, torch.squeeze: _reshape, torch.unsqueeze: _reshape,
    torch.mean: _mean, F.dropout: _dropout,
    operator.add: _add, operator.iadd: _add, torch.add: _add,
    operator.sub: _subtract, operator.isub: _subtract, torch.sub: _subtract,
    operator.mul: _multiply, operator.imul: _multiply, torch.mul: _multiply,
    operator.truediv: _divide, operator.itruediv: _divide, torch.div: _divide,
    operator.neg: _negate, torch.neg: _negate,
})
METHODS: Mapping[str, Handler] = MappingProxyType({
    "relu": _relu, "relu_": _relu, "flatten": _reshape, "view": _reshape, "reshape": _reshape, "squeeze": _reshape,
    "unsqueeze": _reshape, "contiguous": _same, "clone": _same, "detach": _same, "mean": _mean,
    "add": _add, "add_": _add, "sub": _subtract, "sub_": _subtract, "mul": _multiply, "mul_": _multiply,
    "div": _divide, "div_": _divide, "neg": _negate,
})
