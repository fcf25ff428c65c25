"""Activations other than ReLUs in a finished network: the largest alone, rounded, or pruned at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.defenses.obfuscation.target import RewiredTarget
from assay.targets.base import Target
from assay.targets.defended import Parts


@dataclass(frozen=True, kw_only=True)
class KWTA:
    """In every layer the k largest values go on as they are, all others become zero: k-winners-take-all.

    *Paper*: Xiao, Zhong & Zheng, ICLR 2020.
    *Needs*: weights.
    *Cost*: a selection in place of every ReLU.
    *Blind spots*: its scores jump, so gradients mislead near the input; not those of the ReLUs it replaced, nor any
    search that looks further.
    *Held to*: Tramèr et al., NeurIPS 2020, §5: 0.16 % left at Linf 8/255 of networks trained with it.
    *Measured*: exactly k are active (``tests/evasion/defenses/test_obfuscation.py``); of a ResNet-20 on 300 CIFAR-10
    images at Linf 8/255, 84.7 % accurate behind it, an attack that does not know (PGD-40) leaves 0 %, one that knows
    (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``. The gradients of a network that was not trained with it are
    not hidden.

    The paper trains networks with it; here it goes into a finished one, which pays with clean accuracy.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.KWTA().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10), safe, seed=0)["robust accuracy"].estimate < 0.1
        True

    Attributes:
        ratio: k over the number of values in the layer; k is rounded down, but at least 1.
    """

    parts: ClassVar[Parts] = Parts(surrogate=True)

    ratio: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ConfigError("PRF131", f"{self} cannot be used: ratio must be above 0 and at most 1")

    def protect(self, target: Target) -> RewiredTarget:
        """``target`` with these activations; itself unchanged."""
        return RewiredTarget.of(target, self)

    def fire(self, x: Tensor) -> Tensor:
        """The winners of each row."""
        rows = x.flatten(1)
        k = max(int(self.ratio * rows.shape[1]), 1)
        winners = rows.topk(k, dim=1, sorted=False)
        return torch.zeros_like(rows).scatter(1, winners.indices, winners.values).reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class RoundActivations:
    """Every ReLU's values are rounded to evenly spaced levels between zero and the layer's largest value.

    *Paper*: none of its own; as thermometer codes do to inputs (Buckman et al., ICLR 2018), it shatters gradients
    (Athalye et al., ICML 2018).
    *Needs*: weights.
    *Cost*: a rounding after every ReLU.
    *Blind spots*: its gradient is zero, which stops no attack that leaves the rounding out on the way back.
    *Held to*: Athalye et al., ICML 2018, Table 1: 0 % left of networks whose gradients are shattered.
    *Measured*: of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 85.7 % accurate behind it, an attack that does not
    know (PGD-40) leaves 71.3 %, one that knows (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.RoundActivations().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> found = game.play(evasion.PGD(steps=10), safe, seed=0)
        >>> found["non-adaptive robust accuracy"].estimate > 0.9, found["robust accuracy"].estimate < 0.1
        (True, True)

    Attributes:
        levels: above zero, for each row and layer.
    """

    parts: ClassVar[Parts] = Parts(surrogate=True)

    levels: int = 7

    def __post_init__(self) -> None:
        if not self.levels >= 1:
            raise ConfigError("PRF131", f"{self} cannot be used: it takes at least one level above zero")

    def protect(self, target: Target) -> RewiredTarget:
        """``target`` with these activations; itself unchanged."""
        return RewiredTarget.of(target, self)

    def fire(self, x: Tensor) -> Tensor:
        """The nearest level of every value."""
        positive = x.clamp_min(0)
        largest = positive.detach().flatten(1).amax(1).clamp_min(torch.finfo(x.dtype).tiny)
        step = (largest / self.levels).reshape(-1, *[1] * (x.dim() - 1))
        return (positive / step).round() * step


@dataclass(frozen=True, kw_only=True)
class ActivationPruning:
    """In every layer activations are dropped at random, the small ones more often, and the rest scaled up to match.

    *Paper*: Dhillon et al., ICLR 2018 (stochastic activation pruning, SAP).
    *Needs*: weights.
    *Cost*: one random number an activation.
    *Blind spots*: an attack that averages gradients over draws; its expectation is the layer as it was.
    *Held to*: Athalye et al., ICML 2018, Table 1: 0 % left at Linf 8/255 on CIFAR-10.
    *Measured*: of a ResNet-20 on 100 CIFAR-10 images at Linf 8/255, 85.0 % accurate behind it, PGD-40 leaves 0 %,
    averaged over 5 draws or not: `tests/papers/test_defenses_fall.py`.

    The paper draws ``r`` activations with replacement, with probabilities in proportion to their size. Here each stays
    with the chance that those draws give it, by a coin of its own: the expectation is the same, and no order of draws
    is needed; how many stay varies a little more.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.ActivationPruning().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10, draws=4), safe, seed=0)["robust accuracy"].estimate < 0.1
        True

    Attributes:
        ratio: draws over the number of activations in the layer.
    """

    parts: ClassVar[Parts] = Parts(surrogate=True, randomness=True)

    ratio: float = 1.5

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise ConfigError("PRF131", f"{self} cannot be used: ratio must be positive")

    def protect(self, target: Target) -> RewiredTarget:
        """``target`` with these activations; itself unchanged."""
        return RewiredTarget.of(target, self)

    def fire(self, x: Tensor) -> Tensor:
        """What stays of the ReLU, scaled so that its expectation is the ReLU."""
        positive = x.clamp_min(0)
        chance = self._chance(positive.flatten(1)).reshape(x.shape)
        stays = torch.rand(x.shape, dtype=x.dtype, device=x.device) < chance
        return torch.where(stays, positive / chance, 0)

    def _chance(self, sizes: Tensor) -> Tensor:
        """1 − (1 − p)^r of each activation (Dhillon et al., §3): that r draws with replacement take it at all."""
        p = sizes / sizes.sum(1, keepdim=True).clamp_min(torch.finfo(sizes.dtype).tiny)
        draws = max(round(self.ratio * sizes.shape[1]), 1)
        return -torch.expm1(draws * torch.log1p(-p)).clamp_max(-torch.finfo(sizes.dtype).tiny)
