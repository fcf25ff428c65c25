"""What the adversary of this wing may see, and about whom it asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from assay.errors import ConfigError, nearest
from assay.privacy.canaries import Blank, Mislabeled, Natural, OutOfDistribution, Planter
from assay.targets.access import Access
from assay.threats import ThreatModel

MEMBERSHIP = "membership"

_KINDS: dict[str, type[Blank] | type[Mislabeled] | type[Natural] | type[OutOfDistribution]] = {
    "blank": Blank, "mislabeled": Mislabeled, "natural": Natural, "out-of-distribution": OutOfDistribution,
}


@dataclass(frozen=True)
class People:
    """About whom is asked: every example of the pool, or canaries planted in it.

    Attributes:
        canaries: what is planted; ``None`` for the pool as it is.
        text: how evidence and plans call it: ``natural``, ``natural 250``, ``mislabeled 100``.
    """

    canaries: Planter | None
    text: str

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, canaries: Planter | None) -> People:
        """With the words for these canaries."""
        if canaries is None:
            return cls(None, "natural")
        word = next((word for word, kind in _KINDS.items() if isinstance(canaries, kind)), type(canaries).__name__)
        return cls(canaries, f"{word} {getattr(canaries, 'count', '')}".strip())

    @classmethod
    def parse(cls, text: str) -> People:
        """From a plan's words: ``natural``, ``mislabeled 100``. Raises ``ConfigError`` (PRV112)."""
        word, _, count = text.strip().lower().partition(" ")
        if word == "natural" and not count:
            return cls.of(None)
        if word not in _KINDS:
            raise ConfigError("PRV112", f"cannot read the budget {text!r}{nearest(word, _KINDS)}")
        if not count.isdigit() or not int(count):
            raise ConfigError("PRV112", f"how many canaries is {count!r}, in the budget {text!r}?")
        return cls.of(_KINDS[word](int(count)))


def scores(*, knows: Iterable[str] = ("defense",), queries: int | None = None) -> ThreatModel:
    """An adversary who sees the scores that the model answers with, and wants to know who was trained on."""
    return _threat(Access.SCORES, knows, queries)


def labels(*, knows: Iterable[str] = ("defense",), queries: int | None = None) -> ThreatModel:
    """An adversary who sees labels alone, and wants to know who was trained on."""
    return _threat(Access.LABELS, knows, queries)


def _threat(access: Access, knows: Iterable[str], queries: int | None) -> ThreatModel:
    return ThreatModel(goal=MEMBERSHIP, access=access, knows=frozenset(knows), budget=People.of(None), queries=queries)
