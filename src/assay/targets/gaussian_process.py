"""Gaussian process classifiers as differentiable formulas: what a white-box adversary reads of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""The covariance of rows: ``(x [rows, features], train [n, features]) -> [rows, n]``."""

_LAMBDAS = (0.41, 0.4, 0.37, 0.44, 0.39)
_COEFS = (-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654)
"""The logistic function as a sum of five error functions (Williams & Barber, 1998, Appendix A), as scikit-learn's."""

TOLERANCE = 1e-6
"""How far two probabilities have to be apart to be told apart: the five coefficients all but cancel."""


@dataclass(frozen=True, eq=False)
class Latent:
    """One Gaussian process with a logistic link, by Laplace's approximation.

    Attributes:
        kernel: the covariance.
        own: the variance of an input with itself, noise included.
        train: ``[n, features]``.
        pull: ``[n]``: the gradient of the log-likelihood at the mode; the mean is the kernel times this.
        known: ``[n, n]``: what the data take off the variance, as a quadratic form of the kernel.
    """

    kernel: Kernel
    own: float
    train: Tensor
    pull: Tensor
    known: Tensor

    def at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent function at ``x [rows, features]``, ``[rows]`` each.

        Source: Rasmussen & Williams, 2006, Algorithm 3.2. Row by row, so that a row's numbers do not depend on others.
        """
        near = self.kernel(x, self.train)
        form = torch.bmm(near[:, None], self.known.expand(len(x), -1, -1))[:, 0]
        return (near * self.pull).sum(1), (self.own - (form * near).sum(1)).clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """A Gaussian process classifier: one latent function for two classes, one a class for more.

    Attributes:
        latent: one, or one a class.
        tolerance: how far two scores of one row have to be apart to be told apart.
    """

    latent: tuple[Latent, ...]
    tolerance: float = TOLERANCE

    @property
    def classes(self) -> int:
        """How many there are."""
        return max(len(self.latent), 2)

    def believe(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the classes, and the variance behind each, ``[rows, classes]`` both; differentiable."""
        parts = [latent.at(x) for latent in self.latent]
        shares = torch.stack([_share(mean, variance) for mean, variance in parts], 1)
        variances = torch.stack([variance for _, variance in parts], 1)
        if len(parts) == 1:
            return torch.cat([1 - shares, shares], 1), variances.expand(-1, 2)
        return shares / shares.sum(1, keepdim=True), variances

    def scores(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The probabilities of the rows ``x [rows, features]``, ``[rows, classes]``."""
        said: npt.NDArray[np.float64] = self.believe(torch.from_numpy(x))[0].numpy()
        return said


def _share(mean: Tensor, variance: Tensor) -> Tensor:
    """The logistic function averaged over a normal distribution."""
    total = torch.zeros_like(mean)
    for scale, coefficient in zip(_LAMBDAS, _COEFS):
        total = total + coefficient * (torch.erf(scale * mean / (1 + 2 * variance * scale**2).sqrt()) + 1)
    return total / 2


def read_process(estimator: Any) -> GaussianProcess | None:
    """The structure of scikit-learn's fitted GaussianProcessClassifier; ``None`` for any other estimator.

    Read are sums and products of constant, RBF, Matérn (3/2, 5/2) and white kernels, with one class against the rest.
    """
    home = sys.modules.get("sklearn.gaussian_process")
    if home is None or not isinstance(estimator, home.GaussianProcessClassifier):
        return None
    if estimator.n_classes_ > 2 and estimator.multi_class != "one_vs_rest":
        return None
    base = estimator.base_estimator_
    latent = [_latent(one) for one in (base.estimators_ if estimator.n_classes_ > 2 else [base])]
    return None if any(one is None for one in latent) else GaussianProcess(tuple(one for one in latent if one))


def _latent(one: Any) -> Latent | None:
    kernel = _kernel(one.kernel_)
    if kernel is None:
        return None
    # scikit-learn: v = L⁻¹ W^½ k, variance k** − v·v; here the form M = W^½ L⁻ᵀ L⁻¹ W^½ once and for all.
    half = np.linalg.solve(one.L_, np.diag(one.W_sr_))
    train = np.asarray(one.X_train_, np.float64)
    tensors = [torch.from_numpy(np.ascontiguousarray(part, np.float64))
               for part in (train, one.y_train_ - one.pi_, half.T @ half)]
    return Latent(kernel, float(one.kernel_.diag(train[:1])[0]), *tensors)


def _kernel(kernel: Any) -> Kernel | None:
    """The covariance between different inputs, read from scikit-learn's."""
    kind = type(kernel).__name__
    if kind in ("Sum", "Product"):
        first, second = _kernel(kernel.k1), _kernel(kernel.k2)
        if first is None or second is None:
            return None
        return _joined(first, second, torch.add if kind == "Sum" else torch.mul)
    if kind in ("ConstantKernel", "WhiteKernel"):
        value = float(kernel.constant_value) if kind == "ConstantKernel" else 0.0  # noise is shared by no two inputs
        return lambda x, train: x.new_full((len(x), len(train)), value)
    shape = {"RBF": _gaussian, "Matern": _MATERN.get(float(getattr(kernel, "nu", 0.0)))}.get(kind)
    return None if shape is None else _scaled(shape, torch.as_tensor(kernel.length_scale, dtype=torch.float64))


def _joined(first: Kernel, second: Kernel, join: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    return lambda x, train: join(first(x, train), second(x, train))


def _scaled(shape: Callable[[Tensor], Tensor], length: Tensor) -> Kernel:
    return lambda x, train: shape((((x[:, None] - train) / length) ** 2).sum(2))


def _gaussian(square: Tensor) -> Tensor:
    return (-square / 2).exp()


def _matern_3_2(square: Tensor) -> Tensor:
    far = (3 * square).clamp_min(1e-30).sqrt()
    return (1 + far) * (-far).exp()


def _matern_5_2(square: Tensor) -> Tensor:
    far = (5 * square).clamp_min(1e-30).sqrt()
    return (1 + far + far**2 / 3) * (-far).exp()


_MATERN = {1.5: _matern_3_2, 2.5: _matern_5_2, float("inf"): _gaussian}
