"""What every target around another one shares: whatever the defense does not change is the target's below."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self, cast

import torch
from torch import Tensor, nn

from assay.errors import Denied
from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Refusing, Target, WhiteBox, passed_on, refuses
from assay.targets.defended import Parts, adapted_of, bare_of, naive_of, parts_of

ROWS = 512
"""The most rows that pass a defense at once."""


class Declared(Protocol):
    """A defense that says what of it misleads an attack; its ``repr`` is how evidence calls it."""

    @property
    def parts(self) -> Parts: ...


@dataclass(frozen=True, eq=False)
class Over:
    """A target over another, whose inputs are the other's.

    Attributes:
        base: the target below.
    """

    base: Target

    @property
    def bounds(self) -> Bounds:
        """The box in which submitted inputs live."""
        return self.base.bounds

    @property
    def dtype(self) -> torch.dtype:
        """Of the target below."""
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        """Of the target below."""
        return self.base.device


@dataclass(frozen=True, eq=False)
class Around(Over):
    """A target around another; final classes add what happens to inputs, to answers or inside.

    Attributes:
        defense: what goes around it.
        knows: whether gradients are those of an attack that knows the design.
    """

    defense: Declared
    knows: bool = False

    @property
    def name(self) -> str:
        """The name of the target below, and what it is behind."""
        return f"{self.base.name} behind {self.defense!r}"

    @property
    def offers(self) -> Access:
        """What the target below offers, but no weights: it is no longer that network that answers."""
        return passed_on(self.base)

    @property
    def randomized(self) -> bool:
        """Whether the defense or the target below draws."""
        return self.defense.parts.randomness or self.base.randomized

    @property
    def forwards_per_query(self) -> int:
        """What the target below takes: the defense itself runs no classifier."""
        return self.base.forwards_per_query

    @property
    def refuses(self) -> bool:
        """Whether the target below may refuse an input."""
        return refuses(self.base)

    @property
    def classes(self) -> int:
        """How many classes there are, where the target below may refuse."""
        return cast(Refusing, self.base).classes

    @property
    def bare(self) -> WhiteBox:
        """The model below every defense."""
        return bare_of(self.base)

    @property
    def parts(self) -> Parts:
        """What this defense declares, and those below it."""
        return self.defense.parts | parts_of(self.base)

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """What the target below takes for as many gradients."""
        return cast(WhiteBox, self.base).passes(gradients)

    def module(self) -> nn.Module:
        """Refused: the network alone does not answer. Raises ``Denied`` (THR101)."""
        raise Denied("THR101", f"{self.name} is more than a network; it offers {self.offers}",
                     fix="Grant gradients, or attack the model below as a target of its own.")

    def fingerprint(self) -> dict[str, str]:
        """That of the target below, and every defense around it, the outermost first."""
        below = self.base.fingerprint()
        behind = f" over {below['defenses']}" if "defenses" in below else ""
        return {**below, "defenses": f"{self.defense!r}{behind}"}

    def _knowing(self, knows: bool) -> Self:
        """The same target as an attack sees it that knows the design, or does not."""
        base = adapted_of(self.base) if knows else naive_of(self.base)
        return replace(self, base=base, knows=knows)


def in_groups(x: Tensor) -> list[slice]:
    """Rows that pass a defense together; an empty batch is one group."""
    return [slice(start, start + ROWS) for start in range(0, max(len(x), 1), ROWS)]


def joined(parts: list[Graded]) -> Graded:
    """The groups' answers as one."""
    return parts[0] if len(parts) == 1 else Graded(*(torch.cat(column) for column in zip(*parts)))


