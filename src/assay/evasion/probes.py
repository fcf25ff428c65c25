"""What a target that declares nothing does to its gradients, found by looking: the ground of adaptive attacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from assay.evasion.objectives import margin
from assay.evasion.threat import Ball
from assay.numerics.balls import rowwise
from assay.numerics.seeds import Stream
from assay.targets.base import WhiteBox
from assay.targets.defended import Parts
from assay.targets.pytorch import TorchTarget

SAMPLE = 32
_REPEATS = 8
_SHARE = 0.5
"""The least share of the promised gain that a gradient has to keep over a short way, for most points."""


@dataclass(frozen=True)
class Diagnosis:
    """What probing found.

    Attributes:
        parts: what an adaptive attack has to reckon with.
        dead_layers: layers through which no gradient passes although one arrives, and whose shape is kept.
        kept: the median share of the gain that gradients promise over a short way which is really there.
        rugged: the median share of a ray's length that its loss spends going up and down.
        width: the length scale at which gradients should be averaged, where they are shattered.
    """

    parts: Parts
    dead_layers: tuple[str, ...]
    kept: float
    rugged: float
    width: float

    @property
    def shattered(self) -> bool:
        """Whether gradients do not say where the loss rises over the distances that an attack moves."""
        return self.kept < _SHARE and not self.dead_layers


def diagnose(target: WhiteBox, x: Tensor, y: Tensor, ball: Ball, rng: Stream) -> Diagnosis:
    """Looks at the points ``x`` with labels ``y``: repeats, rays, finite differences, and gradients layer by layer."""
    with torch.random.fork_rng(devices=[]):
        varies = not torch.equal(target.scores(x), target.scores(x))
        dead = dead_layers(target, x, y)
        way = _way(ball, x)
        kept, rugged = _along(target, x, y, ball, way, rng, _REPEATS if varies else 1)
    width = float((way / x[0].numel() ** 0.5).median()) if ball.norm != float("inf") else float(way.median())
    return Diagnosis(Parts(surrogate=bool(dead), randomness=varies), dead, kept, rugged, width)


def _way(ball: Ball, x: Tensor) -> Tensor:
    """A quarter of the radius: what an attack moves in a few steps, ``[rows]``."""
    typical = {float("inf"): 0.1, 2.0: 1.0, 1.0: 5.0, 0.0: 5.0}[ball.norm]
    return torch.full((len(x),), min(ball.radius, typical) / 4, dtype=x.dtype, device=x.device)


def _along(
    target: WhiteBox, x: Tensor, y: Tensor, ball: Ball, way: Tensor, rng: Stream, repeats: int
) -> tuple[float, float]:
    """How much of the promised gain is there, and how rugged the loss is along the gradient and along a random ray."""
    graded = _mean_graded(target, x, y, repeats)
    gradient = torch.nan_to_num(graded.gradient)
    step = ball.steepest(gradient) * rowwise(way, x)
    promised = (gradient * step).flatten(1).sum(1)
    random = ball.steepest(rng.fold("ray").normal(*x.shape[1:], dtype=x.dtype)) * rowwise(way, x)
    rays = [_ray(target, x, ray, y, repeats) for ray in (step, random)]
    gained = rays[0][-1] - rays[0][0]
    kept = torch.where(promised > 0, gained / promised.clamp_min(1e-30), torch.zeros_like(gained))
    return float(kept.median()), float(torch.stack([_turning(ray) for ray in rays]).median())


def _turning(ray: Tensor) -> Tensor:
    """One less what a ray climbs or falls in all, over the sum of its ups and downs: 0 for a monotone one."""
    steps = ray.diff(dim=0)
    return 1 - (ray[-1] - ray[0]).abs() / steps.abs().sum(0).clamp_min(1e-30)


def _ray(target: WhiteBox, x: Tensor, ray: Tensor, y: Tensor, repeats: int) -> Tensor:
    """The mean margin at nine places along each row's ray, ``[9, rows]``."""
    z = torch.cat([(x + share / 8 * ray).clamp(*target.bounds) for share in range(9)])
    looks = [margin(target.scores(z), y.repeat(9)) for _ in range(repeats)]
    return torch.stack(looks).mean(0).reshape(9, len(x))


def _mean_graded(target: WhiteBox, x: Tensor, y: Tensor, repeats: int) -> Any:
    looks = [target.graded(x, margin, y) for _ in range(repeats)]
    return looks[0]._replace(gradient=torch.stack([look.gradient for look in looks]).mean(0))


def dead_layers(target: WhiteBox, x: Tensor, y: Tensor) -> tuple[str, ...]:
    """Leaf layers that get a gradient at their output and pass none to their input, though they keep the shape."""
    own = target if isinstance(target, TorchTarget) else getattr(target, "surrogate", None)
    if not isinstance(own, TorchTarget):
        return ()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    with _recorded(own.pipeline, seen), torch.enable_grad():
        leaf = x.detach().requires_grad_()
        loss = margin(own.pipeline(leaf), y).sum()
        found = []
        for name, (before, after) in seen.items():
            if not (before.requires_grad and before.shape == after.shape):
                continue
            if not after.requires_grad or (loss.requires_grad and _dead(loss, before, after)):
                found.append(name)
    return tuple(found)


def _dead(loss: Tensor, before: Tensor, after: Tensor) -> bool:
    arriving, passed = torch.autograd.grad(loss, (after, before), retain_graph=True, allow_unused=True)
    arrives = arriving is not None and bool((arriving != 0).any())
    return arrives and (passed is None or not bool((passed != 0).any()))


@contextmanager
def _recorded(module: nn.Module, seen: dict[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Inside, every leaf layer's first input and output are kept, by its name."""

    def recording(name: str) -> Any:
        def keep(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                seen.setdefault(name, (inputs[0], output))

        return keep

    leaves = [(name, m) for name, m in module.named_modules() if name and not any(True for _ in m.children())]
    hooks = [cast(Any, m.register_forward_hook(recording(name))) for name, m in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
