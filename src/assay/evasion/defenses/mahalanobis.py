"""Mahalanobis distances: the features of natural inputs lie near the mean of a class, measured in their own spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

from assay.evasion.defenses.detection import Guard, prepared, split
from assay.evasion.defenses.layered import crafted, features_of, refuse_settings, regressed
from assay.targets.access import Access
from assay.targets.base import Target, WhiteBox
from assay.targets.features import chosen


@dataclass(frozen=True, kw_only=True)
class Mahalanobis:
    """Refuses inputs whose features, at several layers, are far from every class.

    *Paper*: Lee, Lee, Lee & Shin, NeurIPS 2018, "A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks", without their input pre-processing; a thousandth of the mean variance is added to the
    covariance, which features that are always zero would make singular.
    *Needs*: weights, and natural inputs with labels.
    *Cost*: 1 forward a query, and a quadratic form for each class at each layer; to fit, PGD twice on a fifth of the
    inputs.
    *Blind spots*: attacks that change features little, those unlike what it learned from, and attacks that know it.
    *Held to*: SciPy's distances; 95 % of CIFAR-10 images lost to an attack that knows it, at Linf 8/255 and 5 % false
    positives.
    *Measured*: distances to 1e-9 (`tests/evasion/defenses/test_detection.py`); of 300 images PGD-40 that does not
    know it leaves 14.3 %, PGD-200 on the joint margin 0 %, feature collision 0 % (`benchmarks/detectors.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, (x, y) = demo.target(), demo.digits("test[:100]")
        >>> safe = evasion.Mahalanobis(radius=0.2).fit(net, *demo.digits("train")).protect(net)
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat(knows={"model"}))
        >>> found = game.play(evasion.PGD(steps=20), safe, seed=0)
        >>> found["clean accuracy"].estimate > 0.8, found["robust accuracy"].estimate > 0.6
        (True, True)

    Attributes:
        layers: names as in :mod:`assay.targets.features`; empty for ``count`` of them, the penultimate one included.
        count: how many layers are chosen where none is named.
        radius: of the adversarial examples to learn from, in Linf.
        steps: of the attack that makes them.
        false_positives: the share of natural inputs that may be refused.
    """

    layers: tuple[str, ...] = ()
    count: int = 4
    radius: float = 8 / 255
    steps: int = 20
    false_positives: float = 0.05

    def __post_init__(self) -> None:
        refuse_settings(self, holds=self.count >= 1 and self.radius > 0 and self.steps >= 1
                        and 0 <= self.false_positives < 1)

    def fit(self, target: Target, x: Tensor, y: Tensor, *, seed: int = 0) -> Guard:
        """The detector for ``target``, from natural inputs ``x [n, …]`` and their labels.

        Of the inputs, 40 % (drawn by ``seed``) are what the Gaussians are fitted to, 20 % are attacked and teach the
        regression, and 40 % set the threshold.
        """
        x, y = prepared(target, x, y, Access.WEIGHTS)
        learned, held = split(x, 0.6, seed)
        refuse_settings(self, holds=len(learned) >= 6)
        white, names = cast(WhiteBox, target), self.layers or chosen(cast(WhiteBox, target).module(), x, self.count)
        modeled, attacked = learned[: 2 * len(learned) // 3], learned[2 * len(learned) // 3 :]
        measure = ClassDistance.fitted(features_of(white, names, x[modeled]), y[modeled])
        seen = crafted(white, x[attacked], y[attacked], self.radius, self.steps, seed)
        detector = regressed("Mahalanobis distances", names, measure, white, seen)
        return Guard.calibrated(detector, target, x[held], self.false_positives, seed)


@dataclass(frozen=True, eq=False)
class ClassDistance:
    """Squared distances to the nearest of class-conditional Gaussians with one covariance a layer.

    Attributes:
        means: ``[classes, channels]`` for each layer; classes without an example are left out.
        precisions: inverse covariances, ``[channels, channels]`` for each layer.
    """

    means: tuple[Tensor, ...]
    precisions: tuple[Tensor, ...]

    @classmethod
    def fitted(cls, features: tuple[Tensor, ...], y: Tensor) -> Self:
        """Means of the classes, and the covariance around them (Lee et al., 2018, Eq. 1)."""
        present, own = torch.unique(y, return_inverse=True)
        means = tuple(torch.stack([f[y == c].mean(0) for c in present]) for f in features)
        return cls(means, tuple(_precision(f - m[own]) for f, m in zip(features, means)))

    def __call__(self, features: tuple[Tensor, ...]) -> Tensor:
        """``[rows, layers]``: ``min_c (f − μ_c)ᵀ Σ⁻¹ (f − μ_c)`` (Lee et al., 2018, Eq. 2, its sign turned)."""
        columns = []
        for f, means, precision in zip(features, self.means, self.precisions):
            centered = f[:, None] - means
            columns.append(((centered @ precision) * centered).sum(2).amin(1))
        return torch.stack(columns, 1)

    def state(self) -> dict[str, object]:
        """Means and precisions."""
        pairs = enumerate(zip(self.means, self.precisions))
        return {f"{what} {i}": value for i, pair in pairs for what, value in zip(("means", "precision"), pair)}


def _precision(centered: Tensor) -> Tensor:
    """The inverse of the covariance, which a thousandth of its mean variance keeps regular."""
    rows = centered.double()
    covariance = rows.T @ rows / len(rows)
    ridge = 1e-3 * covariance.diagonal().mean().clamp_min(1e-12)
    ridge = ridge * torch.eye(len(covariance), dtype=rows.dtype, device=rows.device)
    inverse: Tensor = torch.linalg.inv(covariance + ridge)
    return inverse.to(centered.dtype)
