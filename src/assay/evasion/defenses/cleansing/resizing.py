"""Images of another size: smaller and back, or smaller somewhere at random on a black ground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.defenses.cleansing.target import CleansedTarget, require_images
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.targets.defended import Parts


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """Images are made smaller and brought back to their size.

    *Paper*: none of its own; the simplest of the transformations of Guo et al., ICLR 2018.
    *Needs*: images; anything of the model.
    *Cost*: two interpolations.
    *Blind spots*: it is linear: a gradient passes it as it passes a convolution.
    *Held to*: averages known in closed form; the attack's level on the bare network.
    *Measured*: ``tests/evasion/defenses/test_cleansing.py``; of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 77.0
    % accurate behind it, an attack that does not know (PGD-40) leaves 0 %, one that knows (PGD-100) 0 %:
    ``tests/papers/test_defenses_fall.py``.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.Rescale().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10), safe, seed=0)["robust accuracy"].estimate < 0.1
        True

    Attributes:
        factor: of the smaller size, between 0 and 1; antialiased on the way down, bilinear on both.
    """

    parts: ClassVar[Parts] = Parts()

    factor: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ConfigError("PRF131", f"{self} cannot be used: factor must be between 0 and 1")

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the interpolation; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """The images, with what does not fit the smaller size gone."""
        require_images(x, self)
        size = [int(x.shape[2]), int(x.shape[3])]
        smaller = [max(round(self.factor * side), 1) for side in size]
        down = F.interpolate(x, smaller, mode="bilinear", antialias=True)
        return F.interpolate(down, size, mode="bilinear")


@dataclass(frozen=True, kw_only=True)
class RandomResizePad:
    """Every image is shrunk to a random size and put at a random place on a black ground of the size that it had.

    *Paper*: Xie et al., ICLR 2018. There images grow, and the network takes the larger size; here they shrink, so
    that networks of one fixed size can be protected: the ratio of the image to the ground is the paper's.
    *Needs*: images; anything of the model.
    *Cost*: one interpolation.
    *Blind spots*: an attack that averages gradients over draws.
    *Held to*: Athalye et al., ICML 2018, Table 1: 0 % left at Linf 8/255 on ImageNet.
    *Measured*: of a ResNet-20 on 100 CIFAR-10 images at Linf 8/255, 96.0 % accurate behind it, PGD-40 leaves 0 %,
    averaged over 5 draws or not: `tests/papers/test_defenses_fall.py`.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.RandomResizePad().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10, draws=4), safe, seed=0)["robust accuracy"].estimate < 0.2
        True

    Attributes:
        smallest: the least share of its height and width to which an image shrinks; the paper's 299/331.
    """

    parts: ClassVar[Parts] = Parts(randomness=True)

    smallest: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ConfigError("PRF131", f"{self} cannot be used: smallest must be above 0 and at most 1")

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the random layers; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """Every image by its own draw."""
        require_images(x, self)
        share = self.smallest + (1 - self.smallest) * rng.fold("size").uniform(dtype=torch.float64)
        down = self._placed(x.shape[2], share, rng.fold("top")).to(x.dtype)
        across = self._placed(x.shape[3], share, rng.fold("left")).to(x.dtype)
        return down[:, None] @ x @ across[:, None].transpose(2, 3)

    def _placed(self, size: int, share: Tensor, rng: Stream) -> Tensor:
        """For each row the matrix that shrinks a line of pixels and puts it somewhere, ``[rows, size, size]``."""
        smaller = (share * size).round().clamp_min(1)
        start = rng.integers(size + 1 - smaller)
        inside = torch.arange(size, dtype=torch.float64, device=share.device) - start[:, None]
        source = ((inside + 0.5) * (size / smaller)[:, None] - 0.5).clamp(0, size - 1)
        weights = 1 - (source[:, :, None] - torch.arange(size, device=share.device)).abs()
        covered = (inside >= 0) & (inside < smaller[:, None])
        return weights.clamp_min(0) * covered[:, :, None]
