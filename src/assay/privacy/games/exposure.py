"""Exposure: the adversary ranks candidates for a secret, and the referee, who planted it, looks up its place."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound, quantity_at
from assay.evidence.record import Artefact, Doubt, Evidence, Threat
from assay.games import Progress, name_of
from assay.privacy.text.exposure import Extrapolated, by_rank, extrapolated
from assay.privacy.text.language import Questioned
from assay.privacy.text.planting import TextCanary
from assay.privacy.trial import evidence, one_by_one
from assay.targets.language_model import LanguageModel

_FIT = 1e-3
"""The p-value of a fit below which its curve is doubted; there are many canaries, and one curve for each."""


class Ranker(Protocol):
    """An attack that this game plays."""

    def infer(self, model: LanguageModel, texts: Sequence[str]) -> NDArray[np.float64]: ...


class Exposed(NamedTuple):
    """What the referee found, a row a canary.

    Attributes:
        bits: exposure by rank.
        curve: exposure by extrapolation, where it was asked for.
        scores: float64 ``[canaries, references + 1]``, the secret's own first.
    """

    bits: NDArray[np.float64]
    curve: tuple[Extrapolated, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExposureGame:
    """Each canary is hidden among references drawn like it; exposure is what its rank says.

    Exposure by rank is at most log2 of the number of references, and only it is a bound; exposure by extrapolation is
    an estimate, kept in the artefacts, and one that goes beyond the references or does not fit them is doubted.

    Attributes:
        canaries: what was inserted into the training text, and how often.
        references: candidates beside the true secret, each drawn uniformly.
        extrapolate: whether a skew-normal curve is fitted as well.
        queries: texts that the adversary may submit; ``None`` for no limit.
        confidence: one-sided.

    Raises:
        DataError: PRV421 where there are not so many secrets.
    """

    canaries: tuple[TextCanary, ...]
    references: int = 1023
    extrapolate: bool = False
    queries: int | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        for canary in self.canaries:
            if self.references >= canary.secret.space:
                raise DataError("PRV421", f"{self.references} references of {canary.secret.space} secrets")

    @property
    def name(self) -> str:
        """As evidence calls it."""
        return "privacy.exposure"

    @property
    def threat(self) -> Threat:
        """The threat model in words."""
        return Threat(goal="rank secrets", access="scores", budget=f"{self.references} references",
                      knows=("format",), queries=self.queries)

    def play(self, attack: Ranker, target: LanguageModel, *, seed: int) -> Evidence:
        """Hides every canary among its references, and reads its rank."""
        began, view = time.perf_counter(), Questioned(model=target, queries=self.queries)
        found = self.expose(attack, view, seed=seed)
        cost = view.cost(time.perf_counter() - began)
        planted = repr([(canary.text, canary.repeats) for canary in self.canaries])
        return evidence(
            game=self.name, method=attack, target=target, threat=self.threat, seed=seed,
            settings=(planted, self.references, self.extrapolate, self.confidence), cost=cost,
            bounds=self._bounds(name_of(attack), found.bits), doubts=self._doubts(found),
            artefacts={"exposure": Artefact({
                "bits": found.bits, "scores": found.scores,
                "repeats": np.array([canary.repeats for canary in self.canaries], dtype=np.int64),
                "extrapolated": np.array([curve.bits for curve in found.curve], dtype=np.float64),
            })},
        )

    def prove(self, proof: object, target: LanguageModel, *, seed: int) -> Evidence:
        """There is no proof for this game: a bound on differential privacy is proved in its own."""
        raise DataError("PRV413", f"{name_of(proof)} proves nothing about exposure")

    def rounds(
        self, attacks: Sequence[Ranker], proofs: Sequence[object], target: LanguageModel, *, seed: int
    ) -> Iterator[Progress | Evidence]:
        """One evidence a method."""
        return one_by_one(self, attacks, proofs, target, seed=seed)

    def expose(self, attack: Ranker, model: LanguageModel, *, seed: int) -> Exposed:
        """The exposure of every canary to this model."""
        rng = np.random.default_rng(seed)
        rows = np.stack([self._ranked(attack, model, canary, rng) for canary in self.canaries])
        bits = np.array([by_rank(float(row[0]), row[1:]) for row in rows])
        curve = tuple(extrapolated(float(row[0]), row[1:], space=canary.secret.space)
                      for row, canary in zip(rows, self.canaries)) if self.extrapolate else ()
        return Exposed(bits, curve, rows)

    def _ranked(
        self, attack: Ranker, model: LanguageModel, canary: TextCanary, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Scores of the secret, then of its references; the adversary sees them in no order."""
        values = [canary.value, *canary.secret.draw(self.references, rng, without=canary.value)]
        order = rng.permutation(len(values))
        scores = np.empty(len(values))
        scores[order] = attack.infer(model, [canary.secret.fill(values[place]) for place in order])
        return scores

    def _bounds(self, method: str, bits: NDArray[np.float64]) -> tuple[Bound, ...]:
        """The median over all canaries, over those of each number of repetitions, and how many come first."""
        repeats = np.array([canary.repeats for canary in self.canaries])
        levels = sorted(set(repeats.tolist()))
        groups = {"median exposure": repeats > 0}
        if len(levels) > 1:
            groups |= {quantity_at("median exposure", f"{level}x"): repeats == level for level in levels}
        first = int((bits >= log2(self.references) - 1e-9).sum())
        return (
            *(Bound.of_median(quantity, AT_LEAST, bits[rows].tolist(), method=method, confidence=self.confidence)
              for quantity, rows in groups.items()),
            Bound.of_count("secrets ranked first", AT_LEAST, first, len(bits), method=method,
                           confidence=self.confidence),
        )

    def _doubts(self, found: Exposed) -> list[Doubt]:
        beyond = sum(curve.beyond for curve in found.curve)
        poor = sum(curve.fit < _FIT for curve in found.curve)
        said = [f"{beyond} of {len(found.curve)} are beyond log2({self.references}) bits"] if beyond else []
        said += [f"{poor} of {len(found.curve)} curves do not fit their references"] if poor else []
        return [Doubt("PRV422", "; ".join(said))] if said else []
