"""Feature squeezing: fewer bits a pixel, and the median of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.defenses.cleansing.target import CleansedTarget, require_images
from assay.evasion.defenses.cleansing.windows import mirrored
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.targets.defended import Parts


@dataclass(frozen=True, kw_only=True)
class BitDepth:
    """Every value of an input is rounded to one of 2^bits levels.

    *Paper*: Xu, Evans & Qi, NDSS 2018 (feature squeezing).
    *Needs*: inputs of any shape; anything of the model.
    *Cost*: a rounding.
    *Blind spots*: its gradient is zero, which stops no attack that leaves the rounding out on the way back; a
    perturbation that crosses a level is not removed but enlarged.
    *Held to*: feature squeezing falls to an attack that knows it (He et al., WOOT 2017).
    *Measured*: of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 84.0 % accurate behind it, an attack that does not
    know (PGD-40) leaves 72.3 %, one that knows (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.BitDepth().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> found = game.play(evasion.PGD(steps=10), safe, seed=0)
        >>> found["non-adaptive robust accuracy"].estimate > 0.9, found["robust accuracy"].estimate < 0.1
        (True, True)

    Attributes:
        bits: for each value.
    """

    parts: ClassVar[Parts] = Parts(surrogate=True)

    bits: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise ConfigError("PRF131", f"{self} cannot be used: bits must be from 1 to 16")

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the rounding; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """The nearest level of every value."""
        steps: float = 2**self.bits - 1
        return (x * steps).round() / steps

    def stand_in(self, x: Tensor, rng: Stream) -> Tensor:
        """The input as it is."""
        return x


@dataclass(frozen=True, kw_only=True)
class MedianBlur:
    """Every pixel becomes the median of the window around it, in each channel.

    *Paper*: Xu, Evans & Qi, NDSS 2018 (feature squeezing).
    *Needs*: images; anything of the model.
    *Cost*: a sort of size² values a pixel.
    *Blind spots*: its gradient leads to the pixel that is the median, which is all that an attack needs.
    *Held to*: SciPy's ``median_filter``; feature squeezing falls to an attack that knows it (He et al., WOOT 2017).
    *Measured*: SciPy's to the last bit (``tests/evasion/defenses/test_cleansing.py``); of a ResNet-20 on 300 CIFAR-10
    images at Linf 8/255, 87.7 % accurate behind it, an attack that does not know (PGD-40) leaves 0 %, one that knows
    (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.MedianBlur().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.PGD(steps=10), safe, seed=0)["robust accuracy"].estimate < 0.1
        True

    As in SciPy's filter, images go on as in a mirror, and of an even number of values the upper median is taken.

    Attributes:
        size: the window's height and width.
    """

    parts: ClassVar[Parts] = Parts()

    size: int = 2

    def __post_init__(self) -> None:
        if not self.size >= 2:
            raise ConfigError("PRF131", f"{self} cannot be used: a window of one pixel changes nothing")

    def protect(self, target: Target) -> CleansedTarget:
        """``target`` behind the filter; itself unchanged."""
        return CleansedTarget(target, self)

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """The filtered images."""
        require_images(x, self)
        before, after = self.size // 2, (self.size - 1) // 2
        windows = mirrored(x, before, after).unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        return windows.kthvalue(self.size**2 // 2 + 1, dim=4).values
