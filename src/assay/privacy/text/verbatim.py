"""What two texts have in common, word for word: the referee of extraction."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Match(NamedTuple):
    """``text[at:at + length]`` is in the corpus, where it begins at ``place``."""

    length: int
    at: int
    place: int


@dataclass(frozen=True)
class Corpus:
    """A text in which stretches of other texts are looked up: its suffixes in order.

    Source: prefix doubling, Manber & Myers (SIAM J. Computing 22, 1993).

    Attributes:
        text: the corpus.
        longest_known: suffixes are told apart by so many characters: a match of more is at least as long as is said.
    """

    text: str
    longest_known: int = 512

    @cached_property
    def suffixes(self) -> NDArray[np.int64]:
        """Where each suffix begins, in alphabetical order of the first ``longest_known`` characters."""
        rank = np.frombuffer(self.text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
        order, width = np.argsort(rank, kind="stable"), 1
        while width < self.longest_known and len(rank):
            ahead = np.full(len(rank), -1, dtype=np.int64)
            ahead[:-width] = rank[width:]
            order = np.lexsort((ahead, rank))
            new = (np.diff(rank[order]) != 0) | (np.diff(ahead[order]) != 0)
            rank[order] = np.r_[0, np.cumsum(new)]
            if bool(new.all()):
                break
            width *= 2
        return np.asarray(order, dtype=np.int64)

    def longest(self, text: str) -> Match:
        """The longest stretch of ``text`` that is in the corpus; the first of several."""
        best = Match(0, 0, 0)
        for at in range(len(text)):
            if len(text) - at <= best.length:
                break
            found = self._longest_prefix(text[at:])
            if found.length > best.length:
                best = Match(found.length, at, found.place)
        return best

    def longest_shared(self, other: str) -> int:
        """The length of the longest stretch that ``other``, however long, shares with the corpus."""
        low, high = 0, 1
        while _shares(self.text, other, high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _shares(self.text, other, middle) else (low, middle)
        return low

    def _longest_prefix(self, text: str) -> Match:
        """The longest prefix of ``text`` in the corpus: beside the place where ``text`` would be inserted."""
        cut = self.longest_known
        at = bisect_left(self.suffixes, text[:cut], key=lambda begin: self.text[begin : begin + cut])
        best = Match(0, 0, 0)
        for neighbor in self.suffixes[max(at - 1, 0) : at + 1]:
            length = _common(self.text, int(neighbor), text)
            best = Match(length, 0, int(neighbor)) if length > best.length else best
        return best


def _common(text: str, begin: int, other: str) -> int:
    """How many characters ``text[begin:]`` and ``other`` have in common from their beginnings."""
    most = min(len(text) - begin, len(other))
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[begin : begin + middle] == other[:middle] else (low, middle - 1)
    return low


def _shares(one: str, other: str, length: int) -> bool:
    """Whether some ``length`` characters in a row are in both."""
    known = {one[at : at + length] for at in range(len(one) - length + 1)}
    return any(other[at : at + length] in known for at in range(len(other) - length + 1))
