"""One played trial, as it is kept: bounds, doubts, cost, seed, and artefacts by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from assay.errors import AssayError, findings
from assay.evidence.bound import Bound, Side, canonical

Kind = Literal["played", "proved", "not run"]
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Doubt:
    """A reason to trust the evaluation less: a code that ``assay explain`` knows, and what was seen."""

    code: str
    text: str

    @property
    def title(self) -> str:
        """The code's standing title."""
        return findings()[self.code].title

    def __str__(self) -> str:
        return f"{self.code} {self.title}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the adversary or the prover spent, summed over all points of the trial.

    Attributes:
        forwards: sample-forwards: one example through the model once.
        backwards: sample-backwards: one example's gradient once.
        queries: examples that the adversary submitted (a smoothed target runs many forwards for one query).
        seconds: wall-clock.
    """

    forwards: int = 0
    backwards: int = 0
    queries: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            forwards=self.forwards + other.forwards,
            backwards=self.backwards + other.backwards,
            queries=self.queries + other.queries,
            seconds=self.seconds + other.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Threat:
    """The threat model in plain words, as evidence keeps it."""

    goal: str
    access: str
    budget: str
    knows: tuple[str, ...] = ()
    queries: int | None = None


@dataclass(frozen=True, eq=False)
class Artefact:
    """Arrays that outlive the run: adversarial examples, outcomes, costs per point; known by their bytes' hash."""

    arrays: Arrays = field(repr=False)

    @cached_property
    def data(self) -> bytes:
        """The arrays as one safetensors file, names in sorted order, so that equal arrays have equal bytes."""
        return save({name: np.ascontiguousarray(self.arrays[name]) for name in sorted(self.arrays)})

    @cached_property
    def sha256(self) -> str:
        """The hash of :attr:`data`, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One played (or proved, or not run) trial, and what it is worth.

    Attributes:
        trial: the content hash of everything that determines the result; the ledger resumes by it.
        attack: the method, attack or proof, with its parameters.
        provenance: versions, data and model fingerprints, whether a pickle was loaded: what replay checks.
        error: of a trial that could not run, the coded reason.
        error_exit: the exit code that this reason stands for; 0 where it ran.
    """

    kind: Kind
    game: str
    trial: str
    target: str
    threat: Threat
    attack: str
    seed: int
    bounds: tuple[Bound, ...] = ()
    cost: Cost = Cost()
    doubts: tuple[Doubt, ...] = ()
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    error_exit: int = 0

    @property
    def id(self) -> str:
        """A short name: the first twelve digits of the trial's hash."""
        return self.trial[:12]

    def __getitem__(self, quantity: str) -> Bound:
        """The bound on this quantity on the side this evidence is about; ``KeyError`` names those there are."""
        side: Side = "at least" if self.kind == "proved" else "at most"
        quantity = canonical(quantity)
        found = [b for b in self.bounds if b.quantity == quantity]
        if not found:
            raise KeyError(f"no bound on {quantity!r}; there is {sorted({b.quantity for b in self.bounds})}")
        return next((b for b in found if b.side == side), found[0])

    def to_json(self) -> dict[str, object]:
        """Plain data in the shape that ``assay schema`` publishes."""
        return {
            "id": self.id,
            "kind": self.kind,
            "game": self.game,
            "trial": self.trial,
            "target": self.target,
            "threat": {**asdict(self.threat), "knows": list(self.threat.knows)},
            "attack": self.attack,
            "seed": self.seed,
            "bounds": [asdict(b) for b in self.bounds],
            "cost": asdict(self.cost),
            "doubts": [asdict(d) for d in self.doubts],
            "artefacts": {name: a.sha256 for name, a in self.artefacts.items()},
            "provenance": dict(self.provenance),
            "error": self.error,
            "error_exit": self.error_exit,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], artefacts: Mapping[str, Artefact] | None = None) -> Evidence:
        """What :meth:`to_json` wrote, with the artefacts' arrays where they are at hand."""
        threat = {**data["threat"], "knows": tuple(data["threat"]["knows"])}
        same = ("kind", "game", "trial", "target", "attack", "seed", "provenance", "error", "error_exit")
        return cls(
            threat=Threat(**threat),
            bounds=tuple(Bound(**b) for b in data["bounds"]),
            cost=Cost(**data["cost"]),
            doubts=tuple(Doubt(**d) for d in data["doubts"]),
            artefacts=dict(artefacts or {}),
            **{key: data[key] for key in same},
        )

    def __str__(self) -> str:
        if self.kind == "not run":
            return f"{self.attack} against {self.target}: NOT RUN — {self.error}"
        near = [b for b in self.bounds if b.side == ("at least" if self.kind == "proved" else "at most")]
        said = "; ".join(str(b) for b in near or self.bounds)  # leakage is shown from below and proved from above
        doubts = "".join(f" [doubt {d.code}: {d.text}]" for d in self.doubts)
        return f"{self.attack} against {self.target} ({self.threat.budget}): {said}{doubts}"


def not_run(
    *, game: str, trial: str, target: str, threat: Threat, attack: str, seed: int, error: BaseException
) -> Evidence:
    """Evidence that a trial could not run: never counted as success or failure of an attack."""
    return Evidence(
        kind="not run",
        game=game,
        trial=trial,
        target=target,
        threat=threat,
        attack=attack,
        seed=seed,
        error=error.render() if isinstance(error, AssayError) else f"RUN101  {type(error).__name__}: {error}",
        error_exit=error.exit_code if isinstance(error, AssayError) else 3,
    )


def content_hash(*parts: object) -> str:
    """sha256 over the canonical JSON of the parts: the identity of a trial."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
