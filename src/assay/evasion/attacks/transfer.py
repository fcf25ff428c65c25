"""Transfer: adversarial inputs made on models that the adversary has, sent to one that it has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.attacks.gradient import LossName, objective
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.balls import rowwise
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import WhiteBox
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Ascends on one surrogate or on several at once, and submits the result once.

    *Paper*: ensembles: Liu et al., ICLR 2017, Eq. 3; momentum (MI): Dong et al., CVPR 2018; diverse inputs (DI): Xie
    et al., CVPR 2019; translation invariance (TI): Dong et al., CVPR 2019.
    *Needs*: labels of the target; gradients of the surrogates, which are the adversary's own.
    *Cost*: 1 query per point; 1 forward + 1 backward per point, step and surrogate, booked as passes, not as queries.
    *Blind spots*: targets that learned other features than the surrogates; a failure says little about the target.
    *Held to*: torchattacks 3.5.1 from a CIFAR ResNet-56 to a ResNet-20, 60 images, Linf 4/255, 10 steps: MIFGSM fools
    75 %, DIFGSM 72 %.
    *Measured*: 75 % with momentum, 70 to 75 % with diverse inputs too (`tests/evasion/attacks/test_transfer.py`).

    The surrogates' losses are summed, which leaves their scales as they are. Diverse inputs and translations are for
    images ``[rows, channels, height, width]``; of other inputs both are left out.

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> others = tuple(demo.target(seed) for seed in (1, 2))
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.25).threat(access="labels", queries=1))
        >>> found = game.play(evasion.Transfer(surrogates=others), net, seed=0)
        >>> found["robust accuracy"].estimate < 0.4, found.cost.queries <= 50
        (True, True)

    Attributes:
        surrogates: the models that the adversary has.
        steps: of ascent.
        step: step length as a share of the radius; ``None``: 1.25 / steps, so that the edge is reached in good time.
        decay: of the accumulated gradient (MI); 0 leaves momentum out.
        diversity: the chance that an input is shrunk and moved before a gradient is taken (DI).
        smallest: how far it may be shrunk, as a share of its size.
        kernel: the side of the Gaussian kernel that smooths gradients (TI); 0 leaves it out.
        loss: what is climbed on each surrogate.
    """

    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2.0, 1.0})

    surrogates: tuple[WhiteBox, ...]
    steps: int = 20
    step: float | None = None
    decay: float = 1.0
    diversity: float = 0.5
    smallest: float = 0.8
    kernel: int = 0
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        if not self.surrogates or self.steps < 1 or not 0 < self.smallest <= 1:
            raise ConfigError("ATK165", "a transfer needs at least one surrogate, one step, and sizes above 0")

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`."""
        if not len(x):
            return x.clone()
        at = torch.arange(len(x), device=x.device)
        z = budget.land(self._climbed(view, x, y, at, budget, rng), x, view.bounds)
        asked = _askable(view, at)
        won = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if bool(asked.any()):
            hit = view.labels(z[asked], at[asked]) == y[asked]
            won[asked] = hit if view.threat.goal == TARGETED else ~hit
        return torch.where(rowwise(won, x), z, x)

    def _climbed(self, view: View, x: Tensor, y: Tensor, at: Tensor, budget: Ball, rng: Stream) -> Tensor:
        length = (self.step or 1.25 / self.steps) * budget.radius
        z, momentum = x, torch.zeros_like(x)
        for step in range(self.steps):
            gradient = self._gradient(view, z, y, rng.fold(step))
            forwards, backwards = (sum(s.passes()[part] for s in self.surrogates) for part in (0, 1))
            view.charge(at, forwards=forwards, backwards=backwards)
            scale = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(x.dtype).tiny)
            momentum = self.decay * momentum + gradient / rowwise(scale, gradient)  # Dong et al., 2018, Eq. 6
            z = budget.project(z + length * budget.steepest(momentum), x, view.bounds)
        return z

    def _gradient(self, view: View, z: Tensor, y: Tensor, rng: Stream) -> Tensor:
        loss, total = objective(view, self.loss), torch.zeros_like(z)
        for number, surrogate in enumerate(self.surrogates):
            with torch.enable_grad():
                leaf = z.detach().requires_grad_()
                seen = self._diverse(leaf, rng.fold(number))
                gradient = surrogate.graded(seen.detach().to(surrogate.dtype), loss, y).gradient.to(z.dtype)
                (back,) = torch.autograd.grad(seen, leaf, gradient)
            total = total + back
        return smoothed(total, self.kernel)

    def _diverse(self, z: Tensor, rng: Stream) -> Tensor:
        """Each row shrunk and moved at random, or left as it is; what lies outside is zero (Xie et al., 2019, §3.3)."""
        if z.dim() != 4 or not self.diversity:
            return z.clone()
        draw = rng.uniform(4, dtype=z.dtype)
        scale = self.smallest + (1 - self.smallest) * draw[:, 0]
        slack = (1 / scale - 1)[:, None] * (2 * draw[:, 1:3] - 1)  # in units of half the shrunken side
        zero = torch.zeros_like(scale)
        theta = torch.stack([torch.stack([1 / scale, zero, slack[:, 0]], 1),
                             torch.stack([zero, 1 / scale, slack[:, 1]], 1)], 1)
        grid = F.affine_grid(theta, list(z.shape), align_corners=False)
        moved = F.grid_sample(z, grid, align_corners=False)
        return torch.where(rowwise(draw[:, 3] < self.diversity, z), moved, z)


def smoothed(gradient: Tensor, kernel: int) -> Tensor:
    """The gradient convolved with a Gaussian: the gradient over all small translations (Dong et al., 2019, Eq. 7)."""
    if kernel < 2 or gradient.dim() != 4:
        return gradient
    places = torch.arange(kernel, dtype=gradient.dtype, device=gradient.device) - (kernel - 1) / 2
    line = torch.exp(-0.5 * (places / (kernel / 6)) ** 2)
    weight = torch.outer(line, line) / line.sum() ** 2
    channels = gradient.shape[1]
    return F.conv2d(gradient, weight.expand(channels, 1, kernel, kernel), padding="same", groups=channels)


def _askable(view: View, at: Tensor) -> Tensor:
    """The points that have a query left."""
    left = view.remaining(at)
    return torch.ones_like(at, dtype=torch.bool) if left is None else left > 0
