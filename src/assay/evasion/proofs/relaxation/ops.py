"""The few operations every supported network is rewritten in: how each bounds intervals and pulls linear forms back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import Form, total
from .region import ROUNDING, Box

Pulled = tuple[list[Form], Tensor]
"""Forms over each input of an op, and the ``[N]`` constant they leave behind."""


class Op(Protocol):
    """One operation on values ``[rows, *shape]``, row by row."""

    def apply(self, *values: Tensor) -> Tensor:
        """The operation itself."""
        ...

    def enclose(self, *boxes: Box) -> Box:
        """Interval bounds of the output from interval bounds of the inputs, widened for rounding."""
        ...


@runtime_checkable
class Affine(Op, Protocol):
    """An operation ``z = W x + b``."""

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        """``form . z`` rewritten over the input(s) of this per-example shape."""
        ...

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int] | None:
        """The window of the input that an output window of this size depends on; None for all of it."""
        ...


@runtime_checkable
class Curved(Op, Protocol):
    """An operation bounded above and below by linear ones once the range of its input is known."""

    def needs(self, box: Box) -> Tensor:
        """Which inputs, boolean ``[rows, *shape]``, make the relaxation loose and so deserve tighter bounds."""
        ...

    def relax(self, box: Box, *, parallel: bool) -> Relaxation:
        """Linear bounds valid on ``box``; ``parallel`` asks for a lower slope equal to the upper one."""
        ...


@final
@dataclass(frozen=True)
class Relaxation:
    """``lower . x <= z <= upper . x + shift``, elementwise, or for ``fan > 1`` over each group of ``fan`` channels.

    Attributes:
        lower, upper: slopes like the op's input, ``[rows, *shape]``.
        shift: like the op's output; the lower bound goes through the origin.
        fan: how many input channels one output channel reads.
    """

    lower: Tensor
    upper: Tensor
    shift: Tensor
    fan: int = 1

    def pull(self, form: Form, shape: tuple[int, ...], slopes: Tensor | None = None) -> tuple[Form, Tensor]:
        """A lower bound of ``form . z`` as a form over x and a constant ``[N]`` (CROWN, Zhang et al. 2018, eq. 5-6).

        ``slopes [N, *shape]`` replaces the lower slopes, each form its own: any in [0, 1] are sound for a ReLU.
        """
        negative = form.data.clamp(max=0)
        constant = total(negative * form.pick(self.shift))
        spread = form if self.fan == 1 else replace(form, data=form.data.repeat_interleave(self.fan, 1))
        lower = spread.pick(self.lower) if slopes is None else slopes
        data = spread.data * torch.where(spread.data > 0, lower, spread.pick(self.upper))
        return replace(form, data=data, shape=shape), constant


@final
@dataclass(frozen=True)
class Input:
    """The network's input."""

    def apply(self, *values: Tensor) -> Tensor:
        return values[0]

    def enclose(self, *boxes: Box) -> Box:
        return boxes[0]


@final
@dataclass(frozen=True)
class Dense:
    """``W x + b`` on vectors; ``weight [out, in]``, ``bias [out]``."""

    weight: Tensor
    bias: Tensor

    def apply(self, *values: Tensor) -> Tensor:
        return F.linear(values[0], self.weight, self.bias)

    def enclose(self, *boxes: Box) -> Box:
        radius = F.linear(_wide_half(boxes[0]), self.weight.abs(), _wide_bias(self.bias))
        return _around(self.apply(boxes[0].middle()), radius)

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        return [replace(form, data=form.data @ self.weight, shape=shape)], form.data @ self.bias

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> None:
        return None


@final
@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution with zero padding; ``weight [out, in / groups, kh, kw]``, ``bias [out]``."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def apply(self, *values: Tensor) -> Tensor:
        return F.conv2d(values[0], self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def enclose(self, *boxes: Box) -> Box:
        radius = F.conv2d(_wide_half(boxes[0]), self.weight.abs(), _wide_bias(self.bias), self.stride, self.padding,
                          self.dilation, self.groups)
        return _around(self.apply(boxes[0].middle()), radius)

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        constant = form.data.sum((2, 3)) @ self.bias
        if form.origin is None:
            covered = self.extent((form.shape[1], form.shape[2]), shape)
            extra = (shape[1] + 2 * self.padding[0] - covered[0], shape[2] + 2 * self.padding[1] - covered[1])
            data = F.conv_transpose2d(form.data, self.weight, None, self.stride, self.padding, extra, self.groups,
                                      self.dilation)
            return [replace(form, data=data, shape=shape)], constant
        data = F.conv_transpose2d(form.data, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        origin = form.origin * form.origin.new_tensor(self.stride) - form.origin.new_tensor(self.padding)
        return [Form(data, form.rows, shape, origin).settle()], constant

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
        kernel = self.weight.shape[2:]
        height, width = ((size[i] - 1) * self.stride[i] + self.dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1))
        return height, width


@final
@dataclass(frozen=True)
class Scale:
    """``factor * x + shift`` elementwise; both broadcast to the per-example shape."""

    factor: Tensor
    shift: Tensor

    def apply(self, *values: Tensor) -> Tensor:
        return values[0] * self.factor + self.shift

    def enclose(self, *boxes: Box) -> Box:
        radius = _wide_half(boxes[0]) * self.factor.abs() + _wide_bias(self.shift)
        return _around(self.apply(boxes[0].middle()), radius)

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        data = form.data * form.pick_constant(self.factor)
        return [replace(form, data=data, shape=shape)], form.constant_dot(self.shift)

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
        return size


@final
@dataclass(frozen=True)
class Reshape:
    """The same values in row-major order under another per-example shape."""

    shape: tuple[int, ...]

    def apply(self, *values: Tensor) -> Tensor:
        return values[0].reshape(-1, *self.shape)

    def enclose(self, *boxes: Box) -> Box:
        return Box(self.apply(boxes[0].lower), self.apply(boxes[0].upper))

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        whole = form.whole()
        data = whole.data.reshape(-1, *shape)
        return [replace(whole, data=data, shape=shape)], data.new_zeros(len(data))

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> None:
        return None


@final
@dataclass(frozen=True)
class Sum:
    """``sum_k weights[k] * x_k`` over inputs of one shape: residual connections and differences."""

    weights: tuple[float, ...]

    def apply(self, *values: Tensor) -> Tensor:
        return torch.stack([weight * value for weight, value in zip(self.weights, values)]).sum(0)

    def enclose(self, *boxes: Box) -> Box:
        radius = sum(abs(weight) * _wide_half(box) for weight, box in zip(self.weights, boxes))
        assert isinstance(radius, Tensor)
        return _around(self.apply(*(box.middle() for box in boxes)), radius)

    def pull(self, form: Form, shape: tuple[int, ...]) -> Pulled:
        forms = [form if weight == 1 else replace(form, data=weight * form.data) for weight in self.weights]
        return forms, form.data.new_zeros(len(form.data))

    def extent(self, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
        return size


@final
@dataclass(frozen=True)
class Relu:
    """``max(x, 0)`` elementwise."""

    def apply(self, *values: Tensor) -> Tensor:
        return values[0].relu()

    def enclose(self, *boxes: Box) -> Box:
        return Box(boxes[0].lower.relu(), boxes[0].upper.relu())

    def needs(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def relax(self, box: Box, *, parallel: bool) -> Relaxation:
        """The chord above; below, slope 1 where u >= -l and 0 elsewhere (CROWN), or the chord's slope (Fast-Lin)."""
        lower, upper = box.lower.clamp(max=0), box.upper.clamp(min=0)
        chord = upper / (upper - lower).clamp_min(torch.finfo(upper.dtype).tiny)
        chord = torch.where(box.lower >= 0, 1.0, chord)
        below = chord if parallel else (upper >= -lower).to(upper.dtype) * (chord > 0)
        return Relaxation(below, chord, -chord * lower)


@final
@dataclass(frozen=True)
class GroupMax:
    """The maximum over each group of ``fan`` neighboring channels of a map: max pooling once windows are unfolded.

    Attributes:
        fan: channels in a group.
        valid: boolean ``[1, fan, H, W]``: which members lie on the pooled map; padding never wins.
    """

    fan: int
    valid: Tensor

    def apply(self, *values: Tensor) -> Tensor:
        return self._members(values[0]).amax(2)

    def enclose(self, *boxes: Box) -> Box:
        return Box(self.apply(boxes[0].lower), self.apply(boxes[0].upper))

    def needs(self, box: Box) -> Tensor:
        lower, upper = self._members(box.lower), self._members(box.upper)
        contenders = upper > lower.amax(2, keepdim=True)
        return (contenders & (contenders.sum(2, keepdim=True) > 1)).reshape(box.lower.shape)

    def relax(self, box: Box, *, parallel: bool) -> Relaxation:
        """Below, the member with the largest lower bound. Above, a chord of the member with the largest upper bound.

        With 1 that member, u2 the second largest upper bound and g = max(l1, u2):  max x <= g + s (x1 - l1) with
        s = (u1 - g) / (u1 - l1): it holds for x1 by convexity and for every other member since g >= u2. It never
        exceeds u1, and is x1 itself where 1 dominates.
        """
        lower, upper = self._members(box.lower), self._members(box.upper)
        best = F.one_hot(lower.argmax(2), self.fan).movedim(-1, 2).to(lower.dtype)
        top, order = upper.topk(min(2, self.fan), dim=2)
        first = order[:, :, 0]
        low = lower.gather(2, first.unsqueeze(2)).squeeze(2)
        ground = torch.maximum(low, top[:, :, -1]) if self.fan > 1 else low
        slope = (top[:, :, 0] - ground) / (top[:, :, 0] - low).clamp_min(torch.finfo(low.dtype).tiny)
        slope = torch.where(ground <= low, 1.0, slope)
        above = F.one_hot(first, self.fan).movedim(-1, 2) * slope.unsqueeze(2)
        return Relaxation(best.reshape(box.lower.shape), above.reshape(box.lower.shape), ground - slope * low, self.fan)

    def _members(self, values: Tensor) -> Tensor:
        split = values.reshape(len(values), -1, self.fan, *values.shape[2:])
        return torch.where(self.valid.unsqueeze(1), split, -torch.inf)


def _wide_half(box: Box) -> Tensor:
    half = box.half()
    return half + ROUNDING * torch.finfo(half.dtype).eps * (box.middle().abs() + half)


def _wide_bias(bias: Tensor) -> Tensor:
    return ROUNDING * torch.finfo(bias.dtype).eps * bias.abs()


def _around(middle: Tensor, radius: Tensor) -> Box:
    return Box(middle - radius, middle + radius)
