"""Gaussian processes read into formulas: probabilities and variances are the library's own, and differentiable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, RationalQuadratic, WhiteKernel

from assay import targets, testing
from assay.targets import Access
from assay.targets.gaussian_process import GaussianProcess

KERNELS = [
    RBF(0.4),
    ConstantKernel(20.0) * RBF([0.3, 0.5, 2.0]),
    ConstantKernel(5.0) * Matern(0.5, nu=1.5) + WhiteKernel(0.1),
    Matern(0.5, nu=2.5) + RBF(0.2) * ConstantKernel(3.0),
]


def fitted(kernel: object, classes: int) -> tuple[GaussianProcessClassifier, np.ndarray]:
    x = np.random.default_rng(0).random((80, 3))
    y = np.digitize(x[:, 0] + x[:, 1] ** 2, [0.6, 1.1][: classes - 1])
    return GaussianProcessClassifier(kernel, optimizer=None).fit(x, y), np.random.default_rng(1).random((40, 3))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kernel", KERNELS, ids=["rbf", "scaled", "matern and noise", "sum"])
def test_the_formulas_are_the_librarys(kernel: object, classes: int) -> None:
    model, z = fitted(kernel, classes)
    target = targets.sklearn(model)
    process = target.structure
    assert isinstance(process, GaussianProcess)
    assert (target.offers, process.classes) == (Access.WEIGHTS, classes)
    testing.check_target(target, torch.from_numpy(z))
    np.testing.assert_allclose(process.scores(z), model.predict_proba(z), atol=1e-9)
    binary = [model.base_estimator_] if classes == 2 else model.base_estimator_.estimators_
    for latent, one in zip(process.latent, binary):
        for mine, theirs in zip(latent.at(torch.from_numpy(z)), one.latent_mean_and_variance(z)):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-9)
    rows = torch.from_numpy(z[:3]).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: process.believe(x)[1], (rows,))
    assert torch.autograd.gradcheck(lambda x: process.latent[0].at(x)[0], (rows,))


def test_other_kernels_are_not_read() -> None:
    assert targets.sklearn(fitted(RationalQuadratic(), 2)[0]).offers is Access.SCORES
    assert targets.sklearn(fitted(Matern(0.5, nu=0.5), 2)[0]).structure is None
