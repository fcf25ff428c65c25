"""How a trial is played and scored: what a game is, what it remembers, how it tells where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


class Progress(NamedTuple):
    """Where the work is: yielded by games, drawn only by the command line."""

    method: str
    done: int
    total: int
    note: str = ""


class Memory(Protocol):
    """Where a game keeps the parts of a trial that are already earned; the ledger is one."""

    def recall(self, trial: str, part: str) -> Arrays | None:
        """What was kept of this part, or ``None``."""

    def keep(self, trial: str, part: str, arrays: Arrays) -> None:
        """Keeps a part, durably, before the call returns."""


class Forgetful:
    """A memory that keeps nothing: for trials played without a ledger."""

    def recall(self, trial: str, part: str) -> Arrays | None:
        """Nothing, ever."""
        return None

    def keep(self, trial: str, part: str, arrays: Arrays) -> None:
        """Lets the part go."""


class Game(Protocol):
    """A threat model and a winning condition.

    A game has ``play(attack, target, *, seed)`` and ``prove(proof, target, *, seed)``, each returning
    :class:`~assay.evidence.record.Evidence` about the same points, and a name that evidence carries. What attacks
    and proofs are is the wing's own business; that the game, not the attack, decides who won is not.
    """

    @property
    def name(self) -> str: ...
