"""A grid of rotations and translations, or the worst of a few random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import objective, succeeded
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_TOGETHER = 32
"""How many places of the grid are looked at in one batch of rows."""


@dataclass(frozen=True, kw_only=True)
class SpatialSearch:
    """Looks at every rotation and translation of a grid, or at ``k`` random ones, until one is misclassified.

    *Paper*: Engstrom et al., ICML 2019 ("Exploring the landscape of spatial robustness"), §2.2.
    *Needs*: labels, and a budget such as ``rotation 30 translation 3``.
    *Cost*: 1 query per point and place, at most 31 · 5 · 5 = 775 with the grid, ``k`` without; a broken point stops
    paying within 32.
    *Blind spots*: changes between the places of the grid, which are few for large limits.
    *Held to*: foolbox 3.3.4's SpatialAttack on 100 demo digits, 30 degrees and 1 pixel: its grid leaves
    2 %, its worst of 10 random places 17 %.
    *Measured*: the grid leaves 0 %, the worst of 10 leaves 15 % (`tests/evasion/attacks/test_spatial.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> threat = evasion.Rotation(rotation=30, translation=1).threat(access="labels")
        >>> found = evasion.EvasionGame(x, y, threat=threat).play(evasion.SpatialSearch(), net, seed=0)
        >>> found["robust accuracy"].estimate < 0.3
        True

    Attributes:
        mode: ``"grid"``, or ``"worst-of-k"``.
        rotations, translations: places along each axis of the grid.
        k: random places of a point.
    """

    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})
    kinds: ClassVar[frozenset[str]] = frozenset({"rotation"})

    mode: Literal["grid", "worst-of-k"] = "grid"
    rotations: int = 31
    translations: int = 5
    k: int = 10

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """Parameters ``[points, 3]`` for the transformation; see :class:`~assay.evasion.methods.Perturber`."""
        frontier, places = Frontier.over(x), self._places(x, rng) * budget.radius
        for first in range(0, places.shape[1], _TOGETHER):
            at = frontier.open()
            if not len(at):
                break
            self._look(view, frontier, places[at, first : first + _TOGETHER], at, y)
        return frontier.found

    def _places(self, x: Tensor, rng: Stream) -> Tensor:
        """Where each point is looked at, from −1 to 1: ``[points, places, 3]``, in an order of the point's own."""
        if self.mode == "worst-of-k":
            return 2 * rng.uniform(self.k, 3, dtype=x.dtype) - 1
        axes = [torch.linspace(-1, 1, count, dtype=x.dtype, device=x.device)
                for count in (self.rotations, self.translations, self.translations)]
        grid = torch.cartesian_prod(*axes)
        return grid[rng.uniform(len(grid)).argsort(1)]

    def _look(self, view: View, frontier: Frontier, places: Tensor, at: Tensor, y: Tensor) -> None:
        """One batch: each open point at its next places, as far as its queries go."""
        count = torch.full_like(at, places.shape[1])
        left = view.remaining(at)
        if left is not None:
            count = torch.minimum(count, left)
        asked = torch.arange(places.shape[1], device=at.device) < count[:, None]
        rows, thetas = at.repeat_interleave(places.shape[1])[asked.flatten()], places[asked]
        if not len(rows):
            return
        hit = view.labels(thetas, rows) == y[rows]
        frontier.settle(rows, thetas, hit if view.threat.goal == TARGETED else ~hit)


@dataclass(frozen=True, kw_only=True)
class StAdv:
    """Moves pixels by a flow field, and keeps the smoothest field that was seen to suffice.

    *Paper*: Xiao et al., ICLR 2018 (stAdv): the margin plus τ times the flow's total variation (Eq. 3, 4). Adam within
    the budget's limit takes the place of L-BFGS without one.
    *Needs*: gradients, and a budget such as ``flow 1``.
    *Cost*: 1 forward + 1 backward per point and step.
    *Blind spots*: changes that no smooth flow makes; τ is not searched for.
    *Held to*: PGD on the same flow, which leaves 0 % of 100 demo digits at 1 pixel, with a total variation of 77.
    *Measured*: 0 %, with a total variation of 12 (`tests/evasion/attacks/test_spatial.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Flow(flow=1).threat())
        >>> game.play(evasion.StAdv(), net, seed=0)["robust accuracy"].estimate < 0.1
        True

    Attributes:
        steps: of Adam.
        rate: its step size, as a share of the limit.
        tau: the weight of the total variation beside the margin, both per row, the flow in units of its limit.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})
    kinds: ClassVar[frozenset[str]] = frozenset({"flow"})

    steps: int = 60
    rate: float = 0.05
    tau: float = 0.05

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """The flow ``[points, 2, height, width]`` in units of its limit."""
        best, smoothest = x.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        at, loss = torch.arange(len(x), device=x.device), objective(view, "margin")
        flow, first, second = x, torch.zeros_like(x), torch.zeros_like(x)
        for step in range(1, self.steps + 1 if len(x) else 1):
            graded = view.gradient(flow, at, loss, y)
            rough, pull = variation(flow)
            won = succeeded(view, graded.scores, y) & (rough < smoothest)
            best, smoothest = torch.where(rowwise(won, x), flow, best), torch.where(won, rough, smoothest)
            # Past the boundary only the variation counts (Carlini & Wagner's hinge, as in Eq. 4).
            climb = graded.gradient * rowwise((graded.loss < 0.05).to(x.dtype), x) - self.tau * pull
            first, second = 0.9 * first + 0.1 * climb, 0.999 * second + 0.001 * climb**2
            move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            flow = budget.project(flow + self.rate * budget.radius * move, x, view.bounds)
        return best


def variation(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The total variation of each row's flow (Xiao et al., 2018, Eq. 4), and its gradient."""
    with torch.enable_grad():
        leaf = flow.detach().requires_grad_()
        down, across = leaf.diff(dim=2)[..., :-1], leaf.diff(dim=3)[:, :, :-1]
        rough = (down.square().sum(1) + across.square().sum(1) + 1e-8).sqrt().flatten(1).sum(1)
        (gradient,) = torch.autograd.grad(rough.sum(), leaf)
    return rough.detach(), gradient
