"""One perturbation for all inputs, learned on natural examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import objective, succeeded
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import rowwise
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Loss
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class UniversalPerturbation:
    """Climbs the mean clipped margin of natural examples with one shared perturbation, and tries it on every point.

    *Paper*: the problem: Moosavi-Dezfooli et al., CVPR 2017; the method: Shafahi et al., AAAI 2020, Algorithm 2
    (projected gradient ascent on a clipped loss, which no single example can dominate).
    *Needs*: gradients, and natural examples (``View.examples``).
    *Cost*: 1 forward + 1 backward per example and epoch, booked evenly on the points; then 1 forward per point.
    *Blind spots*: it is one perturbation: points that need one of their own withstand.
    *Held to*: 65.0 % robust accuracy that ART 1.20.1's UniversalPerturbation (FGSM inside) leaves of 200 demo digits at
    Linf 0.2, and 31.5 % at 0.25.
    *Measured*: 24.5 % and 10.5 % (`tests/evasion/attacks/test_universal.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.3).threat())
        >>> game.play(evasion.UniversalPerturbation(), net, seed=0)["robust accuracy"].estimate < 0.6
        True

    Attributes:
        epochs: passes over the examples.
        batch: examples in one step.
        step: the first step's length as a share of the radius; it falls with the epochs.
        clip: the margin, in units of an example's first one, beyond which an example counts no more.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 1.0})

    epochs: int = 20
    batch: int = 64
    step: float = 0.25
    clip: float = 0.5

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        if not len(x):
            return x.clone()
        delta = self.learned(view, y, budget)
        at = torch.arange(len(x), device=x.device)
        z = budget.land(budget.project(x + delta, x, view.bounds), x, view.bounds)
        won = succeeded(view, view.scores(z, at), y)
        return torch.where(rowwise(won, x), z, x)

    def learned(self, view: View, y: Tensor, budget: Ball) -> Tensor:
        """The shared perturbation, ``[1, …]``; it depends on the examples alone, not on the points under attack."""
        rehearsal = view.rehearsal()
        assert view.examples is not None  # else the line above would have raised
        x, labels = view.examples
        if view.threat.goal == TARGETED:
            labels = y[:1].expand(len(x))  # one perturbation can aim at one label
        loss, delta = objective(view, "margin"), torch.zeros_like(x[:1])
        for epoch in range(self.epochs):
            length = self.step * budget.radius * (1 - epoch / self.epochs)
            for first in range(0, len(x), self.batch):
                rows = torch.arange(first, min(first + self.batch, len(x)), device=x.device)
                z = budget.project(x[rows] + delta, x[rows], view.bounds)
                clipped = self._clipped(loss)
                gradient = rehearsal.gradient(z, rows, clipped, labels[rows]).gradient.mean(0, keepdim=True)
                delta = self._bounded(delta + length * budget.steepest(gradient), budget)
        view.book(rehearsal)
        return delta

    def _clipped(self, loss: Loss) -> Loss:
        """The loss up to ``clip`` (Shafahi et al., 2020, Eq. 4): an example that is lost pulls no more."""

        def clipped(scores: Tensor, labels: Tensor) -> Tensor:
            spread = scores.detach().std(1).clamp_min(torch.finfo(scores.dtype).tiny)
            return (loss(scores, labels) / spread).clamp(max=self.clip)

        return clipped

    def _bounded(self, delta: Tensor, budget: Ball) -> Tensor:
        """The perturbation in the ball around zero, whatever the box of the inputs."""
        zero = torch.zeros_like(delta)
        return budget.project(delta, zero, Bounds(-torch.inf, torch.inf))
