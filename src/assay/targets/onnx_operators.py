"""ONNX operators as standard torch modules and functions: one small converter each, and the table of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from assay.targets import onnx_shapes as shapes
from assay.targets import onnx_windows as windows
from assay.targets.onnx_trace import Known, Operand, Step, Traced, Value, loaded

Converter: TypeAlias = Callable[[Step], Value | tuple[Value, ...]]


# ---- products -------------------------------------------------------------------------------------------------


def _linear(step: Step, value: Traced, weight: Tensor, bias: Tensor | None) -> Traced:
    """``value @ weight.T + bias`` as a module; ``weight`` is ``[out, in]``."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    state = {"weight": weight.contiguous()} if bias is None else {"weight": weight.contiguous(), "bias": bias}
    return step.module(loaded(module, state), value)


def _bias(constant: Tensor, rank: int, count: int) -> Tensor | None:
    """A constant that adds the same ``count`` numbers to every row, as a vector; ``None`` when it does more."""
    vector = constant.ndim <= rank and constant.numel() == (constant.shape[-1] if constant.ndim else 1)
    return constant.reshape(-1).expand(count).clone() if vector and constant.numel() in (1, count) else None


def convert_gemm(step: Step) -> Traced:
    alpha, beta = step.number("alpha", 1.0), step.number("beta", 1.0)
    left, right, extra = step.operand(0, 0), step.operand(1, 0), step.value(2)
    if isinstance(left, Traced) and step.integer("transA", 0):
        left = step.function(torch.transpose, left, 0, 1)
    if not (isinstance(left, Traced) and isinstance(right, Tensor)):
        return _gemm_of_two(step, left, right, alpha, beta)
    weight = (right if step.integer("transB", 0) else right.T) * alpha
    if extra is None:
        return _linear(step, left, weight, None)
    bias = None if isinstance(extra, Traced) else _bias(step.tensor(2) * beta, 2, weight.shape[0])
    product = _linear(step, left, weight, bias)
    return product if bias is not None else _plus_scaled(step, product, beta)


def _gemm_of_two(step: Step, left: Operand, right: Operand, alpha: float, beta: float) -> Traced:
    """A product whose second factor is not a weight."""
    if isinstance(left, Tensor) and step.integer("transA", 0):
        left = left.T.contiguous()
    if isinstance(right, Traced) and step.integer("transB", 0):
        right = step.function(torch.transpose, right, 0, 1)
    product = step.function(torch.matmul, left, right)
    product = product if alpha == 1 else step.function(operator.mul, product, alpha)
    return product if step.value(2) is None else _plus_scaled(step, product, beta)


def _plus_scaled(step: Step, product: Traced, beta: float) -> Traced:
    extra = step.operand(2, 2)
    if beta != 1:
        extra = step.function(operator.mul, extra, beta) if isinstance(extra, Traced) else extra * beta
    return step.function(operator.add, product, extra)


def convert_matmul(step: Step) -> Traced:
    left, right = step.operand(0, 0), step.operand(1, 0)
    if isinstance(left, Traced) and isinstance(right, Tensor) and right.ndim == 2 and left.rank >= 2:
        return _linear(step, left, right.T, None)
    return step.function(torch.matmul, left, right)


# ---- elementwise arithmetic -----------------------------------------------------------------------------------


def convert_add(step: Step) -> Traced:
    """Addition; a constant added to a product becomes the bias of its nn.Linear."""
    for index, other in ((0, 1), (1, 0)):
        value = step.value(index)
        if isinstance(value, Traced) and step.fusable[index] and isinstance(step.value(other), Known):
            module = step.builder.root.get_submodule(str(value.node.target)) if value.node.op == "call_module" else None
            if isinstance(module, nn.Linear):
                bias = _bias(step.tensor(other), value.rank, module.out_features)
                if bias is not None:
                    module.bias = nn.Parameter(bias)
                    return value
    return step.function(operator.add, *step.operands())


def _binary(function: Callable[..., Any]) -> Converter:
    return lambda step: step.function(function, *step.operands())


def _unary(function: Callable[..., Any]) -> Converter:
    return lambda step: step.function(function, step.traced())


def convert_sum(step: Step) -> Traced:
    total, *others = sorted(step.operands(), key=lambda value: not isinstance(value, Traced))
    for other in others:
        total = step.function(operator.add, total, other)
    return _only_traced(step, total)


def _only_traced(step: Step, value: Operand) -> Traced:
    return value if isinstance(value, Traced) else step.refuse("of constants alone is not supported")


def _extreme(function: Callable[..., Any], largest: bool) -> Converter:
    """Max or Min of several tensors; against one number it is a clamp, and Max against 0 a ReLU."""

    def convert(step: Step) -> Traced:
        result, *others = sorted(step.operands(), key=lambda value: not isinstance(value, Traced))
        best = _only_traced(step, result)
        for other in others:
            if not isinstance(other, float):
                best = step.function(function, best, other)
            else:
                best = _clamped(step, best, other if largest else None, None if largest else other)
        return best

    return convert


def _clamped(step: Step, value: Traced, low: float | None, high: float | None) -> Traced:
    """The plainest module for a clamp."""
    if low == 0 and high is None:
        return step.module(nn.ReLU(), value)
    if low == 0 and high == 6:
        return step.module(nn.ReLU6(), value)
    if low is not None and high is not None and low < high:
        return step.module(nn.Hardtanh(low, high), value)
    return value if low is None and high is None else step.function(torch.clamp, value, low, high)


def convert_clip(step: Step) -> Traced:
    low = step.attributes.get("min", step.scalar(1))
    high = step.attributes.get("max", step.scalar(2))
    # Opsets before 11 spell "no bound" as the largest float32.
    limit = float(np.finfo(np.float32).max)
    return _clamped(step, step.traced(), None if low is None or low <= -limit else float(low),
                    None if high is None or high >= limit else float(high))


def convert_where(step: Step) -> Traced:
    """A choice between two tensors by a constant or computed condition."""
    condition = step.value(0)
    chosen = condition if isinstance(condition, Traced) else step.tensor(0)
    rank = max(value.rank for value in step.inputs if isinstance(value, Traced))
    return step.function(torch.where, chosen, step.operand(1, rank), step.operand(2, rank))


# ---- activations ----------------------------------------------------------------------------------------------


def _activation(make: Callable[[Step], nn.Module]) -> Converter:
    return lambda step: step.module(make(step), step.traced())


def convert_prelu(step: Step) -> Traced:
    value, slope = step.traced(), step.tensor(1)
    channels = value.sizes[1] if value.rank > 1 else 1
    full = slope.reshape((1,) * (value.rank - slope.ndim) + tuple(slope.shape)) if slope.ndim <= value.rank else slope
    per_channel = full.numel() == 1 or (full.numel() == channels and full.ndim > 1 and full.shape[1] == channels)
    if not per_channel:
        negative = step.function(torch.neg, step.module(nn.ReLU(), step.function(torch.neg, value)))
        return step.function(operator.add, step.module(nn.ReLU(), value), step.function(operator.mul, negative, slope))
    return step.module(loaded(nn.PReLU(full.numel(), device="meta"), {"weight": full.reshape(-1)}), value)


def convert_selu(step: Step) -> Traced:
    alpha, gamma = step.number("alpha", 1.67326319217681884765625), step.number("gamma", 1.05070102214813232421875)
    if math.isclose(alpha, 1.6732632, rel_tol=1e-6) and math.isclose(gamma, 1.0507010, rel_tol=1e-6):
        return step.module(nn.SELU(), step.traced())
    return step.function(operator.mul, step.module(nn.ELU(alpha), step.traced()), gamma)


def convert_hard_sigmoid(step: Step) -> Traced:
    alpha, beta, value = step.number("alpha", 0.2), step.number("beta", 0.5), step.traced()
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return step.module(nn.Hardsigmoid(), value)
    line = step.function(operator.add, step.function(operator.mul, value, alpha), beta)
    return step.module(nn.Hardtanh(0.0, 1.0), line)


def _softmax(kind: Callable[[int], nn.Module]) -> Converter:
    """Softmax or LogSoftmax; before opset 13 it runs over all dimensions from the axis on, as one."""

    def convert(step: Step) -> Traced:
        value = step.traced()
        axis = step.axis(1 if step.opset < 13 else -1, value.rank)
        if step.opset >= 13 or math.prod(value.sizes[axis + 1:]) == 1:
            return step.module(kind(axis), value)
        if value.batch_axes and value.batch_axes[0] >= axis:
            step.mixes(f"over axis {axis} runs across the batch")
        flat = step.function(torch.flatten, value, axis)
        return shapes.reshaped(step, step.module(kind(axis), flat), shapes.fixed_sizes(step, value))

    return convert


# ---- normalization --------------------------------------------------------------------------------------------


def convert_batch_norm(step: Step) -> Traced:
    value = step.traced()
    if step.integer("training_mode", 0) or not step.integer("spatial", 1):
        step.refuse("in training mode or without spatial sharing is not supported")
    if not 2 <= value.rank <= 5:
        step.refuse(f"on a tensor with {value.rank} dimensions is not supported")
    kinds: tuple[Callable[..., nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    names = ("weight", "bias", "running_mean", "running_var")
    state = {name: step.tensor(index) for index, name in enumerate(names, 1)}
    module = kinds[value.rank - 2](len(state["weight"]), eps=step.number("epsilon", 1e-5), device="meta")
    return step.module(loaded(module, {**state, "num_batches_tracked": torch.tensor(0)}), value)


def convert_instance_norm(step: Step) -> Traced:
    value, scale = step.traced(), step.tensor(1)
    kinds: tuple[Callable[..., nn.Module], ...] = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    kind = windows.choose(step, kinds, value)
    module = kind(len(scale), eps=step.number("epsilon", 1e-5), affine=True, device="meta")
    return step.module(loaded(module, {"weight": scale, "bias": step.tensor(2)}), value)


def convert_layer_norm(step: Step) -> Traced:
    value = step.traced()
    shape = value.sizes[step.axis(-1, value.rank):]
    if any(axis >= value.rank - len(shape) for axis in value.batch_axes):
        step.mixes("normalizes across the batch")
    bias = step.optional(2)
    module = nn.LayerNorm(shape, eps=step.number("epsilon", 1e-5), bias=bias is not None, device="meta")
    state = {"weight": step.tensor(1).expand(shape).clone()}
    return step.module(loaded(module, state if bias is None else {**state, "bias": bias.expand(shape).clone()}), value)


def convert_lrn(step: Step) -> Traced:
    size = step.integer("size", 1)
    if size % 2 == 0:
        step.refuse("over an even number of channels is not supported")
    module = nn.LocalResponseNorm(size, step.number("alpha", 1e-4), step.number("beta", 0.75), step.number("bias", 1.0))
    return step.module(module, step.traced())


# ---- reductions -----------------------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any], *order: int) -> Converter:
    """Mean, sum, maximum, ... over dimensions; a batch of one row that is kept is reduced by leaving it alone."""

    def convert(step: Step) -> Traced:
        value, axes, keep = step.traced(), step.integers("axes", 1), bool(step.integer("keepdims", 1))
        if not axes and step.integer("noop_with_empty_axes", 0):
            return value
        chosen = [axis % value.rank for axis in axes] if axes else list(range(value.rank))
        if any(axis in value.batch_axes for axis in chosen):
            if not keep or step.builder.fixed != 1:
                step.mixes("reduces over the batch")
            chosen = [axis for axis in chosen if axis not in value.batch_axes]
        return step.function(function, value, *order, chosen, keep) if chosen else value

    return convert


# ---- passing through ------------------------------------------------------------------------------------------


def convert_identity(step: Step) -> Traced:
    return step.traced()


def convert_dropout(step: Step) -> Traced:
    training = step.array(2)
    if training is not None and training.any():
        step.refuse("in training mode is not supported")
    return step.traced()


def convert_cast(step: Step) -> Traced:
    # TensorProto's FLOAT, FLOAT16, DOUBLE and BFLOAT16: the import computes all of them in float32.
    if step.integer("to", 1) not in (1, 10, 11, 16):
        step.refuse("of computed values to integers or Booleans is not supported")
    value = step.traced()
    return value if value.probes[0].is_floating_point() else step.function(torch.where, value, 1.0, 0.0)


CONVERTERS: Mapping[str, Converter] = MappingProxyType({
    "Abs": _unary(torch.abs),
    "Add": convert_add,
    "AveragePool": windows.convert_average_pool,
    "BatchNormalization": convert_batch_norm,
    "Cast": convert_cast,
    "Celu": _activation(lambda step: nn.CELU(step.number("alpha", 1.0))),
    "Clip": convert_clip,
    "Concat": shapes.convert_concat,
    "Conv": windows.convert_conv,
    "ConvTranspose": windows.convert_conv_transpose,
    "Div": _binary(operator.truediv),
    "Dropout": convert_dropout,
    "Elu": _activation(lambda step: nn.ELU(step.number("alpha", 1.0))),
    "Equal": _binary(operator.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": shapes.convert_expand,
    "Flatten": shapes.convert_flatten,
    "Gather": shapes.convert_gather,
    "Gelu": _activation(lambda step: nn.GELU(step.text("approximate", "none"))),
    "Gemm": convert_gemm,
    "GlobalAveragePool": windows.convert_global_average_pool,
    "GlobalMaxPool": windows.convert_global_max_pool,
    "Greater": _binary(operator.gt),
    "GreaterOrEqual": _binary(operator.ge),
    "HardSigmoid": convert_hard_sigmoid,
    "HardSwish": _activation(lambda step: nn.Hardswish()),
    "Identity": convert_identity,
    "InstanceNormalization": convert_instance_norm,
    "LRN": convert_lrn,
    "LayerNormalization": convert_layer_norm,
    "LeakyRelu": _activation(lambda step: nn.LeakyReLU(step.number("alpha", 0.01))),
    "Less": _binary(operator.lt),
    "LessOrEqual": _binary(operator.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "MatMul": convert_matmul,
    "Max": _extreme(torch.maximum, largest=True),
    "MaxPool": windows.convert_max_pool,
    "Min": _extreme(torch.minimum, largest=False),
    "Mish": _activation(lambda step: nn.Mish()),
    "Mul": _binary(operator.mul),
    "Neg": _unary(operator.neg),
    "PRelu": convert_prelu,
    "Pad": shapes.convert_pad,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduction(torch.linalg.vector_norm, 2),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _activation(lambda step: nn.ReLU()),
    "Reshape": shapes.convert_reshape,
    "Resize": windows.convert_resize,
    "Selu": convert_selu,
    "Shape": shapes.convert_shape,
    "Sigmoid": _activation(lambda step: nn.Sigmoid()),
    "Size": shapes.convert_size,
    "Slice": shapes.convert_slice,
    "Softmax": _softmax(nn.Softmax),
    "Softplus": _activation(lambda step: nn.Softplus()),
    "Softsign": _activation(lambda step: nn.Softsign()),
    "Split": shapes.convert_split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": shapes.convert_squeeze,
    "Sub": _binary(operator.sub),
    "Sum": convert_sum,
    "Tanh": _activation(lambda step: nn.Tanh()),
    "Transpose": shapes.convert_transpose,
    "Unsqueeze": shapes.convert_unsqueeze,
    "Upsample": windows.convert_resize,
    "Where": convert_where,
})
