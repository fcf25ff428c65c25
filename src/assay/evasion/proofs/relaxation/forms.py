"""Linear forms over one op's output, held only where they can be nonzero: a window of the map, or all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Form:
    """The coefficients of N linear forms over one op's output.

    Attributes:
        data: ``[N, *shape]`` for the whole output, or ``[N, C, h, w]`` for a window of a ``[C, H, W]`` map.
        rows: ``[N]``, the example each form belongs to, in ascending order.
        shape: the op's per-example output shape.
        origin: ``[N, 2]``, where each window starts (y, x), possibly outside the map; None for the whole output.
            Coefficients at places outside the map are zero.
    """

    data: Tensor
    rows: Tensor
    shape: tuple[int, ...]
    origin: Tensor | None = None

    def pick(self, values: Tensor) -> Tensor:
        """``values [B, K, H, W]`` (or ``[B, *shape]``) laid out like ``data``: each form's example, its own window."""
        if self.origin is None:
            return values.index_select(0, self.rows)
        return crop(values, self.rows, self.origin, (self.data.shape[2], self.data.shape[3]))

    def dot(self, values: Tensor) -> Tensor:
        """``[N]``: each form at its example's value in ``values [B, *shape]``."""
        return total(self.data * self.pick(values))

    def constant_dot(self, values: Tensor) -> Tensor:
        """``[N]``: each form at one value common to all examples, ``values`` broadcastable to ``shape``."""
        if self.origin is not None and values.shape[-2:] != (1, 1):
            return total(self.data * self.pick_constant(values))
        shared = (1,) * (len(self.shape) - values.dim()) + tuple(values.shape)
        # Where the value is shared along a dimension, the sum there comes first: less to multiply.
        folded = [i + 1 for i, size in enumerate(shared) if size == 1]
        return total((self.data.sum(folded, keepdim=True) if folded else self.data) * values)

    def pick_constant(self, values: Tensor) -> Tensor:
        """``values``, broadcastable to ``shape``, laid out so that it broadcasts against ``data``."""
        if self.origin is None or values.numel() == 1 or values.shape[-2:] == (1, 1):
            return values
        everywhere = values.broadcast_to(self.shape).unsqueeze(0)
        return crop(everywhere, torch.zeros_like(self.rows), self.origin, (self.data.shape[2], self.data.shape[3]))

    def whole(self) -> Form:
        """The same forms with their windows put in place on the whole map."""
        if self.origin is None:
            return self
        own = torch.arange(len(self.rows), device=self.rows.device)
        data = crop(self.data, own, -self.origin, (self.shape[1], self.shape[2])).contiguous()
        return replace(self, data=data, origin=None)

    def settle(self) -> Form:
        """These forms without coefficients outside the map, and as whole maps once windows no longer save work."""
        if self.origin is None:
            return self
        height, width = self.shape[1:]
        rows, columns = self.data.shape[2:]
        if 2 * rows * columns > height * width:
            return self.whole()
        inside_y = _inside(self.origin[:, :1], rows, height)
        inside_x = _inside(self.origin[:, 1:], columns, width)
        if bool(inside_y.all()) and bool(inside_x.all()):
            return self
        return replace(self, data=self.data * (inside_y[:, None, :, None] & inside_x[:, None, None, :]))

    def plus(self, other: Form) -> Form:
        """The sum of two sets of forms over the same output of the same examples."""
        if self.origin is None or other.origin is None:
            return replace(self, data=self.whole().data + other.whole().data, origin=None)
        start = torch.minimum(self.origin, other.origin)
        stop = torch.maximum(_end(self), _end(other))
        size = (stop - start).amax(0)
        height, width = int(size[0]), int(size[1])
        own = torch.arange(len(self.rows), device=self.rows.device)
        parts = [crop(form.data, own, start - form.origin, (height, width))
                 for form in (self, other) if form.origin is not None]
        return replace(self, data=parts[0] + parts[1], origin=start).settle()


def total(values: Tensor) -> Tensor:
    """``[N]``: the sum of each of ``values [N, ...]``, whatever their memory layout."""
    return values.sum(tuple(range(1, values.dim())))


def crop(values: Tensor, rows: Tensor, origin: Tensor, size: tuple[int, int]) -> Tensor:
    """Windows of ``values [B, C, H, W]``: ``[N, C, *size]``, the n-th of example ``rows[n]`` from ``origin[n]`` on.

    Places outside the map read as zero. ``rows`` ascends, so that only the examples in use are touched.
    """
    first, last = int(rows[0]), int(rows[-1])
    part = values[first:last + 1]
    count, channels, height, width = part.shape
    # Channels last: one gathered place is one contiguous copy of all its channels.
    places = part.permute(0, 2, 3, 1).reshape(-1, channels)
    places = torch.cat([places, places.new_zeros(1, channels)])
    y, x = _span(origin[:, :1], size[0]), _span(origin[:, 1:], size[1])
    flat = (((rows - first)[:, None] * height + y)[:, :, None] * width) + x[:, None, :]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    flat = torch.where(inside, flat, count * height * width)
    taken = places.index_select(0, flat.reshape(-1))
    return taken.view(len(rows), *size, channels).permute(0, 3, 1, 2)


def _span(start: Tensor, length: int) -> Tensor:
    return start + torch.arange(length, device=start.device)


def _inside(start: Tensor, length: int, limit: int) -> Tensor:
    places = _span(start, length)
    return (places >= 0) & (places < limit)


def _end(form: Form) -> Tensor:
    assert form.origin is not None
    return form.origin + torch.tensor(form.data.shape[2:], device=form.rows.device)
