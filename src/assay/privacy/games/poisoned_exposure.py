"""Poisoned exposure: how much more of a secret comes out where an adversary may add lines to the training text."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat
from assay.games import Progress, Subject, name_of
from assay.privacy.attacks.exposure import Exposure
from assay.privacy.games.exposure import ExposureGame, Ranker
from assay.privacy.text.language import Questioned
from assay.privacy.text.planting import Secret, TextCanary, planted
from assay.privacy.trial import evidence, one_by_one
from assay.targets.language_model import LanguageModel


class TextPoisoner(Protocol):
    """An attack that this game plays: it knows the sentence around a secret, not the secret."""

    def poison(self, secrets: Sequence[Secret], rng: np.random.Generator) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class TextTraining:
    """A procedure that trains a language model: ``fit(text, seed) -> model``, the user's own.

    Attributes:
        fit: never changed; the same text and seed should give the same model.
        text: what it is trained on, without secrets and poison.
    """

    fit: Callable[[str, int], LanguageModel]
    text: str

    @property
    def name(self) -> str:
        """The procedure's."""
        return str(getattr(self.fit, "__name__", type(self.fit).__name__))

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the procedure's source, where there is one to read, and of the text."""
        try:
            source = inspect.getsource(self.fit)
        except (OSError, TypeError):
            source = self.name
        hashes = {"procedure": source, "training": self.text}
        return {part: hashlib.sha256(text.encode()).hexdigest() for part, text in hashes.items()}


class Compared(NamedTuple):
    """Exposure of every secret in every run, float64 ``[runs, secrets]``: bits by rank."""

    poisoned: NDArray[np.float64]
    clean: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PoisonedExposureGame:
    """Two models a run: a coin says which half of the secrets is poisoned for the first, the rest is for the second.

    So each secret is seen with its poison and without, and both texts are about equally long: what is compared is not
    a long training with a short one. The gain in bits is at most log2 of the number of references.

    Attributes:
        canaries: the secrets that are in the text.
        runs: how often the pair is trained, with other coins and another seed.
        references: candidates beside each true secret.
        ranker: how the adversary ranks candidates.
        confidence: one-sided.
    """

    subject: ClassVar[Subject] = "procedure"

    canaries: tuple[TextCanary, ...]
    runs: int = 1
    references: int = 255
    ranker: Ranker = field(default_factory=Exposure)
    confidence: float = CONFIDENCE

    @property
    def name(self) -> str:
        """As evidence calls it."""
        return "privacy.poisoned-exposure"

    @property
    def threat(self) -> Threat:
        """The threat model in words."""
        return Threat(goal="rank secrets", access="scores", budget=f"lines about {len(self.canaries)} secrets",
                      knows=("format", "sentence"))

    def play(self, attack: TextPoisoner, training: TextTraining, *, seed: int) -> Evidence:
        """Trains with and without each secret's poison, and compares its rank."""
        began = time.perf_counter()
        found, cost = self.compare(attack, training, seed=seed)
        method, said = name_of(attack), repr([(canary.text, canary.repeats) for canary in self.canaries])
        values = {"median exposure": found.poisoned, "median gain in exposure": found.poisoned - found.clean}
        return evidence(
            game=self.name, method=attack, target=training, threat=self.threat, seed=seed,
            settings=(said, self.runs, self.references, name_of(self.ranker), self.confidence),
            cost=cost + Cost(seconds=time.perf_counter() - began),
            bounds=[Bound.of_median(quantity, AT_LEAST, bits.ravel().tolist(), method=method,
                                    confidence=self.confidence) for quantity, bits in values.items()],
            artefacts={"exposure": Artefact({"poisoned": found.poisoned, "clean": found.clean})},
        )

    def prove(self, proof: object, training: TextTraining, *, seed: int) -> Evidence:
        """There is no proof for this game: a bound on differential privacy is proved in its own."""
        raise DataError("PRV413", f"{name_of(proof)} proves nothing about poisoned text")

    def rounds(
        self, attacks: Sequence[TextPoisoner], proofs: Sequence[object], training: TextTraining, *, seed: int
    ) -> Iterator[Progress | Evidence]:
        """One evidence a method."""
        return one_by_one(self, attacks, proofs, training, seed=seed)

    def compare(self, attack: TextPoisoner, training: TextTraining, *, seed: int) -> tuple[Compared, Cost]:
        """The exposure of every secret with its poison and without, and what the questions cost."""
        poisoned, clean = np.empty((2, self.runs, len(self.canaries)))
        cost = Cost()
        for run in range(self.runs):
            rng = np.random.default_rng([seed, run])
            chosen = rng.permutation(len(self.canaries)) % 2 == 0
            for half in (chosen, ~chosen):
                bits, spent = self._trained(attack, training, half, rng, seed + run)
                poisoned[run, half], clean[run, ~half] = bits[half], bits[~half]
                cost = cost + spent
        return Compared(poisoned, clean), cost

    def _trained(
        self, attack: TextPoisoner, training: TextTraining, half: NDArray[np.bool_], rng: np.random.Generator, seed: int
    ) -> tuple[NDArray[np.float64], Cost]:
        """Every secret's exposure where this half of them is poisoned."""
        own = [canary.text for canary in self.canaries for _ in range(canary.repeats)]
        poison = attack.poison([canary.secret for canary, chosen in zip(self.canaries, half) if chosen], rng)
        model = training.fit(planted(training.text, [*own, *poison], seed=seed), seed)
        view = Questioned(model=model)
        game = ExposureGame(canaries=self.canaries, references=self.references)
        return game.expose(self.ranker, view, seed=seed).bits, view.cost(0.0)
