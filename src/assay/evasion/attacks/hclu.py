"""High-confidence, low-uncertainty examples on Gaussian process classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.gaussian_process import GaussianProcess
from assay.threats import View

_BETAS = (0.9, 0.99)
"""How fast the averages of the gradient and of its square forget (Kingma & Ba, ICLR 2015)."""

_WEIGHTS = (1.0, 100.0)
"""The weight of broken constraints at the first step and at the last."""

_EVERY = 10
"""Steps between two updates of the multipliers."""

_HALVINGS = 30
"""Bisections between a start and the original."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """The live rows, one a point, class to reach and start.

    Attributes:
        at, target: the point and the class.
        x0, z: ``[rows, features]``.
        most: the variance that is allowed.
        scale: the length of the start's perturbation, the unit of steps and of the objective.
        price: Lagrange multipliers of the two constraints, ``[rows, 2]``.
        mean, square: of the gradient.
        best, length: the nearest feasible iterate, and how far it is; ``inf`` where there was none.
    """

    at: Tensor
    target: Tensor
    x0: Tensor
    z: Tensor
    most: Tensor
    scale: Tensor
    price: Tensor
    mean: Tensor
    square: Tensor
    best: Tensor
    length: Tensor

    def keep(self, mask: Tensor) -> _Rows:
        """The rows under the mask."""
        return _Rows(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class HCLU:
    """The nearest input that a Gaussian process is sure of, and no less certain about than about the original.

    Minimizes the squared length of the perturbation under two constraints: the probability of the class to reach is
    at least ``confidence``, and the variance behind it at most ``uncertainty`` times that at the original. All rows in
    lock-step by an augmented Lagrangian, from two starts each: half way to the nearest training input that meets the
    constraints, and that input drawn toward the original as far as they hold; where none meets them, the one that lacks
    least, and the one of the highest probability.

    *Paper*: Grosse, Pfaff, Smith & Backes, 2018 ("The limitations of model uncertainty in adversarial settings",
    Eq. 4), solved there point by point by sequential quadratic programming.
    *Needs*: the weights of a Gaussian process classifier: scikit-learn's, by Laplace's approximation.
    *Cost*: 1 forward and 1 backward of the process per point, class, start and step, about 31 forwards a class to
    start from, and 1 query, to make sure of what was found.
    *Blind spots*: other minima of the same problem than those near the two starts; inputs that err with less
    confidence, which it does not count as a success.
    *Held to*: SLSQP of the same problem from the same starts (scipy), the better of the two.
    *Measured*: within 0.2 % of it where both succeed, and no success of it missed, on moons and flowers of 2 and 3
    classes (``tests/evasion/attacks/test_hclu.py``).

    Example:
        >>> import numpy as np
        >>> from sklearn.gaussian_process import GaussianProcessClassifier
        >>> from assay import evasion, targets
        >>> x = np.random.default_rng(0).random((60, 2))
        >>> y = (x[:, 0] > 0.5).astype(int)
        >>> process = targets.sklearn(GaussianProcessClassifier(random_state=0).fit(x, y))
        >>> game = evasion.EvasionGame(x[:10], y[:10], threat=evasion.L2(0.8).threat(access="weights"))
        >>> game.play(evasion.HCLU(confidence=0.6), process, seed=0)["robust accuracy"].estimate < 0.2
        True

    Attributes:
        confidence: the least probability of the class to reach.
        uncertainty: the most variance, as a multiple of that at the original.
        steps: of the search from each start.
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({2.0})
    minimal: ClassVar[Literal[True]] = True
    plays: ClassVar[Literal["gaussian processes"]] = "gaussian processes"

    confidence: float = 0.95
    uncertainty: float = 1.0
    steps: int = 400

    def __post_init__(self) -> None:
        if not (0 < self.confidence < 1 and self.uncertainty > 0 and self.steps >= 1):
            raise ConfigError("ATK154", f"{self} cannot be used")

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest input found."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The nearest input that meets both constraints. Raises ATK153 on any other target."""
        process = view.structure(GaussianProcess)
        if process is None:
            raise ConfigError("ATK153", "no Gaussian process can be read from the target")
        closest = Closest.over(x)
        if not len(x):
            return closest
        problem = _Problem(self, view, process, budget)
        for target in self._classes(view, process, y):
            found = problem.solve(problem.start(x.flatten(1).double(), target))
            z = budget.land(found.best.to(x.dtype).reshape(-1, *x.shape[1:]), x[found.at], view.bounds)
            fits = problem.fits(z.flatten(1).double(), found.target, found.most, found.at)
            self._offer(view, closest, found.at[fits], z[fits], x, y, budget)
        return closest

    def _classes(self, view: View, process: GaussianProcess, y: Tensor) -> list[Tensor]:
        """The classes to reach, one a point at a time."""
        if view.threat.goal == TARGETED:
            return [y]
        return [(y + turn) % process.classes for turn in range(1, process.classes)]

    def _offer(
        self, view: View, closest: Closest, at: Tensor, z: Tensor, x: Tensor, y: Tensor, budget: Ball
    ) -> None:
        """The nearer of each point's two results, if the target agrees; nothing is asked about one that is farther."""
        length = budget.distance(z, x[at])
        trial = Closest.over(x)
        trial.offer(at, z, length)
        left = view.remaining(torch.arange(len(x), device=x.device))
        worth = torch.isfinite(trial.length) & (trial.length < closest.length) & (trial.length <= budget.radius)
        rows = (worth if left is None else worth & (left > 0)).nonzero()[:, 0]
        if len(rows):
            labels = view.labels(trial.found[rows], rows)
            won = labels == y[rows] if view.threat.goal == TARGETED else labels != y[rows]
            closest.offer(rows[won], trial.found[rows][won], trial.length[rows][won])


@dataclass(frozen=True)
class _Problem:
    """The constrained problem on one target."""

    attack: HCLU
    view: View
    process: GaussianProcess
    budget: Ball

    def excess(self, z: Tensor, target: Tensor, most: Tensor, at: Tensor) -> Tensor:
        """How far the two constraints are broken, ``[rows, 2]``, at most 0 where they hold; booked as one forward."""
        self.view.charge(at, forwards=1)
        shares, variances = self.process.believe(z)
        return self._broken(shares.gather(1, target[:, None])[:, 0], variances.gather(1, target[:, None])[:, 0], most)

    def _broken(self, share: Tensor, variance: Tensor, most: Tensor) -> Tensor:
        wanted = math.log(self.attack.confidence / (1 - self.attack.confidence))
        return torch.stack([wanted - torch.logit(share.clamp(1e-9, 1 - 1e-9)), variance / most - 1], -1)

    def fits(self, z: Tensor, target: Tensor, most: Tensor, at: Tensor) -> Tensor:
        """Whether both constraints hold, bool ``[rows]``."""
        return (self.excess(z, target, most, at) <= 0).all(1)

    def start(self, x0: Tensor, target: Tensor) -> _Rows:
        """Two rows a point: see :class:`HCLU`. Where no training input fits: the one that lacks least, the surest."""
        at = torch.arange(len(x0), device=x0.device)
        variances = self.process.believe(x0)[1]
        self.view.charge(at, forwards=1)
        most = self.attack.uncertainty * variances.gather(1, target[:, None])[:, 0]
        train = self.process.latent[0].train.clamp(*self.view.bounds)
        shares, behind = self.process.believe(train)
        broken = self._broken(shares[:, target].T, behind[:, target].T, most[:, None]).clamp_min(0).sum(2)
        far = (train - x0[:, None]).square().sum(2)
        aim = train[torch.where(broken > 0, (1 + broken) * (1 + far.amax(1, keepdim=True)), far).argmin(1)]
        near = self._drawn(x0, aim, target, most, at)
        scale = (near - x0).square().sum(1).sqrt().clamp_min(1e-6)
        fits = (broken.amin(1) <= 0)[:, None]
        z = torch.cat([torch.where(fits, (x0 + aim) / 2, train[shares[:, target].argmax(0)]), near])
        twice, zero = [torch.cat([part, part]) for part in (at, target, x0, most, scale)], torch.zeros_like(z)
        return _Rows(twice[0], twice[1], twice[2], z, twice[3], twice[4], zero[:, :1].repeat(1, 2), zero, zero,
                     twice[2], torch.full_like(twice[4], torch.inf))

    def _drawn(self, x0: Tensor, aim: Tensor, target: Tensor, most: Tensor, at: Tensor) -> Tensor:
        """The point nearest to ``x0`` on the way from ``aim`` up to which the constraints hold, by bisection."""
        low, high = torch.zeros_like(most), torch.ones_like(most)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = self.fits(x0 + middle[:, None] * (aim - x0), target, most, at)
            low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
        return x0 + high[:, None] * (aim - x0)

    def solve(self, rows: _Rows) -> _Rows:
        """The augmented Lagrangian: Adam on the inputs, multipliers raised by what is still broken."""
        done, steps = [], self.attack.steps
        for step in range(steps):
            rows = self._step(rows, step, steps)
            if self.budget.radius < float("inf"):  # a point that has an input within the radius is done
                reached = torch.zeros(len(self.view), dtype=torch.bool, device=rows.at.device)
                reached[rows.at[rows.length <= self.budget.radius]] = True
                if bool(reached.any()):
                    done.append(rows.keep(reached[rows.at]))
                    rows = rows.keep(~reached[rows.at])
            if not len(rows.at):
                break
        parts = [*done, rows]
        return _Rows(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(_Rows)})

    def _step(self, rows: _Rows, step: int, steps: int) -> _Rows:
        z = rows.z.clone().requires_grad_(True)
        weight = _WEIGHTS[0] * (_WEIGHTS[1] / _WEIGHTS[0]) ** (step / steps)
        with torch.enable_grad():
            delta = z - rows.x0
            broken = self.excess(z, rows.target, rows.most, rows.at)
            felt = (rows.price + weight * broken).clamp_min(0)
            loss = delta.square().sum(1) / rows.scale**2 + (felt**2).sum(1) / (2 * weight)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        self.view.charge(rows.at, backwards=1)
        length = delta.detach().square().sum(1).sqrt()
        better = (broken.detach() <= 0).all(1) & (length < rows.length)
        mean = _BETAS[0] * rows.mean + (1 - _BETAS[0]) * gradient
        square = _BETAS[1] * rows.square + (1 - _BETAS[1]) * gradient.square().sum(1, keepdim=True)
        ahead = mean / (1 - _BETAS[0] ** (step + 1)) / ((square / (1 - _BETAS[1] ** (step + 1))).sqrt() + 1e-12)
        rate = 0.1 * (1e-3 / 0.1) ** (step / steps)
        moved = (rows.z - rate * rows.scale[:, None] * ahead).clamp(*self.view.bounds)
        price = felt.detach() if (step + 1) % _EVERY == 0 else rows.price
        return _Rows(rows.at, rows.target, rows.x0, moved, rows.most, rows.scale, price, mean, square,
                     torch.where(better[:, None], rows.z, rows.best), torch.where(better, length, rows.length))

