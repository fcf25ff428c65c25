"""Lp balls met with a box: projections, random points, steepest steps and distances, one radius a row.

Everywhere ``x0`` is the center ``[rows, …]``, ``radius`` is ``[rows]``, and the box is ``[lower, upper]`` with
``x0`` inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from assay.numerics.seeds import Stream


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """``[rows]`` reshaped to broadcast against ``[rows, …]``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def distance(delta: Tensor, norm: float) -> Tensor:
    """The Lp norm of each row, ``[rows]``; ``norm`` 0 counts non-zero coordinates."""
    flat = delta.flatten(1)
    if norm == 0:
        return (flat != 0).sum(1).to(delta.dtype)
    length: Tensor = torch.linalg.vector_norm(flat, ord=norm, dim=1)
    return length


def project_linf(z: Tensor, x0: Tensor, radius: Tensor, lower: float, upper: float) -> Tensor:
    """The nearest point of the ball and the box, exactly: both are intervals."""
    r = rowwise(radius, x0)
    return torch.maximum(torch.minimum(z, x0 + r), x0 - r).clamp_(lower, upper)


def project_l2(z: Tensor, x0: Tensor, radius: Tensor, lower: float, upper: float) -> Tensor:
    """A point of the ball and the box near ``z``: scaled onto the ball, then clamped.

    Clamping moves every coordinate toward ``x0`` or leaves it, so the result stays in the ball.
    """
    delta = z - x0
    length = rowwise(distance(delta, 2), x0)
    shrink = (rowwise(radius, x0) / length.clamp_min(1e-12)).clamp(max=1.0)
    return (x0 + delta * shrink).clamp_(lower, upper)


def project_l1(z: Tensor, x0: Tensor, radius: Tensor, lower: float, upper: float) -> Tensor:
    """The nearest point of the ball and the box, exactly.

    The solution is ``δᵢ = sign(dᵢ)·clip(|dᵢ| − λ, 0, roomᵢ)`` (Croce & Hein, ICML 2021, Prop. 2.1), with λ the root
    of a decreasing piecewise linear function.
    """
    d = (z - x0).flatten(1)
    base = x0.flatten(1)
    room = torch.where(d > 0, upper - base, base - lower)
    size = d.abs()
    excess = torch.minimum(size, room).sum(1) > radius
    lam = torch.zeros_like(radius)
    if bool(excess.any()):
        lam[excess] = _threshold(size[excess], room[excess], radius[excess])
    kept = torch.minimum((size - lam[:, None]).clamp_min(0), room)
    over = kept.sum(1) / radius.clamp_min(torch.finfo(kept.dtype).tiny)  # above 1 by what rounding of λ leaves
    kept = kept / over.clamp_min(1)[:, None] * d.sign()
    return (base + kept).reshape(x0.shape).clamp_(lower, upper)


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """λ with ``Σ clip(size − λ, 0, room) = radius``, where the sum at λ = 0 exceeds ``radius``.

    The sum is ``Σ (size − λ)⁺ − Σ (size − room − λ)⁺``: with both lists sorted and summed up once, it is known at any
    λ by two look-ups, and λ is found by halving and one exact division.
    """
    first, second = _Tail.of(size), _Tail.of((size - room).clamp_min(0))
    radius = radius.double()
    low, high = torch.zeros_like(radius), size.max(1).values.double()
    for _ in range(48):
        middle = (low + high) / 2
        above = first.at(middle)[0] - second.at(middle)[0] > radius
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    (more, count), (less, other) = first.at(low), second.at(low)
    slope = (count - other).clamp_min(1)
    return torch.minimum(low + (more - less - radius) / slope, high).to(size.dtype)


@dataclass(frozen=True, eq=False)
class _Tail:
    """Rows sorted in descending order with their running sums: ``Σ (v − λ)⁺`` by look-up."""

    negated: Tensor
    sums: Tensor

    @classmethod
    def of(cls, values: Tensor) -> _Tail:
        ordered = descending(values)
        zero = ordered.new_zeros(len(ordered), 1, dtype=torch.float64)
        return cls(-ordered, torch.cat([zero, ordered.cumsum(1, dtype=torch.float64)], 1))

    def at(self, level: Tensor) -> tuple[Tensor, Tensor]:
        count = torch.searchsorted(self.negated, -level[:, None].to(self.negated.dtype))
        return self.sums.gather(1, count)[:, 0] - level * count[:, 0], count[:, 0]


def descending(values: Tensor) -> Tensor:
    """Each row sorted, largest first. On the CPU by numpy, whose vectorized sort is many times faster than torch's."""
    if values.device.type != "cpu":
        return values.sort(dim=1, descending=True).values
    return -torch.from_numpy(np.sort(-values.detach().numpy(), axis=1))


def project_l0(z: Tensor, x0: Tensor, radius: Tensor, lower: float, upper: float) -> Tensor:
    """The nearest point that differs from ``x0`` in at most ``radius`` coordinates, exactly."""
    delta = (z.clamp(lower, upper) - x0).flatten(1)
    order = delta.abs().argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=z.device).expand_as(order))
    return (x0.flatten(1) + delta * (rank < radius.floor()[:, None])).reshape(x0.shape).clamp_(lower, upper)


Projection = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
PROJECTIONS: dict[float, Projection] = {float("inf"): project_linf, 2: project_l2, 1: project_l1, 0: project_l0}
"""The projection of each norm."""


def random_delta(x0: Tensor, radius: Tensor, norm: float, width: float, rng: Stream) -> Tensor:
    """A random perturbation, before ball and box are met; ``width`` is the box's.

    Uniform in the cube for Linf, of length ``radius`` for L2. For L1 and L0 Gaussian noise as wide as the box: its
    projection is sparse and differs from start to start, where noise scaled into the ball would be all but zero.
    """
    shape = tuple(x0.shape[1:])
    if norm == float("inf"):
        return (2 * rng.uniform(*shape, dtype=x0.dtype) - 1) * rowwise(radius, x0)
    noise = rng.normal(*shape, dtype=x0.dtype)
    if norm == 2:
        return noise * rowwise(radius / distance(noise, 2).clamp_min(1e-12), x0)
    return noise * width


def steepest(gradient: Tensor, norm: float, *, density: float | Tensor = 0.05) -> Tensor:
    """The direction of unit norm that ascends fastest, ``gradient``'s shape; zero where the gradient is zero.

    For L1 and L0 the exact answer changes a single coordinate; as in Tramèr & Boneh (NeurIPS 2019, SLIDE) the
    largest ``density`` share of coordinates (a number, or ``[rows]``) moves, with equal weight.
    """
    if norm == float("inf"):
        return gradient.sign()
    if norm == 2:
        return gradient / rowwise(distance(gradient, 2).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
    flat = gradient.flatten(1)
    width = flat.shape[1]
    share = torch.as_tensor(density, dtype=torch.float64, device=flat.device).expand(len(flat))
    keep = (share * width).round().long().clamp(1, width)
    floor = descending(flat.abs()).gather(1, (keep - 1)[:, None])
    signs = torch.where(flat.abs() >= floor, flat.sign(), torch.zeros_like(flat))
    weight = 1 / signs.abs().sum(1, keepdim=True).clamp_min(1)
    return (signs * weight).reshape(gradient.shape)


def hyperplane_step(w: Tensor, c: Tensor, lower: Tensor, upper: Tensor, norm: float) -> Tensor:
    """The smallest ``δ`` (in Lp) with ``w·δ = c`` and ``lower ≤ δ ≤ upper``, per row.

    Where the plane cannot be reached inside the box, the point of the box nearest to it; zero where ``w`` is zero.
    Source: Croce & Hein, ICML 2020 (FAB), Eq. 4–6; solved by Newton steps on a concave piecewise linear function,
    whose tangents lie above it, so that no step overshoots.

    Args:
        w: normals, ``[rows, d]``.
        c: offsets, ``[rows]``.
        lower, upper: what each coordinate may change by, ``[rows, d]``, ``lower ≤ 0 ≤ upper``.
        norm: ``inf``, 2 or 1.
    """
    direction = w.sign() * c.sign()[:, None]
    room = torch.where(direction > 0, upper, -lower)
    most = w.abs().amax(1).clamp_min(torch.finfo(w.dtype).tiny)  # scaled, so that squares neither vanish nor explode
    gain, target = w.abs() / most[:, None], c.abs() / most
    if norm == 1:
        return direction * _fill(gain, room, target)
    scale = torch.ones_like(gain) if norm == float("inf") else gain
    t = _climb(gain, scale, room, target)
    return direction * torch.minimum(t[:, None] * scale, room)


def _climb(gain: Tensor, scale: Tensor, room: Tensor, target: Tensor) -> Tensor:
    """The least ``t`` with ``Σ gain·min(t·scale, room) = target`` (or all rooms filled), by Newton steps from below.

    Rows that have arrived leave, so that the slowest does not cost the others anything.
    """
    t, rows = torch.zeros_like(target), torch.arange(len(target), device=target.device)
    weight, tolerance = gain * scale, 4 * torch.finfo(target.dtype).eps
    for _ in range(60):
        here = t[rows]
        wanted = here[:, None] * scale
        short = target - (gain * torch.minimum(wanted, room)).sum(1)
        slope = (weight * (wanted < room)).sum(1)
        ahead = here + short / slope.clamp_min(torch.finfo(t.dtype).tiny)
        ahead = torch.where((short > tolerance * target) & (slope > 0), ahead, here).clamp(max=torch.finfo(t.dtype).max)
        t[rows] = ahead
        moving = ahead != here
        count = int(moving.sum())
        if not count:
            break
        if count < 0.75 * len(rows):
            rows, gain, scale, room, target, weight = (v[moving] for v in (rows, gain, scale, room, target, weight))
    return t


_FEW = 64
"""How many coordinates an L1 step is first tried with: sorting all of them is what it would cost."""


def _fill(gain: Tensor, room: Tensor, target: Tensor) -> Tensor:
    """Move the coordinates of largest gain to their limits, and the last one just as far as needed."""
    few = min(_FEW, gain.shape[1])
    moved, reached = _fill_first(gain, room, target, few)
    rest = ~reached
    if few < gain.shape[1] and bool(rest.any()):
        moved[rest] = _fill_first(gain[rest], room[rest], target[rest], gain.shape[1])[0]
    return moved


def _fill_first(gain: Tensor, room: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    g, order = gain.topk(count, dim=1)
    r = room.gather(1, order)
    got = (g * r).cumsum(1)
    before = torch.cat([torch.zeros_like(got[:, :1]), got[:, :-1]], 1)
    need = ((target[:, None] - before) / g.clamp_min(torch.finfo(g.dtype).tiny)).clamp_min(0)
    return torch.zeros_like(gain).scatter_(1, order, torch.minimum(need, r)), got[:, -1] >= target
