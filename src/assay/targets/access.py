"""How much a target reveals: labels < scores < gradients < weights."""

from __future__ import annotations

from enum import IntEnum


class Access(IntEnum):
    """What an adversary may see of a target; each level includes those below it."""

    LABELS = 1
    SCORES = 2
    GRADIENTS = 3
    WEIGHTS = 4

    @classmethod
    def parse(cls, name: str | Access) -> Access:
        """The level of this name, in any case. Raises ``ValueError`` naming the four."""
        if isinstance(name, Access):
            return name
        try:
            return cls[name.upper()]
        except KeyError:
            raise ValueError(f"access must be one of labels, scores, gradients, weights; got {name!r}") from None

    def __str__(self) -> str:
        return self.name.lower()
