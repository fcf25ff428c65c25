"""A target whose inputs are cleansed, and how an attack that knows it gets gradients through the cleanser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from assay.errors import TargetError
from assay.numerics.seeds import Stream
from assay.targets.around import Around, Declared, in_groups, joined
from assay.targets.base import Graded, Loss, WhiteBox


class Cleanser(Declared, Protocol):
    """What happens to inputs, brought to the unit box, on their way to the model.

    A frozen dataclass whose ``parts`` are declared as a class variable; a row's result is a matter of the row and of
    its own stream alone.
    """

    def real(self, x: Tensor, rng: Stream) -> Tensor:
        """What really happens to ``x [rows, …]`` in [0, 1]; its own gradient, where it has one, is the naive one."""


class Surrogate(Cleanser, Protocol):
    """A cleanser without a usable gradient, whose ``parts`` declare a surrogate."""

    def stand_in(self, x: Tensor, rng: Stream) -> Tensor:
        """Something near ``real`` under the same draws that gradients go back through."""


@dataclass(frozen=True, eq=False)
class CleansedTarget(Around):
    """A target behind a cleanser; build it with the cleanser's ``protect``.

    The noise of a randomized cleanser is keyed by torch's global random numbers, which a game seeds and hands back.
    """

    defense: Cleanser

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes of the cleansed inputs, int64 ``[rows]``."""
        return torch.cat([self.base.labels(z) for z in self._cleansed(x)])

    def scores(self, x: Tensor) -> Tensor:
        """Scores of the cleansed inputs, ``[rows, classes]``."""
        return torch.cat([self.base.scores(z) for z in self._cleansed(x)])

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Scores of the cleansed inputs; the gradient of the loss there, brought back through the cleanser.

        Naively by autograd through what really happens; knowing the design, through its stand-in (Athalye et al.,
        ICML 2018, §4.1: backward pass differentiable approximation).
        """
        base, parts = cast(WhiteBox, self.base), []
        for rows in in_groups(x):
            leaf, seen, way = self._passed(x[rows])
            graded = base.graded(seen, loss, *(label[rows] for label in labels))
            parts.append(graded._replace(gradient=_pulled(way, leaf, graded.gradient)))
        return joined(parts)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the cleansed inputs and class gradients, each brought back through the cleanser."""
        base, scores, gradients = cast(WhiteBox, self.base), [], []
        for rows in in_groups(x):
            leaf, seen, way = self._passed(x[rows])
            own, slopes = base.jacobian(seen, classes[rows])
            scores.append(own)
            pulled = [_pulled(way, leaf, slope) for slope in slopes.unbind(1)]
            gradients.append(torch.stack(pulled, 1) if pulled else slopes)
        return torch.cat(scores), torch.cat(gradients)

    def check(self, x: Tensor) -> None:
        """Whatever the target below checks, of the cleansed inputs. Raises ``TargetError`` (PRF130) beside that."""
        with torch.random.fork_rng(devices=[]):
            for z in self._cleansed(x):
                self.base.check(z)

    def naive(self) -> WhiteBox:
        """Gradients by autograd through what really happens; zero where it has none."""
        return self._knowing(False)

    def adapted(self) -> WhiteBox:
        """The true scores, and gradients through the stand-in."""
        return self._knowing(True)

    def _cleansed(self, x: Tensor) -> Iterator[Tensor]:
        for rows in in_groups(x):
            with torch.no_grad():
                z = self._real(x[rows], self._draw(len(x[rows])))
            yield z

    def _passed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs as a leaf, what the model sees of them, and what gradients go back through."""
        rng = self._draw(len(x))
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            if not (self.knows and self.defense.parts.surrogate):
                way = self._real(leaf, rng)
                return leaf, way.detach(), way
            way = self._boxed(cast(Surrogate, self.defense).stand_in(self._unit(leaf), rng))
        with torch.no_grad():
            return leaf, self._real(x, rng), way

    def _real(self, x: Tensor, rng: Stream) -> Tensor:
        return self._boxed(self.defense.real(self._unit(x), rng))

    def _unit(self, x: Tensor) -> Tensor:
        return (x - self.bounds.lower) / self.bounds.width

    def _boxed(self, x: Tensor) -> Tensor:
        return x * self.bounds.width + self.bounds.lower

    def _draw(self, rows: int) -> Stream:
        """A stream a row; one that is not used keys on nothing."""
        if not self.defense.parts.randomness:
            return Stream(torch.zeros(rows, dtype=torch.int64, device=self.device))
        return Stream(torch.randint(1 << 62, (rows,)).to(self.device))


def _pulled(way: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at the end of the way, brought back to its start: zero where nothing leads back."""
    if not way.requires_grad:
        return torch.zeros_like(leaf)
    back: Tensor | None = torch.autograd.grad(way, leaf, gradient, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if back is None else back


def require_images(x: Tensor, defense: object) -> None:
    """That ``x`` is ``[rows, channels, height, width]``. Raises ``TargetError`` (PRF130)."""
    if x.dim() != 4:
        raise TargetError("PRF130", f"{defense} is about images; an example has shape {tuple(x.shape[1:])}")
