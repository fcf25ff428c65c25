"""FAB: the nearest boundary, by projections onto the planes that gradients promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import as_rows, succeeded
from assay.evasion.objectives import pair_margin, toward_margin
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import distance, hyperplane_step, random_delta, rowwise
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Graded
from assay.threats import View

WAVE = 3
"""How many target classes share a batch."""

_LOOK = 10
"""Steps between two looks of a row's patience."""

_CACHED = 2**16
"""Numbers of one kind that fit into the processor's cache beside the others of a step."""

_HALVINGS = 3
"""Bisections at the end of a search for the smallest perturbation (Croce & Hein, ICML 2020, §3.4)."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live rows; all ``[rows, …]``."""

    at: Tensor
    x0: Tensor
    y: Tensor
    target: Tensor
    z: Tensor
    best: Tensor
    length: Tensor
    """Of ``best``; ``inf`` where nothing was found."""
    earlier: Tensor
    """``length`` at the last two looks of the row's patience, ``[rows, 2]``."""

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Steps onto the linearized boundary of one wrong class after another, and back toward the original.

    *Paper*: Croce & Hein, ICML 2020 (FAB-T).
    *Needs*: gradients.
    *Cost*: 1 forward to rank the classes; then 1 forward + 1 backward per point, target, restart and step, and at the
    end of each target 1 forward for the last iterate and 1 (3 with an infinite radius) to draw the best one closer.
    A point with an adversarial input within the budget stops paying.
    *Blind spots*: masked gradients; classes beyond ``targets``.

    Success is read from the forward that computes the gradient, so the plane behind a step back is the one seen
    at the adversarial iterate itself.
    *Held to*: the exact distances of linear models in Linf, L2 and L1.
    *Measured*: within 2 % of them (`tests/evasion/attacks/test_fab.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.FAB(steps=20), net, seed=0)["robust accuracy"].estimate < 0.3
        True

    Attributes:
        steps: gradient steps a target.
        targets: how many classes, from the highest score down.
        restarts: searches; the first starts at the point, the others at random.
        alpha_max: the largest share of a step that is taken from the original.
        eta: how far a step overshoots the plane.
        beta: what an adversarial iterate keeps of its perturbation.
        patience: a target is given up when the distance, shrinking at this many times its pace, would not reach the
            radius in the steps left; ``None`` never gives up. With an infinite radius none is given up.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 1.0})
    minimal: ClassVar[Literal[True]] = True

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    patience: float | None = 3.0

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input found."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest adversarial input found for each point.

        A finite radius is where a point's search may end: nothing nearer is looked for.
        """
        closest = Closest.over(x)
        for restart in range(self.restarts):
            for columns, target in self._waves(view, x, y):
                left = (~(closest.length <= self._enough(budget))).nonzero()[:, 0]
                if not len(left):
                    return closest
                k = len(columns)
                x0 = as_rows(x[left], k)
                length = torch.full((len(x0),), torch.inf, dtype=x.dtype, device=x.device)
                start = torch.cat([
                    self._start(view, x[left], closest.length[left], budget, rng.select(left).fold(restart).fold(c))
                    if restart else x[left]
                    for c in columns
                ])
                rows = _Rows(at=left.repeat(k), x0=x0, y=as_rows(y[left], k), target=target[left].T.flatten(),
                             z=start, best=x0, length=length, earlier=length[:, None].repeat(1, 2))
                self._run(view, closest, rows, budget)
        return closest

    def _enough(self, budget: Ball) -> float:
        """The distance at which a point's search ends; none ends where the smallest perturbation is the question."""
        return budget.radius if budget.radius < float("inf") else -1.0

    def _waves(self, view: View, x: Tensor, y: Tensor) -> Iterator[tuple[range, Tensor]]:
        """Target classes, a few columns at a time: ``[points, columns]``."""
        if view.threat.goal == TARGETED:
            yield range(1), y[:, None]
            return
        scores = view.scores(x, torch.arange(len(x), device=x.device))
        ranked = scores.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
        count = min(self.targets, ranked.shape[1])
        for first in range(0, count, WAVE):
            columns = range(first, min(first + WAVE, count))
            yield columns, ranked[:, first : columns.stop]

    def _start(self, view: View, x0: Tensor, length: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """Half as far as what is known to suffice, in a random direction (§3.4)."""
        reach = length.clamp(max=budget.radius)
        reach = torch.where(torch.isfinite(reach), reach, 0) / 2
        return (x0 + random_delta(x0, reach, budget.norm, view.bounds.width, rng)).clamp(*view.bounds)

    def _run(self, view: View, closest: Closest, rows: _Rows, budget: Ball) -> None:
        targeted = view.threat.goal == TARGETED
        for step in range(self.steps):
            if step and step % _LOOK == 0:
                rows = self._dismiss(rows, step, budget)
            if targeted:
                graded = view.gradient(rows.z, rows.at, toward_margin, rows.target)
            else:
                graded = view.gradient(rows.z, rows.at, pair_margin, rows.y, rows.target)
            won = succeeded(view, graded.scores, rows.y)
            rows, keep = self._record(view, closest, rows, won, budget)
            if keep is not None:
                rows, won, graded = rows.keep(keep), won[keep], Graded(*(part[keep] for part in graded))
            if not len(rows.at):
                return
            rows = replace(rows, z=self._advance(view, rows, graded, won, budget.norm))
        won = succeeded(view, view.scores(rows.z, rows.at), rows.y)
        rows, keep = self._record(view, closest, rows, won, budget)
        self._tighten(view, closest, rows if keep is None else rows.keep(keep), budget)

    def _dismiss(self, rows: _Rows, step: int, budget: Ball) -> _Rows:
        """The rows that may still reach the budget, at ``patience`` times the pace of the last two looks.

        A row that has found nothing yet is kept, and in the first third so is one within twice the radius: searches
        rest on plateaus.
        """
        gain = torch.log(rows.earlier[:, 0] / rows.length) / 2
        away = torch.log(rows.length / budget.radius)
        rows = replace(rows, earlier=torch.stack([rows.earlier[:, 1], rows.length], 1))
        if self.patience is None or step < 2 * _LOOK or not 0 < budget.radius < float("inf"):
            return rows
        near = (rows.length <= 2 * budget.radius) & (3 * step < self.steps)
        hopeless = away > self.patience * gain * (self.steps - step) / _LOOK
        return rows.keep(~hopeless | near | ~torch.isfinite(rows.length) | ~torch.isfinite(rows.earlier[:, 0]))

    def _record(
        self, view: View, closest: Closest, rows: _Rows, won: Tensor, budget: Ball
    ) -> tuple[_Rows, Tensor | None]:
        """Keeps what is nearer; the mask of rows to go on with where points are done, else ``None``."""
        if not bool(won.any()):
            return rows, None
        landed = budget.land(rows.z, rows.x0, view.bounds)
        far = torch.where(won, distance(landed - rows.x0, budget.norm), torch.inf)
        nearer = far < rows.length
        rows = replace(rows, best=torch.where(rowwise(nearer, landed), landed, rows.best),
                       length=torch.where(nearer, far, rows.length))
        closest.offer(rows.at, landed, far)
        over = closest.length[rows.at] <= self._enough(budget)
        return rows, ~over if bool(over.any()) else None

    def _advance(self, view: View, rows: _Rows, graded: Graded, won: Tensor, norm: float) -> Tensor:
        """One step of every row, in blocks that stay in the processor's cache."""
        block = max(_CACHED // max(rows.z[0].numel(), 1), 1)
        parts = [slice(first, first + block) for first in range(0, len(rows.z), block)]
        return torch.cat([
            self._step(view, rows.z[i], rows.x0[i], rows.length[i], graded.loss[i], graded.gradient[i], won[i], norm)
            for i in parts
        ])

    def _step(
        self,
        view: View,
        iterate: Tensor,
        original: Tensor,
        length: Tensor,
        loss: Tensor,
        gradient: Tensor,
        won: Tensor,
        norm: float,
    ) -> Tensor:
        """Onto the plane ``loss + w·(x − z) = 0``, mostly from the iterate, partly from the original."""
        lower, upper = view.bounds
        w, z, x0 = torch.nan_to_num(gradient).flatten(1), iterate.flatten(1), original.flatten(1)
        here = torch.where(won[:, None], x0 + self.beta * (z - x0), z)
        both = torch.cat([here, x0])
        offset = -(loss.repeat(2) + (w.repeat(2, 1) * (both - z.repeat(2, 1))).sum(1))
        delta = hyperplane_step(w.repeat(2, 1), offset, lower - both, upper - both, norm)
        own, home = distance(delta, norm).chunk(2)
        alpha = (own / (own + home).clamp_min(torch.finfo(own.dtype).tiny)).clamp(max=self.alpha_max)[:, None]
        if view.threat.goal == TARGETED:  # several planes bound the target's region: first get there at all
            alpha = alpha * torch.isfinite(length)[:, None]
        near, anchored = (both + self.eta * delta).chunk(2)
        return ((1 - alpha) * near + alpha * anchored).clamp(lower, upper).reshape(iterate.shape)

    def _tighten(self, view: View, closest: Closest, rows: _Rows, budget: Ball) -> None:
        """Moves the best inputs straight toward their originals: to the budget's edge, or by bisection."""
        rows = rows.keep(torch.isfinite(rows.length))
        bisect = self._enough(budget) < 0
        low, high = torch.zeros_like(rows.length), torch.ones_like(rows.length)
        for _ in range(_HALVINGS if bisect else 1):
            if not len(rows.at):
                return
            share = (low + high) / 2 if bisect else budget.radius * (1 - 1e-6) / rows.length
            rows = replace(rows, z=rows.x0 + rowwise(share, rows.z) * (rows.best - rows.x0))
            won = succeeded(view, view.scores(rows.z, rows.at), rows.y)
            self._record(view, closest, rows, won, budget)
            low, high = torch.where(won, low, share), torch.where(won, share, high)
