"""How a trial is played and scored: what a game is, what it remembers, how it tells where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from assay.data import Dataset
from assay.evidence.record import Evidence
from assay.targets.base import Target
from assay.targets.procedure import Training

Arrays = Mapping[str, NDArray[np.generic]]


Subject = Literal["model", "procedure"]
"""What a game is played on, where it says so by a class variable ``subject``; of one that does not, a model."""


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


@dataclass(frozen=True, kw_only=True)
class Words:
    """A threat model as a plan writes it; each wing reads its own budget."""

    budget: str
    access: str = "gradients"
    goal: str = "misclassify"
    knows: tuple[str, ...] = ()
    queries: int | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a trial is played, as a plan writes it.

    Attributes:
        curve: further radii at which the bracket is wanted.
        chunk: points in one batch.
        confidence: one-sided, of what is implied beyond the points.
        runs: trainings, in games that repeat them.
    """

    curve: tuple[float, ...] = ()
    chunk: int = 500
    confidence: float = 0.95
    runs: int = 1000


class Replay(NamedTuple):
    """What re-judging stored artefacts found: how many of them still hold, of how many."""

    held: int
    total: int
    why: str = ""


class Game(Protocol):
    """A threat model and a winning condition; what the main path asks of every wing's games.

    Beside these, a game has ``play(attack, target, *, seed)`` and ``prove(proof, target, *, seed)``, each returning
    :class:`~assay.evidence.record.Evidence` about the same points. What attacks and proofs are is the wing's own
    business; that the game, not the attack, decides who won is not.
    """

    @property
    def name(self) -> str: ...

    @classmethod
    def planned(cls, data: Dataset, words: Words, settings: Settings) -> Self:
        """The game that a plan describes. Raises ``ConfigError`` where its words cannot be read."""

    @staticmethod
    def budget_named(text: str) -> str:
        """The budget of these words, as evidence prints it."""

    def rounds(
        self, attacks: Sequence[Any], proofs: Sequence[Any], target: Target | Training, *, seed: int,
        memory: Memory | None = None,
    ) -> Iterator[Progress | Evidence]:
        """Plays and proves, yielding progress on the way and one evidence a method."""

    def replay(self, evidence: Evidence, target: Target | Training) -> Replay:
        """Re-judges the artefacts of ``evidence`` on a fresh evaluation of ``target``."""


def name_of(method: object) -> str:
    """A method as evidence names it: its class and the parameters that differ from their defaults."""
    return _called(method, _word)


def identity_of(method: object) -> str:
    """What tells a method from every other: its name, and the fingerprints of the models among its parameters."""
    return _called(method, lambda value: repr(value.fingerprint()) if isinstance(value, Target) else repr(value))


def _called(method: object, said: Callable[[object], str]) -> str:
    if not is_dataclass(method):
        return f"{type(method).__name__}()"
    values = [(f, getattr(method, f.name)) for f in fields(method)]
    changed = [f"{f.name}={_each(value, said)}" for f, value in values if value is not f.default and value != f.default]
    return f"{type(method).__name__}({', '.join(changed)})"


def _each(value: object, said: Callable[[object], str]) -> str:
    return f"({', '.join(map(said, value))})" if isinstance(value, tuple) else said(value)


def _word(value: object) -> str:
    """A model by its name, anything else as Python writes it."""
    return value.name if isinstance(value, Target) else repr(value)
