"""SPSA: Adam along simultaneous perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.evasion.attacks.estimation import Estimate, Prober, Rows, climb
from assay.evasion.attacks.gradient import LossName, objective
from assay.evasion.threat import Ball
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_BETAS, _TINY = (0.9, 0.999), 1e-8
"""Adam's (Kingma & Ba, ICLR 2015, Algorithm 1)."""


@dataclass(frozen=True, kw_only=True)
class SPSA:
    """Climbs the margin by Adam along gradients estimated from probes in which every coordinate moves at once.

    *Paper*: Uesato et al., ICML 2018, Algorithm 1, with Adam in place of plain steps as in §4.
    *Needs*: scores.
    *Cost*: ``draws`` + 1 queries per point and step; a broken point stops paying.
    *Blind spots*: those of PGD; scores that are quantized or random; many coordinates of which few matter.
    *Held to*: SPSA of torchattacks 3.5.1 on the same network with the same queries; a cosine of
    √(m / (m + d − 1)) between the gradient and its estimate from m pairs in d dimensions.
    *Measured*: ``tests/evasion/attacks/test_nes.py``.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(access="scores"))
        >>> game.play(evasion.SPSA(queries=500, draws=32), net, seed=0)["robust accuracy"].estimate < 0.5
        True

    Attributes:
        queries: per point, at most; less where the threat grants less.
        draws: probes per estimate, two for each direction.
        sigma: the probes' distance from the iterate in each coordinate, over the width of the box.
        rate: Adam's learning rate over the radius (over radius / √d in L2).
        loss: ``"margin"``, ``"ce"`` or ``"dlr"``.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0})

    queries: int = 5000
    draws: int = 64
    sigma: float = 0.01
    rate: float = 0.3
    loss: LossName = "margin"

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        prober = Prober(view=view, budget=budget, loss=objective(view, self.loss), directions="rademacher",
                        sigma=self.sigma)
        return climb(self, prober, x, y, rng)

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Adam's two moments."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def move(self, rows: Rows, estimate: Estimate, step: int, budget: Ball, view: View) -> Rows:
        """One step of Adam, upward, and back into budget and box."""
        decayed = zip(rows.state, _BETAS, (estimate.gradient, estimate.gradient.square()))
        first, second = (beta * moment + (1 - beta) * news for moment, beta, news in decayed)
        mean, square = (moment / (1 - beta ** (step + 1)) for moment, beta in zip((first, second), _BETAS))
        length = self.rate * budget.radius
        if budget.norm == 2:  # in L2 the whole step counts, not its largest coordinate
            length = length / max(rows.z[0].numel(), 1) ** 0.5
        z = budget.project(rows.z + length * mean / (square.sqrt() + _TINY), rows.x0, view.bounds)
        return replace(rows, z=z, state=(first, second))
