"""Gradient inversion: the example behind a gradient that somebody shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from assay.errors import DataError
from assay.numerics.images import total_variation
from assay.targets.access import Access
from assay.threats import View

Gradients = tuple[Tensor, ...]
"""Of the mean cross-entropy by each parameter, in the order in which the network names them."""


@dataclass(frozen=True, eq=False)
class Update:
    """What a client sent: the gradient of one example, and what everybody knows of the data.

    Attributes:
        gradients: by each parameter.
        shape: of the input, ``[1, …]``.
        point: which point of the view it is about.
    """

    gradients: Gradients
    shape: tuple[int, ...]
    point: int = 0


@dataclass(frozen=True, eq=False)
class Guess:
    """What the adversary makes of an update: an input ``[1, …]`` and a label."""

    x: Tensor
    y: int


def gradients_of(model: nn.Module, x: Tensor, y: Tensor, *, differentiable: bool = False) -> Gradients:
    """The gradient of the mean cross-entropy by each parameter; ``param.grad`` stays as it is.

    Args:
        y: labels int64 ``[n]``, or distributions ``[n, classes]``.
        differentiable: whether the gradients can themselves be differentiated, by ``x`` and ``y``.
    """
    parameters = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    with torch.enable_grad():
        loss = F.cross_entropy(functional_call(model, parameters, (x,)), y)
        return torch.autograd.grad(loss, list(parameters.values()), create_graph=differentiable)


def label_of(model: nn.Module, gradients: Sequence[Tensor]) -> int:
    """The label, exactly: the one class whose logit's gradient, p − 1, is negative.

    Source: Zhao, Mopuri & Bilen, 2020 (iDLG). The last bias's gradient is that of the logits; without a bias its sign
    shows in the rows of the last weight, since the features before it have one sign.
    """
    last = [at for at, p in enumerate(model.parameters()) if p.dim() >= 2][-1]
    bias = gradients[last + 1] if last + 1 < len(gradients) else None
    return int((bias if bias is not None else gradients[last].flatten(1).sum(1)).argmin())


@dataclass(frozen=True, kw_only=True)
class LinearInversion:
    """Divides the gradient of a first dense layer by that of its bias: the input, exactly.

    *Paper*: Phong, Aono, Hayashi, Wang & Moriai, TIFS 2018, §3; the label as in Zhao, Mopuri & Bilen, 2020.
    *Needs*: weights, and one example's gradient.
    *Cost*: one division.
    *Blind spots*: networks that begin with anything but a dense layer with a bias; of a batch it sees a mixture.
    *Held to*: the input to 1e-5 of its range in float32, wherever a unit of the layer is active.
    *Measured*: exact on all of 50 digits through a dense network, median PSNR above 100 dB
    (`tests/privacy/test_gradient_inversion.py`).

    Example:
        >>> import torch
        >>> from assay import demo, privacy, targets
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 20), torch.nn.ReLU(),
        ...                               torch.nn.Linear(20, 10))
        >>> game = privacy.GradientInversionGame(*demo.digits("test[:20]"))
        >>> game.play(privacy.LinearInversion(), targets.torch(net), seed=0)["inputs identified"].estimate
        1.0
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    def infer(self, view: View, update: Update, rng: torch.Generator) -> Guess:
        """See :class:`~assay.privacy.games.gradient_inversion.Inverter`. Raises ``DataError`` (PRV620)."""
        model = view.module()
        weight, bias = update.gradients[0], update.gradients[min(1, len(update.gradients) - 1)]
        if weight.dim() != 2 or bias.dim() != 1 or weight.shape[1] != torch.Size(update.shape).numel():
            raise DataError("PRV620", f"the first parameter has the shape {tuple(weight.shape)}")
        unit = int(bias.abs().argmax())
        x = weight[unit] / bias[unit].where(bias[unit] != 0, torch.ones(()).to(bias))
        return Guess(x.reshape(update.shape), label_of(model, update.gradients))


@dataclass(frozen=True, kw_only=True)
class DLG:
    """Moves an input and a label until their gradient is the one that was sent, in squared distance, by L-BFGS.

    *Paper*: Zhu, Liu & Han, NeurIPS 2019.
    *Needs*: weights, and one example's gradient.
    *Cost*: 1 forward and 2 backwards an evaluation, up to 20 a step.
    *Blind spots*: rectifiers, whose second derivative is zero; trained networks, whose gradients are small.
    *Held to*: the exact input is a root of its objective, so a PSNR above 40 dB wherever it converges.
    *Measured*: all of 6 digits identified and their labels right through a network of sigmoids, median PSNR 92 dB; a
    guess has 8
    (`tests/privacy/test_gradient_inversion.py`).

    Example:
        >>> import torch
        >>> from assay import demo, privacy, targets
        >>> with torch.random.fork_rng():
        ...     _ = torch.manual_seed(0)
        ...     net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Sigmoid(), torch.nn.Flatten(),
        ...                               torch.nn.Linear(288, 10))
        >>> game = privacy.GradientInversionGame(*demo.digits("test[:4]"))
        >>> game.play(privacy.DLG(steps=30), targets.torch(net), seed=0)["inputs identified"].estimate
        1.0

    Attributes:
        steps: of L-BFGS.
        starts: random starts; the one whose gradient comes nearest is kept.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    steps: int = 100
    starts: int = 2

    def infer(self, view: View, update: Update, rng: torch.Generator) -> Guess:
        """See :class:`~assay.privacy.games.gradient_inversion.Inverter`."""
        runs = [self._run(view, update, rng) for _ in range(self.starts)]
        _, x, y = min(runs, key=lambda run: run[0])
        return Guess(x, int(y.argmax()))

    def _run(self, view: View, update: Update, rng: torch.Generator) -> tuple[float, Tensor, Tensor]:
        model, classes = view.module(), update.gradients[-1].shape[0]
        x = torch.randn(update.shape, generator=rng).to(update.gradients[0]).requires_grad_()
        y = torch.randn(1, classes, generator=rng).to(x).detach().requires_grad_()
        optimizer = torch.optim.LBFGS([x, y], lr=1.0, max_iter=20, history_size=100)
        best = [(float("inf"), x.detach().clone(), y.detach().clone())]

        def distance() -> float:
            with torch.enable_grad():
                ours = gradients_of(model, x, y.softmax(1), differentiable=True)
                loss = sum(((a - b).square().sum() for a, b in zip(ours, update.gradients)), torch.zeros(()).to(x))
                x.grad, y.grad = torch.autograd.grad(loss, (x, y))
            view.charge(torch.tensor([update.point]), forwards=1, backwards=2)
            if float(loss.detach()) < best[0][0]:
                best[0] = (float(loss.detach()), x.detach().clone(), y.detach().clone())
            return float(loss.detach())

        for _ in range(self.steps):
            before = best[0][0]
            optimizer.step(distance)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if not best[0][0] < before * (1 - 1e-6):
                break
        return best[0]


@dataclass(frozen=True, kw_only=True)
class CosineInversion:
    """Moves an input until its gradient points where the one that was sent does, preferring smooth images.

    *Paper*: Geiping, Bauermeister, Dröge & Moeller, NeurIPS 2020; the label as in Zhao, Mopuri & Bilen, 2020.
    *Needs*: weights, and one example's gradient.
    *Cost*: 1 forward and 2 backwards a step and start.
    *Blind spots*: examples on which the network is already sure, whose gradient is lost in rounding; batches.
    *Held to*: the exact input has the objective's smallest distance, 0, and nearest neighbors by chance 1 in n.
    *Measured*: all of 10 digits identified from the demo network's gradients, median PSNR 13 dB once trained and 35 dB
    before; a guess has 7 to 10
    (`tests/privacy/test_gradient_inversion.py`).

    Example:
        >>> from assay import demo, privacy
        >>> game = privacy.GradientInversionGame(*demo.digits("test[:4]"))
        >>> game.play(privacy.CosineInversion(steps=150), demo.target(), seed=0)["labels recovered"].estimate
        1.0

    Attributes:
        steps: of Adam on the gradient's sign, its rate divided by ten after 3/8, 5/8 and 7/8 of them.
        rate: Adam's, as a share of the box.
        smooth: the weight of the total variation.
        starts: random starts; the one whose gradient comes nearest is kept.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    steps: int = 400
    rate: float = 0.1
    smooth: float = 1e-3
    starts: int = 1

    def infer(self, view: View, update: Update, rng: torch.Generator) -> Guess:
        """See :class:`~assay.privacy.games.gradient_inversion.Inverter`."""
        label = label_of(view.module(), update.gradients)
        runs = [self._run(view, update, label, rng) for _ in range(self.starts)]
        return Guess(min(runs, key=lambda run: run[0])[1], label)

    def _run(self, view: View, update: Update, label: int, rng: torch.Generator) -> tuple[float, Tensor]:
        model, (low, high) = view.module(), view.bounds
        x = (torch.rand(update.shape, generator=rng) * (high - low) + low).to(update.gradients[0]).requires_grad_()
        y = torch.tensor([label], device=x.device)
        optimizer = torch.optim.Adam([x], lr=self.rate * (high - low))
        drops = [round(self.steps * share) for share in (3 / 8, 5 / 8, 7 / 8)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
        best, found = float("inf"), x.detach().clone()
        for _ in range(self.steps):
            with torch.enable_grad():
                apart = _angle(gradients_of(model, x, y, differentiable=True), update.gradients)
                loss = apart + self.smooth * _variation(x)
                (gradient,) = torch.autograd.grad(loss, x)
            if float(loss.detach()) < best:
                best, found = float(loss.detach()), x.detach().clone()
            x.grad = gradient.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                x.clamp_(low, high)
        view.charge(torch.tensor([update.point]), forwards=self.steps, backwards=2 * self.steps)
        return best, found


def _angle(ours: Gradients, theirs: Gradients) -> Tensor:
    """1 − cosine, over all parameters together."""
    inner = torch.stack([(a * b).sum() for a, b in zip(ours, theirs)]).sum()
    return 1 - inner / (_length(ours) * _length(theirs)).clamp_min(1e-30)


def _length(gradients: Gradients) -> Tensor:
    return torch.stack([part.square().sum() for part in gradients]).sum().sqrt()


def _variation(x: Tensor) -> Tensor:
    return total_variation(x).sum() if x.dim() == 4 else torch.zeros(()).to(x)
