"""NES: projected ascent along search gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.evasion.attacks.estimation import Estimate, Prober, Rows, climb
from assay.evasion.attacks.gradient import LossName, objective
from assay.evasion.threat import Ball
from assay.numerics.balls import rowwise
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_LEAST = 1 / 200
"""The shortest step over the first one (0.00005 of 0.01 in the authors' code)."""


@dataclass(frozen=True, kw_only=True)
class NES:
    """Climbs the loss along gradients estimated from pairs of Gaussian probes, by projected steps of steepest ascent.

    *Paper*: Ilyas et al., ICML 2018, §2.1 and §3 (the query-limited setting).
    *Needs*: scores.
    *Cost*: ``draws`` + 1 queries per point and step; a broken point stops paying.
    *Blind spots*: those of PGD; scores that are quantized or random; many coordinates of which few matter: the share
    of an estimate that is signal is about ``draws / 2`` over their number.
    *Held to*: a cosine of √(m / (m + d − 1)) between the gradient and its estimate from m pairs in d dimensions, in
    any batch. SPSA of torchattacks 3.5.1 on the same network with the same queries.
    *Measured*: ``tests/evasion/attacks/test_nes.py``.

    Two defaults are not the authors': the margin in place of cross-entropy, and estimates averaged for longer
    (momentum 0.97, not 0.9): of 60 MNIST digits in Linf 0.1 and 5000 queries that breaks 58 %, not 52 %.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(access="scores"))
        >>> game.play(evasion.NES(queries=500), net, seed=0)["robust accuracy"].estimate < 0.5
        True

    Attributes:
        queries: per point, at most; less where the threat grants less.
        draws: probes per estimate, two for each direction.
        sigma: the probes' standard deviation, over the width of the box.
        step: the first steps' length over the radius.
        momentum: the weight of the past in the running mean of estimates.
        plateau: a step is halved when the loss is lower than this many steps ago.
        loss: ``"margin"``, ``"ce"`` or ``"dlr"``.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0})

    queries: int = 5000
    draws: int = 50
    sigma: float = 0.001
    step: float = 0.2
    momentum: float = 0.97
    plateau: int = 5
    loss: LossName = "margin"

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        prober = Prober(view=view, budget=budget, loss=objective(view, self.loss), directions="gaussian",
                        sigma=self.sigma)
        return climb(self, prober, x, y, rng)

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """The estimates' running mean, the step over the radius, and the last losses."""
        rate = torch.full((len(x),), self.step, dtype=x.dtype, device=x.device)
        losses = torch.full((len(x), self.plateau), -torch.inf, dtype=x.dtype, device=x.device)
        return torch.zeros_like(x), rate, losses

    def move(self, rows: Rows, estimate: Estimate, step: int, budget: Ball, view: View) -> Rows:
        """One step along the running mean."""
        mean, rate, losses = rows.state
        mean = self.momentum * mean + (1 - self.momentum) * estimate.gradient
        losses = torch.cat([losses[:, 1:], estimate.loss[:, None]], 1)
        worse = losses[:, -1] < losses[:, 0]
        rate = torch.where(worse, (rate / 2).clamp_min(self.step * _LEAST), rate)
        losses = losses.masked_fill(worse[:, None], -torch.inf)  # the next halving is as far off as the first was
        far = rowwise(rate * budget.radius, mean)
        z = budget.project(rows.z + far * budget.steepest(mean), rows.x0, view.bounds)
        return replace(rows, z=z, state=(mean, rate, losses))
