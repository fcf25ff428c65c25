"""DDN: the direction and the length of a perturbation, decoupled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import objective
from assay.evasion.attacks.nearest import Rows, Search
from assay.evasion.threat import Ball
from assay.numerics.balls import distance, rowwise, steepest
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, eq=False)
class _Rows(Rows):
    radius: Tensor
    """How long the perturbation is."""
    inside: Tensor
    """Whether some iterate has failed."""
    outside: Tensor
    """Whether some iterate has succeeded: then the boundary is bracketed."""


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Walks on a sphere around the original that shrinks after every success and grows after every failure.

    *Paper*: Rony et al., CVPR 2019.
    *Needs*: gradients.
    *Cost*: 1 forward + 1 backward per point and step, and 1 forward to judge the last iterate. Under a finite radius
    a broken point stops paying.
    *Blind spots*: masked gradients; the likeliest wrong class is followed, which need not be the nearest.
    *Held to*: foolbox 3.3.4 and adv-lib 0.2.8, 100 steps: median distance 0.5558 on an adversarially trained CIFAR-10
    network (CNN-A, 100 points).
    *Measured*: 0.5554 with as many gradients (``tests/evasion/attacks/test_ddn.py``).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(1.5).threat())
        >>> game.play(evasion.DDN(steps=40), net, seed=0)["robust accuracy"].estimate < 0.3
        True

    Attributes:
        steps: gradient steps.
        gamma: the share by which the radius grows or shrinks in a step.
        step: the first step's length over the radius; annealed to a hundredth of it.
        radius: the first radius, in widths of the box.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({2.0})
    minimal: ClassVar[Literal[True]] = True

    steps: int = 100
    gamma: float = 0.05
    step: float = 1.0
    radius: float = 1.0

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Minimizer`."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input found for each point."""
        search, loss = Search.over(view, x, budget), objective(view, "ce")
        at, no = torch.arange(len(x), device=x.device), torch.zeros_like(y, dtype=torch.bool)
        first = search.reach(x).clamp(max=self.radius * view.bounds.width)
        rows = _Rows(at=at, x0=x, y=y, z=x, radius=first, inside=no, outside=no)
        for step in range(self.steps):
            rows = search.live(rows)
            if not len(rows.at):
                return search.closest
            seen = search.landed(rows)
            graded = view.gradient(seen, rows.at, loss, rows.y)
            rows = self._resize(rows, search.record(rows, seen, graded.scores), search)
            rows = replace(rows, z=self._turn(rows, graded.gradient, step, search, rng.fold(step)))
        search.judge(rows)
        return search.closest

    def _resize(self, rows: _Rows, won: Tensor, search: Search) -> _Rows:
        """The sphere of the next iterate.

        The paper moves by γ from the start; here the radius halves or doubles until the boundary is bracketed, so
        that its first value, and with it the scale of the data, does not matter.
        """
        away = (rows.z != rows.x0).flatten(1).any(1)  # the original says nothing about the sphere
        inside, outside = rows.inside | (away & ~won), rows.outside | won
        gamma = torch.where(inside & outside, self.gamma, 1.0).to(rows.radius.dtype)
        factor = torch.where(won, (1 - gamma).clamp_min(0.5), 1 + gamma)
        radius = torch.where(away, factor * rows.radius, rows.radius)
        return replace(rows, radius=torch.minimum(radius, search.reach(rows.x0)), inside=inside, outside=outside)

    def _turn(self, rows: _Rows, gradient: Tensor, step: int, search: Search, rng: Stream) -> Tensor:
        """One step up the loss and back onto the sphere (Algorithm 1; the step is a share of the radius here)."""
        share = self.step * (0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2)
        direction = steepest(torch.nan_to_num(gradient), 2)
        flat = (direction == 0).flatten(1).all(1)
        if bool(flat.any()):
            noise = rng.select(rows.at[flat]).normal(*direction.shape[1:], dtype=direction.dtype)
            direction[flat] = steepest(noise, 2)
        delta = rows.z - rows.x0 + rowwise(share * rows.radius, direction) * direction
        length = distance(delta, 2).clamp_min(torch.finfo(delta.dtype).tiny)
        return (rows.x0 + rowwise(rows.radius / length, delta) * delta).clamp(*search.view.bounds)
