"""Model inversion: what a class looks like, from the model that tells it from others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import DataError
from assay.numerics.images import total_variation
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, eq=False)
class Prior:
    """How inputs are distributed in general: a Gaussian of a few strong directions and even noise.

    Source: Tipping & Bishop, JRSS B 1999 (probabilistic principal components), fitted to other people's examples.

    Attributes:
        mean: ``[features]``.
        directions: orthonormal rows ``[k, features]``, the strongest first.
        spread: standard deviation along each, ``[k]``.
        noise: standard deviation in every direction beside.
        shape: of one input.
    """

    mean: Tensor
    directions: Tensor
    spread: Tensor
    noise: float
    shape: tuple[int, ...]

    @classmethod
    def fit(cls, x: Tensor, noise: float) -> Self:
        """Of inputs ``[n, …]``. Raises ``DataError`` (PRV630) where there are fewer than two."""
        if len(x) < 2:
            raise DataError("PRV630", f"{len(x)} inputs")
        rows = x.flatten(1)
        mean = rows.mean(0)
        _, scale, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        return cls(mean, directions, scale / len(x) ** 0.5, noise, tuple(x.shape[1:]))

    def pull(self, x: Tensor) -> Tensor:
        """The gradient of −log density at ``[n, …]``."""
        away = x.flatten(1) - self.mean
        along = away @ self.directions.T
        precise = 1 / (self.spread**2 + self.noise**2)
        rest = away - along @ self.directions
        return ((along * precise) @ self.directions + rest / self.noise**2).reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class MIFace:
    """Descends the cross-entropy of a class from an average input, pixel by pixel.

    *Paper*: Fredrikson, Jha & Ristenpart, CCS 2015, Algorithm 1, with the logarithm of the confidence in place of the
    confidence, and without its denoising step.
    *Needs*: gradients.
    *Cost*: 1 forward and 1 backward a class and step.
    *Blind spots*: networks whose classes are no averages of their members; what it finds need not look like anything.
    *Held to*: ART 1.20.1's MIFace from the same start with as many steps: 39 of 40 people from softmax regression, 38
    from a perceptron, median PSNR 18.5 to 20.7 dB; from two classes' softmax regression, the known direction to 1e-6.
    *Measured*: 39 of 40 people identified from softmax regression and 39 from a perceptron of 100 units, by photos that
    neither saw; median PSNR 19.3 to 20.9 dB, where the mean face of others has 17.3 to 18.4
    (`tests/privacy/test_model_inversion.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, y = demo.digits()
        >>> game = privacy.ModelInversionGame(x, y, public=demo.digits("train")[0])
        >>> game.play(privacy.MIFace(steps=100), demo.target(), seed=0)["classes identified"].estimate >= 0.5
        True

    Attributes:
        steps: of descent.
        rate: how far a unit gradient moves, in widths of the box.
    """

    needs: ClassVar[Access] = Access.GRADIENTS

    steps: int = 300
    rate: float = 0.1

    def infer(self, view: View, y: Tensor, public: Tensor, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.model_inversion.Inverter`."""
        at, (low, high) = torch.arange(len(y)), view.bounds
        x = public.mean(0).expand(len(y), *public.shape[1:]).clone()
        for _ in range(self.steps):
            x = (x - self.rate * (high - low) * view.gradient(x, at, _entropy, y).gradient).clamp(low, high)
        return x


@dataclass(frozen=True, kw_only=True)
class PriorInversion:
    """Descends the cross-entropy of a class and the improbability of the input, as other people's examples tell it.

    *Paper*: Fredrikson, Jha & Ristenpart, CCS 2015; the prior is a Gaussian of principal components (Tipping & Bishop,
    JRSS B 1999) with total variation (Mahendran & Vedaldi, CVPR 2015), where Zhang et al. (CVPR 2020) train a network.
    *Needs*: gradients, and inputs of other classes.
    *Cost*: 1 forward and 1 backward a class and step.
    *Blind spots*: what the prior has never seen.
    *Held to*: chance, 1 in 40; nearer to the person's photos in PSNR than the mean face.
    *Measured*: 33 of 40 people from softmax regression and 34 from a perceptron, 5 or 6 fewer than without the prior;
    median PSNR 19.3 to 20.6 dB, as a gentle descent has without it (`tests/privacy/test_model_inversion.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, y = demo.digits()
        >>> game = privacy.ModelInversionGame(x, y, public=demo.digits("train")[0])
        >>> game.play(privacy.PriorInversion(), demo.target(), seed=0)["classes identified"].estimate >= 0.5
        True

    Attributes:
        steps: of Adam.
        rate: Adam's, in widths of the box.
        strength: of the prior.
        noise: the prior's, beside the principal components.
        smooth: of the total variation, of images.
    """

    needs: ClassVar[Access] = Access.GRADIENTS

    steps: int = 300
    rate: float = 0.01
    strength: float = 1e-4
    noise: float = 0.1
    smooth: float = 0.0

    def infer(self, view: View, y: Tensor, public: Tensor, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.model_inversion.Inverter`. Raises ``DataError`` (PRV630)."""
        prior, at, (low, high) = Prior.fit(public, self.noise), torch.arange(len(y)), view.bounds
        x = prior.mean.reshape(prior.shape).expand(len(y), *prior.shape).clone()
        optimizer = torch.optim.Adam([x], lr=self.rate * (high - low))
        for _ in range(self.steps):
            x.grad = view.gradient(x, at, _entropy, y).gradient + self.strength * prior.pull(x)
            if self.smooth and x.dim() == 4:
                x.grad = x.grad + self.smooth * _rough(x)
            optimizer.step()
            x.clamp_(low, high)
        x.grad = None
        return x


@dataclass(frozen=True, kw_only=True)
class ScoreInversion:
    """Descends the same cross-entropy without gradients: by differences along what varies among other people.

    *Paper*: Fredrikson, Jha & Ristenpart, CCS 2015, of services that give confidences alone; the directions are
    principal components of other people's examples instead of pixels.
    *Needs*: scores, and inputs of other classes.
    *Cost*: 2 forwards a class, step and direction.
    *Blind spots*: what does not vary among the other people's examples; scores that are rounded.
    *Held to*: chance, 1 in 40, and the white-box attack beside it.
    *Measured*: 36 and 37 of 40 people by 20,000 queries each, where the white box has 39
    (`tests/privacy/test_model_inversion.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, y = demo.digits()
        >>> game = privacy.ModelInversionGame(x, y, public=demo.digits("train")[0])
        >>> game.play(privacy.ScoreInversion(steps=30), demo.target(), seed=0)["classes identified"].estimate >= 0.4
        True

    Attributes:
        steps: of descent.
        directions: principal components along which it looks, at most as many as there are.
        width: of a difference, in widths of the box.
        rate: how far a unit slope moves, in widths of the box.
    """

    needs: ClassVar[Access] = Access.SCORES

    steps: int = 100
    directions: int = 100
    width: float = 0.01
    rate: float = 0.3

    def infer(self, view: View, y: Tensor, public: Tensor, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.model_inversion.Inverter`. Raises ``DataError`` (PRV630)."""
        prior, at, (low, high) = Prior.fit(public, 1.0), torch.arange(len(y)), view.bounds
        ways = prior.directions[: self.directions].reshape(-1, *prior.shape)
        width = self.width * (high - low)
        x = prior.mean.reshape(prior.shape).expand(len(y), *prior.shape).clone()
        who, label = at.repeat_interleave(len(ways)), y.repeat_interleave(len(ways))
        for _ in range(self.steps):
            probe = width * ways.repeat(len(y), *(1 for _ in prior.shape))
            base = x.repeat_interleave(len(ways), 0)
            up, down = (_entropy(view.scores(base + sign * probe, who), label) for sign in (1, -1))
            slope = ((up - down) / (2 * width)).reshape(len(y), len(ways))
            step = torch.einsum("nk,k...->n...", slope, ways)
            x = (x - self.rate * (high - low) * step).clamp(low, high)
        return x


def _entropy(scores: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(scores, y, reduction="none")


def _rough(x: Tensor) -> Tensor:
    """The gradient of the total variation of each image, in units of its pixels."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(total_variation(leaf).sum() * x[0].numel(), leaf)
    return gradient
