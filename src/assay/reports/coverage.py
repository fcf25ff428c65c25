"""Which parts of a model's life the evidence is about, and, as loudly, which it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from assay.evidence.record import Evidence
from assay.reports import words

State = Literal["covered", "partly", "not run", "not covered"]

STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("data", ("poisoning",)),
    ("training", ("privacy", "verifiable training")),
    ("model", ("evasion", "stealing")),
    ("serving", ("injection", "codegen", "secure inference")),
)
"""The stages of the lifecycle, and the wings that attack there."""


@dataclass(frozen=True, kw_only=True)
class Cover:
    """How far one wing was covered."""

    wing: str
    ran: int
    missing: int

    @property
    def state(self) -> State:
        """In one word; a wing whose trials all failed to run is not covered."""
        if self.missing:
            return "partly" if self.ran else "not run"
        return "covered" if self.ran else "not covered"

    @property
    def text(self) -> str:
        """``2 trials, 1 not run``."""
        if self.state == "not covered":
            return "not covered"
        ran = words.count(self.ran, "trial") if self.ran else ""
        return ", ".join(filter(None, [ran, f"{self.missing} NOT RUN" if self.missing else ""]))


@dataclass(frozen=True)
class Stage:
    """One stage of the lifecycle."""

    name: str
    wings: tuple[Cover, ...]


def cover(evidence: Sequence[Evidence], wings: Mapping[str, str]) -> tuple[Stage, ...]:
    """The lifecycle strip; games of no known wing are shown in a stage of their own, never dropped."""
    known = {wing for _, names in STAGES for wing in names}
    of = {e.game: _wing(e.game, wings) for e in evidence}
    others = tuple(sorted({wing for wing in of.values() if wing not in known}))
    plan = (*STAGES, ("other", others)) if others else STAGES
    return tuple(Stage(stage, tuple(_cover(wing, evidence, of) for wing in names)) for stage, names in plan)


def _wing(game: str, wings: Mapping[str, str]) -> str:
    return wings.get(game, game.partition(".")[0]).replace("_", " ").replace("-", " ")


def _cover(wing: str, evidence: Sequence[Evidence], of: Mapping[str, str]) -> Cover:
    kinds = [e.kind for e in evidence if of[e.game] == wing]
    missing = kinds.count("not run")
    return Cover(wing=wing, ran=len(kinds) - missing, missing=missing)
