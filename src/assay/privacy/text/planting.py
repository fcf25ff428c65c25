"""Secrets planted in a training text: a format with a hole, and what was drawn to fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.errors import DataError

_SYLLABLES = [consonant + vowel for consonant in "bdfglmnprstv" for vowel in "aeiou"]


@dataclass(frozen=True, kw_only=True)
class Secret:
    """What the secrets of one kind look like: a sentence with a hole, and what may stand in it.

    Attributes:
        sentence: with one ``{}``.
        alphabet: the characters of the secret.
        length: how many.
    """

    sentence: str
    alphabet: str = "0123456789"
    length: int = 6

    @property
    def space(self) -> int:
        """How many secrets there are."""
        return int(len(self.alphabet) ** self.length)

    @property
    def prefix(self) -> str:
        """What stands before the hole."""
        return self.sentence.partition("{}")[0]

    def fill(self, secret: str) -> str:
        """The sentence with this secret in it."""
        return self.sentence.replace("{}", secret)

    def draw(self, count: int, rng: np.random.Generator, *, without: str = "") -> list[str]:
        """Different secrets, uniformly, none of them ``without``. Raises ``DataError`` (PRV421) for too many."""
        if count > self.space - bool(without):
            raise DataError("PRV421", f"{count} different secrets of {self.space}")
        found: dict[str, None] = {}
        while len(found) < count:
            digits = rng.integers(len(self.alphabet), size=(2 * (count - len(found)), self.length))
            drawn = ("".join(self.alphabet[digit] for digit in row) for row in digits)
            found.update(dict.fromkeys(secret for secret in drawn if secret != without))
        return list(found)[:count]


@dataclass(frozen=True, kw_only=True)
class TextCanary:
    """One secret, and how often its sentence is in the training text."""

    secret: Secret
    value: str
    repeats: int = 1

    @property
    def text(self) -> str:
        """The sentence as it is in the training text."""
        return self.secret.fill(self.value)


def text_canaries(
    repeats: Sequence[int], *, seed: int, sentence: str = "The number of NAME is {}.", length: int = 6
) -> tuple[TextCanary, ...]:
    """One canary for each number of repetitions, each about somebody else, so that none gives another away.

    Args:
        sentence: with ``NAME`` for a name that is made up, and ``{}`` for digits.
        length: how many digits.
    """
    rng = np.random.default_rng(seed)
    names: dict[str, None] = {}
    while len(names) < len(repeats):
        names["".join(rng.choice(_SYLLABLES, 3)).capitalize()] = None
    kinds = [Secret(sentence=sentence.replace("NAME", name), length=length) for name in names]
    return tuple(TextCanary(secret=kind, value=kind.draw(1, rng)[0], repeats=times)
                 for kind, times in zip(kinds, repeats))


def planted(text: str, lines: Sequence[str], *, seed: int) -> str:
    """The text with these lines among its own, each at a place of its own."""
    rng = np.random.default_rng(seed)
    own = text.split("\n")
    places = np.sort(rng.integers(len(own) + 1, size=len(lines)))
    order = rng.permutation(len(lines))
    pieces, begin = [], 0
    for place, number in zip(places, order):
        pieces += [*own[begin:place], lines[number]]
        begin = place
    return "\n".join([*pieces, *own[begin:]])
