"""Local intrinsic dimensionality: adversarial inputs lie where the features spread into more dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from assay.evasion.defenses.detection import Guard, prepared, split
from assay.evasion.defenses.layered import crafted, features_of, refuse_settings, regressed
from assay.targets.access import Access
from assay.targets.base import Target, WhiteBox
from assay.targets.features import chosen


@dataclass(frozen=True, kw_only=True)
class LID:
    """Refuses inputs whose features, at several layers, have neighbors as in a space of unnatural dimension.

    *Paper*: Ma et al., ICLR 2018, "Characterizing adversarial subspaces using local intrinsic dimensionality", with
    features averaged over all places of a layer, and one fixed neighborhood in the place of minibatches. Athalye,
    Carlini & Wagner, ICML 2018, break it with confidence alone.
    *Needs*: weights, and natural inputs with labels.
    *Cost*: 1 forward a query, and distances to ``reference`` points at each layer; to fit, PGD twice on about half of
    the inputs.
    *Blind spots*: attacks unlike those it learned from, and attacks that know it.
    *Held to*: the dimension of uniform data; 95 % of CIFAR-10 images lost to an attack that knows it, at Linf 8/255 and
    5 % false positives.
    *Measured*: the dimension to 8 % (`tests/evasion/defenses/test_detection.py`); of 300 images PGD-40 that does
    not know it leaves 27.7 %, PGD-200 on the joint margin 0 %, feature collision 0 % (`benchmarks/detectors.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, (x, y) = demo.target(), demo.digits("test")
        >>> guard = evasion.LID(radius=0.2).fit(net, *demo.digits("train"))
        >>> safe, (low, high) = guard.protect(net), guard.rate.interval
        >>> refused = safe.labels(x) == safe.classes
        >>> low - 0.02 < float(refused.float().mean()) < high + 0.02
        True

    Attributes:
        neighbors: how many of the nearest natural inputs say how a neighborhood grows.
        reference: how many natural inputs are the neighborhood.
        layers: names as in :mod:`assay.targets.features`; empty for ``count`` of them, the penultimate one included.
        count: how many layers are chosen where none is named.
        radius: of the adversarial examples to learn from, in Linf.
        steps: of the attack that makes them.
        false_positives: the share of natural inputs that may be refused.
    """

    neighbors: int = 20
    reference: int = 100
    layers: tuple[str, ...] = ()
    count: int = 4
    radius: float = 8 / 255
    steps: int = 20
    false_positives: float = 0.05

    def __post_init__(self) -> None:
        refuse_settings(self, holds=2 <= self.neighbors <= self.reference and self.count >= 1 and self.radius > 0
                        and self.steps >= 1 and 0 <= self.false_positives < 1)

    def fit(self, target: Target, x: Tensor, y: Tensor, *, seed: int = 0) -> Guard:
        """The detector for ``target``, from natural inputs ``x [n, …]`` and their labels.

        Of the inputs, 40 % (drawn by ``seed``) set the threshold; of the others ``reference`` are the neighborhood,
        and the rest are attacked and teach the regression.
        """
        x, y = prepared(target, x, y, Access.WEIGHTS)
        learned, held = split(x, 0.6, seed)
        refuse_settings(self, holds=len(learned) >= self.reference + 2)
        white, names = cast(WhiteBox, target), self.layers or chosen(cast(WhiteBox, target).module(), x, self.count)
        around, attacked = learned[: self.reference], learned[self.reference :]
        measure = LocalDimension(features_of(white, names, x[around]), self.neighbors)
        seen = crafted(white, x[attacked], y[attacked], self.radius, self.steps, seed)
        detector = regressed("LID", names, measure, white, seen)
        return Guard.calibrated(detector, target, x[held], self.false_positives, seed)


@dataclass(frozen=True, eq=False)
class LocalDimension:
    """The local intrinsic dimensionality of features, by maximum likelihood.

    Attributes:
        reference: features of natural inputs, ``[m, channels]`` for each layer.
        neighbors: how many of them say how the neighborhood grows.
    """

    reference: tuple[Tensor, ...]
    neighbors: int

    def __call__(self, features: tuple[Tensor, ...]) -> Tensor:
        """``[rows, layers]``."""
        return torch.stack([dimension(f, r, self.neighbors) for f, r in zip(features, self.reference)], 1)

    def state(self) -> dict[str, object]:
        """The reference features."""
        return {"neighbors": self.neighbors, **{f"reference {i}": r for i, r in enumerate(self.reference)}}


def dimension(points: Tensor, reference: Tensor, neighbors: int) -> Tensor:
    """``−(1/k Σ log(r_i / r_k))⁻¹`` over the distances to the ``k`` nearest of ``reference`` (Ma et al., 2018, Eq. 4).

    Args:
        points: ``[rows, channels]``.
        reference: ``[m ≥ k, channels]``.

    Returns:
        ``[rows]``; finite also where neighbors coincide with the point or with one another: nearer than a
        ten-thousandth of the farthest is rounding.
    """
    apart = torch.cdist(points, reference, compute_mode="donot_use_mm_for_euclid_dist")
    near = apart.topk(neighbors, dim=1, largest=False).values
    share = near / near[:, -1:].clamp_min(torch.finfo(near.dtype).tiny)
    return -1 / share.clamp_min(1e-4).log().mean(1).clamp_max(-1e-6)
