"""Carlini & Wagner's attacks: a perturbation's size and a weighted loss, minimized together, in L2, Linf and L0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.nearest import Search
from assay.evasion.attacks.penalties import Descent, Excess, Penalty, Quadratic
from assay.evasion.attacks.support import Support
from assay.evasion.attacks.tanh import Tanh
from assay.evasion.attacks.weighted import advanced, headed, looked
from assay.evasion.threat import Ball
from assay.numerics.balls import distance, rowwise
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

PENALTIES: dict[float, type[Penalty[Any]]] = {2.0: Quadratic, float("inf"): Excess, 0.0: Support}
"""The attack of each norm."""

_FINEST = 0.01
"""The share of a search's first step that its last one takes."""

_GAIN = 1e-3
"""A search that brings a row no nearer than by this share is its last one."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Adam lowers the perturbation's size and a weighted loss; each search sets the weight anew, point by point.

    *Paper*: Carlini & Wagner, IEEE S&P 2017; an untargeted search heads for the nearest classes, by first order as in
    DeepFool (Moosavi-Dezfooli et al., CVPR 2016), where the paper tries every class.
    *Needs*: gradients.
    *Cost*: 2 forwards + 10 backwards to find the nearest classes; then 1 forward + 1 backward per point and step, in
    the first search for every target, from then on for the nearest one; 1 forward to judge the last iterate. A point
    whose search brought nothing stops paying.
    *Blind spots*: masked gradients; classes beyond ``targets``.
    *Held to*: the nearest of its name among foolbox 3.3.4, adv-lib 0.2.8, ART 1.20.1 and torchattacks 3.5.1, in
    searches of 100 steps (L2: 9 of them): median and gradients on a plain MNIST network, L2 2.89 with 2000, Linf 0.104
    with 4000; on an adversarially trained CIFAR-10 network, L2 0.528 with 684, Linf 0.0240 with 2392. 100 points each.
    *Measured*: L2 1.095 with 354, Linf 0.0756 with 477; and L2 0.506 with 337, Linf 0.0171 with 499. L0: 8 coordinates
    with 215, and 11 with 226 (CIFAR-10: ``tests/evasion/attacks/test_carlini_wagner.py``).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(1.0).threat())
        >>> game.play(evasion.CarliniWagner(steps=30), net, seed=0)["robust accuracy"].estimate < 0.5
        True

    Attributes:
        steps: gradient steps of a search.
        searches: the most weights that are tried.
        targets: how many classes the first search heads for, from the nearest on.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 0.0})
    minimal: ClassVar[Literal[True]] = True

    steps: int = 100
    searches: int = 5
    targets: int = 2

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Minimizer`."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input found for each point."""
        search, penalty = Search.over(view, x, budget), PENALTIES[budget.norm](Tanh(view.bounds))
        heading = headed(search, x, y, self.targets)
        if not len(heading.at):
            return search.closest
        rows = penalty.begin(heading)
        for number in range(self.searches):
            rows = self._descend(search, penalty, replace(rows, earlier=rows.length), number)
            rows = penalty.weighed(advanced(rows, _GAIN))
            rows = penalty.resumed(rows, search.closest.found[rows.at])
        search.judge(rows)
        return search.closest

    def _descend(self, search: Search, penalty: Penalty[Any], rows: Descent, number: int) -> Descent:
        for step in range(self.steps):
            rows = _left(search, penalty, rows)
            if not len(rows.at):
                break
            seen = search.landed(rows)
            graded = looked(search.view, rows, seen, number)
            won = search.record(rows, seen, graded.scores)
            far = torch.where(won, distance(seen - rows.x0, search.budget.norm), torch.inf)
            rows = penalty.noted(rows, seen, graded, far, late=2 * step >= self.steps)
            share = (1 - (1 - _FINEST) * step / self.steps) / 2**number
            push = torch.where(graded.loss < 0, rows.c, 0)
            gradient = penalty.pull(rows, share) - rowwise(push, seen) * torch.nan_to_num(graded.gradient)
            rows = penalty.stepped(rows, gradient, share, number * self.steps + step + 1)
        return rows


def _left(search: Search, penalty: Penalty[Any], rows: Descent) -> Descent:
    """The rows to go on with."""
    going = penalty.open(rows)
    return search.live(rows if going is None else rows.keep(going))
