"""From text to token numbers and back: characters, bytes, or anything with ``encode`` and ``decode``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

from assay.errors import DataError


class Tokenizer(Protocol):
    """What reads text for a model and writes what the model says.

    ``encode`` must add nothing of its own: what begins or ends a text is the target's business.
    """

    def encode(self, text: str) -> Sequence[int]: ...
    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Characters:
    """One token a character, numbered by its place in the alphabet.

    Attributes:
        alphabet: every character there is, once.
        unknown: what is read in the place of any other; by default that is an error.

    Raises:
        DataError: PRV401 for a character that is not in the alphabet.
    """

    alphabet: str
    unknown: str = ""

    @classmethod
    def of(cls, *texts: str) -> Self:
        """The characters of these texts, sorted."""
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> list[int]:
        """The number of each character."""
        stranger = next((character for character in text if character not in self._numbers), "")
        if stranger and not self.unknown:
            raise DataError("PRV401", f"{stranger!r} is not among the {len(self)} characters of the model")
        return [self._numbers.get(character, self._numbers.get(self.unknown, -1)) for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """The characters of these numbers."""
        return "".join(self.alphabet[token] for token in tokens)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.alphabet)}


@dataclass(frozen=True)
class Bytes:
    """One token a byte of UTF-8; bytes that are no text are decoded as U+FFFD."""

    def __len__(self) -> int:
        return 256

    def encode(self, text: str) -> list[int]:
        """The bytes."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of these bytes."""
        return bytes(tokens).decode(errors="replace")
