"""Scores so large that losses on them saturate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor

from assay.errors import ConfigError
from assay.targets.around import Around
from assay.targets.base import Graded, Loss, Target, WhiteBox
from assay.targets.defended import Parts


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Scores are multiplied by ``t``: no label changes, but a loss through a softmax has no gradient any more.

    *Paper*: what remains of defensive distillation (Papernot et al., S&P 2016) after training at temperature ``t`` and
    answering at 1, as Carlini & Wagner found (S&P 2017, §IV): logits ``t`` times as large.
    *Needs*: scores; anything of the model.
    *Cost*: a multiplication.
    *Blind spots*: any loss on the logits themselves, whatever their scale. It is here to be seen through: it protects
    nothing.
    *Held to*: Carlini & Wagner, S&P 2017: 100 % of attacks succeed on distilled networks.
    *Measured*: of a ResNet-20 on 300 CIFAR-10 images at Linf 8/255, 93.0 % accurate behind it, an attack that does not
    know (PGD-40) leaves 85.3 %, one that knows (PGD-100) 0 %: ``tests/papers/test_defenses_fall.py``.

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.Temperature().protect(demo.target())
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> found = game.play(evasion.PGD(steps=10), safe, seed=0)
        >>> found["non-adaptive robust accuracy"].estimate > 0.9, found["robust accuracy"].estimate < 0.1
        (True, True)

    Attributes:
        t: the temperature.
    """

    parts: ClassVar[Parts] = Parts(temperature=True)

    t: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.t < math.inf:
            raise ConfigError("PRF131", f"{self} cannot be used: the temperature must be positive")

    def protect(self, target: Target) -> TemperedTarget:
        """``target`` with its scores rescaled; itself unchanged."""
        return TemperedTarget(target, self)


@dataclass(frozen=True, eq=False)
class TemperedTarget(Around):
    """A target with rescaled scores; build it with :class:`Temperature`."""

    defense: Temperature

    @property
    def _scale(self) -> float:
        """An attack that knows the temperature takes it off."""
        return 1.0 if self.knows else self.defense.t

    def labels(self, x: Tensor) -> Tensor:
        """The labels of the target below."""
        return self.base.labels(x)

    def scores(self, x: Tensor) -> Tensor:
        """The rescaled scores, ``[rows, classes]``."""
        return self.base.scores(x) * self._scale

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Rescaled scores, and the gradient of the loss on them."""
        graded = cast(WhiteBox, self.base).graded(x, _Scaled(loss, self._scale), *labels)
        return graded._replace(scores=graded.scores * self._scale)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Rescaled scores and their gradients."""
        scores, rows = cast(WhiteBox, self.base).jacobian(x, classes)
        return scores * self._scale, rows * self._scale

    def check(self, x: Tensor) -> None:
        """Whatever the target below checks."""
        self.base.check(x)

    def naive(self) -> WhiteBox:
        """Losses are taken on the rescaled scores."""
        return self._knowing(False)

    def adapted(self) -> WhiteBox:
        """The scores before the temperature."""
        return self._knowing(True)


@dataclass(frozen=True)
class _Scaled:
    """A loss of scores times a scale."""

    loss: Loss
    scale: float

    def __call__(self, scores: Tensor, *labels: Tensor) -> Tensor:
        values: Tensor = self.loss(scores * self.scale, *labels)
        return values
