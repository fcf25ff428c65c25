"""Does a procedure leak more than its differential privacy allows? Runs with and without an example are told apart."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from assay.data import Dataset
from assay.errors import ConfigError, LedgerError
from assay.evidence.bound import CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Threat, not_run
from assay.games import Memory, Progress, Replay, Settings, Subject, Words, name_of
from assay.privacy.auditing.adversaries import Adversary
from assay.privacy.auditing.audit import Audited, Bench, audited, choices_of, rungs_of
from assay.privacy.auditing.counts import EXACT, GaussianCurve, Method, PerStep
from assay.privacy.auditing.result import AuditResult
from assay.privacy.auditing.steps import Steps
from assay.privacy.auditing.thresholds import Claim, Rule, checked, verdict
from assay.privacy.auditing.trained import procedure_of
from assay.privacy.private import mechanism_of
from assay.privacy.threat import MEMBERSHIP
from assay.privacy.trial import evidence, trial_of
from assay.targets.procedure import Training

_KEPT = ("inside", "outside", "rule", "steps")
"""The arrays that outlive an audit."""

_WORDS = re.compile(r"^\s*epsilon\s+(?P<epsilon>\S+)\s+delta\s+(?P<delta>\S+)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Promise:
    """(ε, δ)-differential privacy, as what an adversary must not exceed.

    Attributes:
        epsilon, delta: for data sets that differ in one added or removed example.
    """

    epsilon: float
    delta: float

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:g} delta {self.delta:g}"

    @classmethod
    def parse(cls, text: str) -> Promise:
        """From a plan's words: ``epsilon 3 delta 1e-5``. Raises ``ConfigError`` (PRV312)."""
        match = _WORDS.match(text)
        try:
            return cls(*checked((float(match["epsilon"]), float(match["delta"])))) if match else cls._unread(text)
        except ValueError:
            return cls._unread(text)

    @classmethod
    def _unread(cls, text: str) -> Promise:
        raise ConfigError("PRV312", f"cannot read the budget {text!r}")


@dataclass(frozen=True, eq=False)
class AuditGame:
    """Is a claim of differential privacy true? The procedure runs many times, with and without one example.

    The adversary chooses the example and says of each run how likely it was in; the game keeps the coins, chooses the
    threshold on pilot runs, judges fresh ones, and turns the errors into an ε that the procedure leaks *at least*. A
    proof is an accountant's, of what it leaks *at most*. Where the two cross, the procedure does not do what its
    accountant was told.

    Attributes:
        claim: (ε, δ).
        data: what is trained on; ``None`` for the procedure's own.
        runs: trainings in all for each adversary, half of them with the example.
        method: how guesses become ε.
        confidence: one-sided.
        chunk: runs trained at once, by procedures that can.
    """

    subject: ClassVar[Subject] = "procedure"

    claim: tuple[float, float]
    data: Dataset | None = None
    runs: int = 1000
    method: Method = EXACT
    confidence: float = CONFIDENCE
    chunk: int = 250
    name: str = "privacy.audit"
    promise: Promise = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "promise", Promise(*checked(self.claim)))

    @classmethod
    def planned(cls, data: Dataset, words: Words, settings: Settings) -> AuditGame:
        """The game that a plan describes. Raises ``ConfigError`` (PRV312) for a budget that cannot be read."""
        promise = Promise.parse(words.budget)
        return cls((promise.epsilon, promise.delta), data, runs=settings.runs, confidence=settings.confidence)

    @staticmethod
    def budget_named(text: str) -> str:
        """The budget of these words, as evidence prints it. Raises ``ConfigError`` (PRV312)."""
        return str(Promise.parse(text))

    @property
    def threat(self) -> Threat:
        """What all adversaries of this game have in common."""
        return Threat(goal=MEMBERSHIP, access="scores", budget=str(self.promise), knows=("data", "procedure"))

    def play(self, attack: Adversary, training: Training, *, seed: int) -> Evidence:
        """The demonstrated side: an ε of *at least* so much. Raises as :func:`~assay.privacy.audit`."""
        started, data = time.perf_counter(), self._data(training)
        x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
        procedure = procedure_of(training)
        rungs_of(procedure, attack)
        bench = Bench(procedure, x, y, self.chunk, self.method, seed)
        choices = choices_of([attack], None, (x, y), seed)
        found = audited(bench, choices, Claim(*self.claim), self.runs, self.confidence)
        return evidence(
            game=self.name, method=attack, target=training, threat=self._threat(attack), seed=seed,
            bounds=[found.result.bound()], settings=(self.runs, repr(self.method), self.confidence),
            cost=Cost(queries=self.runs, seconds=time.perf_counter() - started), doubts=_doubts(found.result),
            artefacts={"guesses": _kept(found, self.method)}, provenance={"data": data.fingerprint},
        )

    def prove(self, proof: Any, training: Training, *, seed: int) -> Evidence:
        """The proved side: an ε of *at most* so much, by an accountant, of what the procedure says that it does.

        Raises:
            ConfigError: PRV313 where the procedure does not say what its privacy rests on.
        """
        data = self._data(training)
        bound: Bound = proof.certify(mechanism_of(training, len(data)), delta=self.promise.delta, n=len(data))
        return evidence(game=self.name, method=proof, target=training, threat=self.threat, seed=seed, bounds=[bound],
                        kind="proved", provenance={"data": data.fingerprint})

    def rounds(
        self, attacks: Sequence[Adversary], proofs: Sequence[Any], training: Training, *, seed: int,
        memory: Memory | None = None,
    ) -> Iterator[Progress | Evidence]:
        """Every adversary and every accountant by itself; one that could not run is evidence of kind *not run*."""
        methods = [(attack, self.play) for attack in attacks] + [(proof, self.prove) for proof in proofs]
        for done, (method, played) in enumerate(methods):
            yield Progress(name_of(method), done, len(methods))
            try:
                yield played(method, training, seed=seed)
            except LedgerError:
                raise
            except Exception as error:  # the user's own procedure runs here: whatever it raises is a reason
                yield not_run(game=self.name, target=training.name, threat=self.threat, attack=name_of(method),
                              seed=seed, error=error, trial=trial_of(game=self.name, method=method, target=training,
                                                                     threat=self.threat, seed=seed))

    def replay(self, found: Evidence, training: Training) -> Replay:
        """Judges the stored scores once more; the runs themselves are not repeated."""
        if "guesses" not in found.artefacts or not found.bounds:
            return Replay(0, 0, "no scores were kept")
        kept = found.artefacts["guesses"].arrays
        inside, outside, rule, steps = (np.asarray(kept[name], dtype=np.float64) for name in _KEPT)
        bound = found.bounds[0]
        method: Method = PerStep(Steps(rate=float(steps[0]), count=int(steps[1]))) if len(steps) else EXACT
        method = GaussianCurve() if bound.method.endswith(GaussianCurve.label) else method
        counts = Rule(float(rule[0]), int(rule[1])).counts(inside, outside)
        again = verdict(counts, Claim(*self.claim), method, 1 - bound.confidence)
        return Replay(int(abs(again.epsilon - bound.value) < 1e-9), 1)

    def _data(self, training: Training) -> Dataset:
        return training.data if self.data is None else self.data

    def _threat(self, attack: Adversary) -> Threat:
        return replace(self.threat, access=str(attack.needs))


def _doubts(result: AuditResult) -> list[Doubt]:
    """Whether so few runs could have shown anything, and whether what they show is against the claim."""
    if result.refuted:
        return [Doubt("PRV331", f"epsilon is at least {result.epsilon:.4g} where {result.claim:g} is claimed, "
                                f"p = {result.p_value:.2g}")]
    if result.blind:
        return [Doubt("PRV330", f"{result.n} guesses show {result.ceiling:.4g} at most, {result.claim:g} is claimed")]
    return []


def _kept(found: Audited, method: Method) -> Artefact:
    """All that the verdict follows from."""
    steps = [method.steps.rate, method.steps.count] if isinstance(method, PerStep) else []
    values = found.seen.inside, found.seen.outside, [found.rule.threshold, found.rule.sign], steps
    return Artefact({name: np.asarray(value, dtype=np.float64) for name, value in zip(_KEPT, values)})
