"""From what a game of this wing found to evidence, and from a game that plays one method to one that plays many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

from assay.errors import LedgerError
from assay.evidence.bound import Bound
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Kind, Threat, content_hash, not_run
from assay.games import Progress, identity_of, name_of

FREE = Cost()
"""Nothing spent."""


class Fingerprinted(Protocol):
    """Whatever is under test: a model, or a procedure that trains one."""

    @property
    def name(self) -> str: ...

    def fingerprint(self) -> dict[str, str]:
        """What identifies it in evidence."""


class Simple(Protocol):
    """A game that plays each method by itself."""

    @property
    def name(self) -> str: ...
    @property
    def threat(self) -> Threat: ...

    def play(self, attack: Any, target: Any, *, seed: int) -> Evidence: ...
    def prove(self, proof: Any, target: Any, *, seed: int) -> Evidence: ...


def evidence(
    *,
    game: str,
    method: object,
    target: Fingerprinted,
    threat: Threat,
    seed: int,
    bounds: Sequence[Bound],
    settings: object = (),
    kind: Kind = "played",
    cost: Cost = FREE,
    doubts: Sequence[Doubt] = (),
    artefacts: Mapping[str, Artefact] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Evidence:
    """One played or proved trial, its identity a hash of all that determines it.

    Args:
        settings: whatever of the game's own parameters changes the result.
        provenance: fingerprints beyond the target's own, such as the data's.
    """
    known = {**(provenance or {}), **target.fingerprint()}
    identity = trial_of(game=game, method=method, target=target, threat=threat, seed=seed,
                        settings=(settings, sorted(known.items())))
    return Evidence(kind=kind, game=game, trial=identity, target=target.name, threat=threat, attack=name_of(method),
                    seed=seed, bounds=tuple(bounds), cost=cost, doubts=tuple(doubts), artefacts=artefacts or {},
                    provenance=known)


def trial_of(
    *, game: str, method: object, target: Fingerprinted, threat: Threat, seed: int, settings: object = ()
) -> str:
    """The content hash of a trial."""
    return content_hash(game, version("assay"), identity_of(method), target.name, target.fingerprint(),
                        repr(threat), seed, repr(settings))


def one_by_one(
    game: Simple, attacks: Sequence[Any], proofs: Sequence[Any], target: Any, *, seed: int
) -> Iterator[Progress | Evidence]:
    """Every method played by itself; one that could not run is evidence of kind *not run*."""
    methods = [(attack, game.play) for attack in attacks] + [(proof, game.prove) for proof in proofs]
    for done, (method, played) in enumerate(methods):
        yield Progress(name_of(method), done, len(methods))
        try:
            yield played(method, target, seed=seed)
        except LedgerError:
            raise
        except Exception as error:  # the user's own code runs here: whatever it raises is a reason, not a crash
            yield not_run(game=game.name, trial=trial_of(game=game.name, method=method, target=target,
                                                         threat=game.threat, seed=seed),
                          target=target.name, threat=game.threat, attack=name_of(method), seed=seed, error=error)
