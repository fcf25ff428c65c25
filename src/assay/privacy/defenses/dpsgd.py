"""DP-SGD: stochastic gradient descent that no single example can move far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from assay.errors import ConfigError, TrustError
from assay.privacy.descent import Walk, seeded, started
from assay.privacy.mechanisms import SampledGaussian
from assay.privacy.per_example import Clipped, Gradients, Loss, PerExample, cross_entropy, norms_of
from assay.privacy.private import ACCOUNTANT, Init, Private, Procedure, privately
from assay.privacy.proofs.accountant import Accountant
from assay.targets.procedure import Training

Observe = Callable[[int, dict[str, Tensor]], None]
"""Sees each step's number and noised gradient sum: all that DP-SGD ever releases."""

Canary = Callable[[int, Gradients], Gradients]
"""The gradient that one further example has at this step and these parameters: what a white-box adversary chooses."""


@dataclass(frozen=True, kw_only=True)
class DPSGD:
    """Each step clips the gradient of every sampled example, adds Gaussian noise to their sum, and moves along it.

    *Paper*: Abadi et al., CCS 2016; the closed form for a linear layer: Goodfellow, 2015.
    *Needs*: the training procedure: a module whose examples do not see each other.
    *Cost*: one forward and one backward an example and epoch; a linear layer takes two matrix products a step and no
    gradient of its own for any example.
    *Blind spots*: whoever knows the seed can subtract the noise; hyper-parameters tuned on the same data, statistics
    taken of it beforehand, and evaluations published beside the model are not accounted for; pseudo-random noise of
    floats only stands for real noise.
    *Held to*: a plain loop over examples, to 1e-9 in float64; Opacus 1.6.0's gradients of the same network and
    examples, to 1e-9.
    *Measured*: both, and the noise's deviation within 1 % (`tests/privacy/defenses/test_dpsgd.py`).

    The sum is divided by the *expected* batch size: the actual one is a secret. Nothing of the caller is wrapped or
    changed: the module is copied, its frozen parameters stay, parameters that the loss does not use receive noise.

    Example:
        >>> from assay import demo, privacy
        >>> from torch import nn
        >>> x, y = demo.digits("train")
        >>> training = privacy.DPSGD(clip=0.5, batch=256, epochs=20, rate=2.0)
        >>> training = training.calibrated(epsilon=3, delta=1e-4, n=len(x))
        >>> trained = training.fit(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x, y, seed=0)
        >>> 2.99 < trained.bound(delta=1e-4).value <= 3
        True
        >>> test_x, test_y = demo.digits("test")
        >>> float((trained.module(test_x).argmax(1) == test_y).float().mean()) > 0.8
        True

    Attributes:
        noise: standard deviation of the noise over ``clip``.
        clip: the longest that one example's gradient may be, in L2 over all parameters.
        batch: how many examples a step samples on average (each by itself: Poisson).
        epochs: how often each example is sampled on average; the steps follow.
        rate: the learning rate.
        momentum: of the steps' moving average, which costs no privacy.
        average: the decay of an average over the iterates that is returned in place of the last, or 0: free as well.
        rows: how many examples' gradients are in memory at a time.
        guard: takes one example out of every step's batch and refuses to go on where that moves the sum by more than
            the clip; doubles the cost. Not for modules with dropout, whose masks move the sum as well.
    """

    noise: float = 1.0
    clip: float = 1.0
    batch: int = 256
    epochs: float = 10.0
    rate: float = 0.5
    momentum: float = 0.9
    average: float = 0.0
    rows: int = 256
    guard: bool = False

    def __post_init__(self) -> None:
        positive = min(self.clip, self.batch, self.epochs, self.rate, self.rows) > 0
        if not (positive and self.noise >= 0 and 0 <= self.momentum < 1 and 0 <= self.average < 1):
            raise ConfigError("CFG134", f"{self} cannot be used")

    def mechanism(self, n: int) -> SampledGaussian:
        """What the privacy of a run on ``n`` examples rests on. Raises PRV208 where a batch is more than the data."""
        if self.batch > n:
            raise ConfigError("PRV208", f"batches of {self.batch} on average from {n} examples")
        return SampledGaussian(noise=self.noise, rate=self.batch / n, steps=max(round(self.epochs * n / self.batch), 1))

    def calibrated(self, *, epsilon: float, delta: float, n: int, accountant: Accountant = ACCOUNTANT) -> DPSGD:
        """The same with the least noise that keeps a run on ``n`` examples within (ε, δ)."""
        run = self.mechanism(n)
        return replace(self, noise=accountant.noise(epsilon=epsilon, delta=delta, rate=run.rate, steps=run.steps))

    def fit(
        self,
        module: nn.Module | Init,
        x: Tensor,
        y: Tensor,
        *,
        seed: int,
        loss: Loss = cross_entropy,
        observe: Observe | None = None,
        canary: Canary | None = None,
    ) -> Private:
        """A trained copy of ``module``, and what its privacy rests on.

        Args:
            module: where training starts, or what builds it (under ``seed``).
            x: examples, ``[n, …]``.
            y: their labels, ``[n, …]``.
            seed: of the initialization, the samples and the noise: a secret.
            loss: of each example.
            observe: sees what every step releases.
            canary: one further example, given by its gradient; it is sampled and clipped like any other.

        Raises:
            ConfigError: PRV205 where examples see each other, PRV206 where nothing is trained, PRV208 where a batch
                is more than the data.
            TrustError: PRV207 where ``guard`` finds a sum that one example moves by more than the clip.
        """
        run = self.mechanism(len(x))
        with seeded(seed, x.device):
            model = started(module, x)
            work = PerExample(model, loss, self.clip, self.rows)
            draw, noise = (torch.Generator().manual_seed(2 * seed + k) for k in (0, 1))
            walk = Walk(start := work.parameters(), start)
            for step in range(run.steps):
                rows = (torch.rand(len(x), generator=draw, dtype=torch.float64) < run.rate).nonzero()[:, 0].to(x.device)
                total = self._sum(work, walk.at, x, y, rows).total
                if canary is not None and float(torch.rand(1, generator=draw, dtype=torch.float64)) < run.rate:
                    _add(total, canary(step, walk.at), self.clip)
                released = {name: value + self._noise(value, noise) for name, value in total.items()}
                if observe is not None:
                    observe(step, released)
                walk = walk.moved(self, released)
        model.load_state_dict(walk.average, strict=False)
        return Private(module=model.eval(), mechanism=run, n=len(x))

    def train(self, training: Training) -> Training:
        """A recipe with its models trained privately. Raises ``ConfigError`` (PRV114) where it names no start."""
        return privately(training, self)

    def procedure(self, init: Init, *, delta: float = 1e-5) -> Procedure:
        """This training as the ``fit(data, seed) -> module`` of :func:`assay.targets.training`."""
        return Procedure(trainer=self, init=init, delta=delta)

    def _sum(self, work: PerExample, parameters: Gradients, x: Tensor, y: Tensor, at: Tensor) -> Clipped:
        clipped = work.sum(parameters, x, y, at)
        if self.guard and len(at):
            less = work.sum(parameters, x, y, at[:-1]).total
            moved = float(norms_of((clipped.total[name][None] - less[name][None] for name in less), 1))
            if moved > self.clip * (1 + 1e-3):
                raise TrustError("PRV207", f"one example moves the clipped sum by {moved:.4g}, the clip is {self.clip}")
        return clipped

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Drawn on the CPU, so that a seed means the same on every device."""
        drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype)
        return (drawn * (self.noise * self.clip)).to(like.device)


def _add(total: dict[str, Tensor], gradient: Gradients, clip: float) -> None:
    """Adds one example's gradient, clipped, to a sum that nobody else holds."""
    norm = float(norms_of((g[None] for g in gradient.values()), 1))
    for name, value in gradient.items():
        total[name] += value * min(1.0, clip / max(norm, 1e-30))
