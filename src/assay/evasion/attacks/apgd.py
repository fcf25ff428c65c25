"""Auto-PGD: projected gradient ascent whose step size looks after itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import LossName, as_rows, expected, expected_scores, objective, succeeded
from assay.evasion.objectives import targeted_dlr
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import distance, rowwise
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Loss
from assay.threats import View

_NORMS = frozenset({float("inf"), 2.0, 1.0})
_L1_PHASES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""Radius over budget and share of steps, for L1 (Croce & Hein, ICML 2021, §3.3)."""
_NEAR = 0.2
"""A targeted logit ratio this close to success is never given up: climbs rest on plateaus."""
_PHASED = 20
"""The fewest steps that are worth dividing into phases."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The state of every live row; all ``[rows, …]``."""

    at: Tensor
    x0: Tensor
    labels: tuple[Tensor, ...]
    z: Tensor
    before: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    loss: Tensor
    step: Tensor
    rises: Tensor
    check_loss: Tensor
    reduced: Tensor
    density: Tensor
    support: Tensor

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        kept = {f.name: getattr(self, f.name)[mask] for f in fields(self) if f.name != "labels"}
        return _Rows(labels=tuple(label[mask] for label in self.labels), **kept)


@dataclass(frozen=True, kw_only=True)
class Climber:
    """The shared engine: climbs ``loss`` on rows until their point is broken or the steps are spent.

    Attributes:
        view, budget: the adversary's view and what it may change.
        loss: a per-row objective.
        steps: gradient steps.
        draws: looks averaged per gradient.
        patience: for a loss that is 0 at success, when a row is given up; ``None`` for never.
    """

    view: View
    budget: Ball
    loss: Loss
    steps: int
    draws: int = 1
    patience: float | None = None

    def start(self, x0: Tensor, rng: Stream) -> Tensor:
        """Where a climb begins: a random point of the ball (for L1, of the largest one it passes through)."""
        widest = _L1_PHASES[0][0] if self.budget.norm == 1 and self.steps >= _PHASED else 1.0
        return self.budget.at(widest * self.budget.radius).random(x0, self.view.bounds, rng)

    def climb(self, frontier: Frontier, at: Tensor, x0: Tensor, labels: Sequence[Tensor], start: Tensor) -> None:
        """Writes what it finds into ``frontier``.

        Args:
            at: the point of each row; ``x0 [rows, …]`` its original, ``start`` where it begins.
            labels: what ``loss`` takes; the first is what success is read against.
        """
        if self.budget.norm != 1:
            self._run(frontier, at, x0, tuple(labels), start, self.budget.radius, self.steps)
            return
        for factor, share in _L1_PHASES if self.steps >= _PHASED else ((1.0, 1.0),):
            radius = factor * self.budget.radius
            steps = max(round(share * self.steps), 1)
            rows = self._run(frontier, at, x0, tuple(labels), start, radius, steps, judge=factor == 1)
            at, x0, labels, start = rows.at, rows.x0, rows.labels, rows.best

    def _run(
        self,
        frontier: Frontier,
        at: Tensor,
        x0: Tensor,
        labels: tuple[Tensor, ...],
        start: Tensor,
        radius: float,
        steps: int,
        *,
        judge: bool = True,
    ) -> _Rows:
        ball = self.budget.at(radius)
        rows = self._begin(at, x0, labels, ball.project(start, x0, self.view.bounds), ball)
        graded = expected(self.view, rows.z, rows.at, self.draws, self.loss, *labels)
        gradient = torch.nan_to_num(graded.gradient)
        rows = replace(rows, gradient=gradient, best_gradient=gradient, best_loss=graded.loss, loss=graded.loss,
                       check_loss=graded.loss)
        if judge and not self.view.randomized:
            rows = self._settle(frontier, rows, graded.scores)
        due = _Checkpoints.of(steps, self.budget.norm)
        for i in range(steps):
            if not len(rows.at):
                break
            rows = self._advance(rows, ball, first=i == 0)
            rows = self._observe(frontier, rows, judge=judge, last=i == steps - 1)
            window = due.due(i)
            if window and len(rows.at):
                rows = self._dismiss(rows, i + 1, window)
                rows = self._sparsify(rows, ball) if self.budget.norm == 1 else self._halve(rows, window)
        return rows

    def _begin(self, at: Tensor, x0: Tensor, labels: tuple[Tensor, ...], z: Tensor, ball: Ball) -> _Rows:
        zeros = torch.zeros(len(at), dtype=x0.dtype, device=x0.device)
        size = x0[0].numel() if len(x0) else 1
        support = distance(z - x0, 0) if bool((z != x0).any()) else zeros + 0.2 * size
        return _Rows(
            at=at, x0=x0, labels=labels, z=z, before=z, gradient=z, best=z, best_gradient=z, best_loss=zeros,
            loss=zeros, step=zeros + (1.0 if ball.norm == 1 else 2.0) * ball.radius, rises=zeros, check_loss=zeros,
            reduced=torch.ones_like(zeros, dtype=torch.bool),
            density=support / size / 1.5, support=support,
        )

    def _advance(self, rows: _Rows, ball: Ball, *, first: bool) -> _Rows:
        """One step; for L2 and Linf with momentum (Croce & Hein, ICML 2020, Eq. 2–3)."""
        bounds, length = self.view.bounds, rowwise(rows.step, rows.z)
        ahead = ball.project(rows.z + length * ball.steepest(rows.gradient, density=rows.density), rows.x0, bounds)
        if ball.norm != 1 and not first:
            ahead = ball.project(rows.z + 0.75 * (ahead - rows.z) + 0.25 * (rows.z - rows.before), rows.x0, bounds)
        return replace(rows, z=ahead, before=rows.z)

    def _observe(self, frontier: Frontier, rows: _Rows, *, judge: bool, last: bool) -> _Rows:
        """Evaluates the new iterates; the last one needs no gradient where nothing follows."""
        if last and judge:
            return self._finish(frontier, rows)
        graded = expected(self.view, rows.z, rows.at, self.draws, self.loss, *rows.labels)
        gradient = torch.nan_to_num(graded.gradient)
        better = graded.loss > rows.best_loss
        wide = rowwise(better, rows.z)
        rows = replace(
            rows,
            gradient=gradient,
            rises=rows.rises + (graded.loss > rows.loss).to(rows.rises.dtype),
            loss=graded.loss,
            best=torch.where(wide, rows.z, rows.best),
            best_gradient=torch.where(wide, gradient, rows.best_gradient),
            best_loss=torch.where(better, graded.loss, rows.best_loss),
        )
        return self._settle(frontier, rows, graded.scores) if judge and not self.view.randomized else rows

    def _finish(self, frontier: Frontier, rows: _Rows) -> _Rows:
        """Judges the last iterates; of a randomized target also the best, whose looks on the way were too few."""
        rows = self._settle(frontier, rows, expected_scores(self.view, rows.z, rows.at, self.draws))
        if self.view.randomized and len(rows.at):
            rows = replace(rows, z=rows.best)
            rows = self._settle(frontier, rows, expected_scores(self.view, rows.z, rows.at, self.draws))
        return rows

    def _settle(self, frontier: Frontier, rows: _Rows, scores: Tensor) -> _Rows:
        keep = frontier.settle(rows.at, rows.z, succeeded(self.view, scores, rows.labels[0]))
        return rows if keep is None else rows.keep(keep)

    def _dismiss(self, rows: _Rows, step: int, window: int) -> _Rows:
        """The rows whose loss, rising at ``patience`` times the pace of the last window, may still reach 0."""
        if self.patience is None or self.budget.norm == 1 or 5 * step < 2 * self.steps:
            return rows
        reach = self.patience * (rows.best_loss - rows.check_loss) * (self.steps - step) / window
        stay = (rows.best_loss + reach >= 0) | (rows.best_loss > -_NEAR)
        return rows if bool(stay.all()) else rows.keep(stay)

    def _halve(self, rows: _Rows, window: int) -> _Rows:
        """Halves the steps of rows that do not rise, and returns them to their best (conditions 1 and 2, §3.2)."""
        stalled = rows.rises < 0.75 * window
        flat = ~rows.reduced & (rows.best_loss <= rows.check_loss)
        cut = stalled | flat
        wide = rowwise(cut, rows.z)
        return replace(
            rows,
            step=torch.where(cut, rows.step / 2, rows.step),
            z=torch.where(wide, rows.best, rows.z),
            gradient=torch.where(wide, rows.best_gradient, rows.gradient),
            reduced=cut,
            check_loss=rows.best_loss,
            rises=torch.zeros_like(rows.rises),
        )

    def _sparsify(self, rows: _Rows, ball: Ball) -> _Rows:
        """L1: the step's density follows the best iterate's support; where that is stable, steps shrink (§3.3)."""
        support = distance(rows.best - rows.x0, 0)
        shrinking = support / rows.support.clamp_min(1) < 0.95
        step = torch.where(shrinking, torch.full_like(rows.step, ball.radius), rows.step / 1.5)
        wide = rowwise(shrinking, rows.z)
        return replace(
            rows,
            density=support / rows.x0[0].numel() / 1.5,
            step=step.clamp(ball.radius / 10, ball.radius),
            support=support,
            z=torch.where(wide, rows.best, rows.z),
            gradient=torch.where(wide, rows.best_gradient, rows.gradient),
        )


@dataclass(frozen=True)
class _Checkpoints:
    """After which steps the step size is reconsidered: windows that shrink from 22 % to 6 % of the steps."""

    windows: dict[int, int]

    @classmethod
    def of(cls, steps: int, norm: float) -> _Checkpoints:
        if norm == 1:
            width = max(int(0.04 * steps), 1)
            return cls(dict.fromkeys(range(width - 1, steps, width), width))
        width, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
        windows, at = {}, -1
        while at + width < steps:
            at += width
            windows[at] = width
            width = max(width - less, least)
        return cls(windows)

    def due(self, step: int) -> int:
        """The window that ends with this step, or 0."""
        return self.windows.get(step, 0)


@dataclass(frozen=True, kw_only=True)
class APGD:
    """PGD with momentum, a step size that halves by itself, and returns to the best point so far.

    *Paper*: Croce & Hein, ICML 2020; L1: Croce & Hein, ICML 2021.
    *Needs*: gradients.
    *Cost*: 1 forward + 1 backward per point, restart and step, and 1 forward for the start; a broken point stops
    paying, unless the target is randomized: then it is judged at the end, by 2 queries more.
    *Blind spots*: masked gradients; one local maximum a restart.
    *Held to*: 50.5 % robust accuracy that the reference AutoAttack leaves of cifar_cnn_a_adv at Linf 2/255.
    *Measured*: 50.0 % as a stage of AutoAttack (`tests/papers/test_published_robustness.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> found = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat()).play(evasion.APGD(), net, seed=0)
        >>> found["robust accuracy"].estimate < 0.3
        True

    Attributes:
        steps: gradient steps.
        loss: ``"ce"``, ``"dlr"`` or ``"margin"``.
        restarts: random starts, as extra rows.
        draws: looks at a randomized target averaged per gradient (EOT).
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = _NORMS

    steps: int = 100
    loss: LossName = "ce"
    restarts: int = 1
    draws: int = 1

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        frontier = Frontier.over(x)
        climber = Climber(view=view, budget=budget, loss=objective(view, self.loss), steps=self.steps, draws=self.draws)
        # The first start settles most points; what it leaves standing meets all the other starts at once.
        for starts in (range(1), range(1, self.restarts)):
            left, k = frontier.open(), len(starts)
            if k and len(left):
                begin = torch.cat([climber.start(x[left], rng.select(left).fold(r)) for r in starts])
                climber.climb(frontier, left.repeat(k), as_rows(x[left], k), [as_rows(y[left], k)], begin)
        return frontier.found


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD:
    """APGD toward each of the likeliest wrong classes in turn.

    *Paper*: Croce & Hein, ICML 2020 (APGD-T with the targeted DLR loss).
    *Needs*: gradients.
    *Cost*: 1 forward to rank the classes, then 1 forward + 1 backward per point, target and step; targets are extra
    rows in waves of three, so that a point broken by a likely class does not pay for the others.
    *Blind spots*: masked gradients; classes beyond ``targets``.
    *Held to*: 53.0 % robust accuracy that the reference AutoAttack leaves of cifar_cnn_a_mix at Linf 2/255.
    *Measured*: 53.0 % as a stage of AutoAttack (`tests/papers/test_published_robustness.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.TargetedAPGD(steps=20), net, seed=0)["robust accuracy"].estimate < 0.3
        True

    Attributes:
        steps: gradient steps a target.
        targets: how many classes, from the highest score down.
        draws: looks at a randomized target averaged per gradient (EOT).
        patience: from two fifths of the steps on, a target is given up when the loss, rising at this many times its
            pace since the last checkpoint, would not reach success in the steps left, and is not near; ``None``
            never gives up. Not in L1, whose phases differ.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = _NORMS

    steps: int = 100
    targets: int = 9
    draws: int = 1
    patience: float | None = 8.0

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        if view.threat.goal == TARGETED:
            return APGD(steps=self.steps, loss="dlr", draws=self.draws).perturb(view, x, y, budget, rng)
        frontier = Frontier.over(x)
        points = torch.arange(len(x), device=x.device)
        scores = expected_scores(view, x, points, self.draws)
        ranked = scores.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]
        climber = Climber(view=view, budget=budget, loss=targeted_dlr, steps=self.steps, draws=self.draws,
                          patience=None if view.randomized else self.patience)
        for first in range(0, min(self.targets, ranked.shape[1]), WAVE):
            columns = range(first, min(first + WAVE, self.targets, ranked.shape[1]))
            left = frontier.open()
            if not len(left):
                break
            start = torch.cat([climber.start(x[left], rng.select(left).fold(c)) for c in columns])
            target = torch.cat([ranked[left, c] for c in columns])
            k = len(columns)
            climber.climb(frontier, left.repeat(k), as_rows(x[left], k), [as_rows(y[left], k), target], start)
        return frontier.found


WAVE = 3
"""How many target classes share a batch."""
