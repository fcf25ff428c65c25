"""The main path: plan → target and data → games → evidence → claims → outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay import catalog
from assay.audits import suites
from assay.audits.loading import load_data, load_target, with_models
from assay.audits.plan import Method, Plan, TrialPlan
from assay.data import Dataset, validate
from assay.errors import ConfigError, Unreachable
from assay.evidence.claim import Claim, Judgment
from assay.evidence.contradiction import CODE as CONTRADICTION
from assay.evidence.contradiction import with_contradictions
from assay.evidence.ledger import Ledger
from assay.evidence.record import Evidence
from assay.games import Game, Progress, Settings, Words


@dataclass(frozen=True)
class Outcome:
    """What an audit ends with."""

    evidence: tuple[Evidence, ...]
    judgments: tuple[Judgment, ...]
    samples: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """The points behind the worst cases: ``"x"`` and ``"y"``, as the target saw them."""

    @property
    def exit_code(self) -> int:
        """0 no claim broken · 1 a claim broken · 3 not enough evidence · 4 target unreachable · 5 a contradiction."""
        verdicts = {judgment.verdict for judgment in self.judgments}
        if any(doubt.code == CONTRADICTION for e in self.evidence for doubt in e.doubts):
            return 5
        if "broken" in verdicts:
            return 1
        if any(e.error_exit == Unreachable.exit_code for e in self.evidence):
            return 4
        idle = not self.evidence or any(e.kind == "not run" for e in self.evidence)
        return 3 if "undecided" in verdicts or idle else 0

    def with_samples(self, x: NDArray[np.generic], y: NDArray[np.generic]) -> Outcome:
        """The same outcome, with the points behind its worst cases."""
        return replace(self, samples={"x": x, "y": y})

    def require(self, *ids: str) -> None:
        """Raises ``AssertionError`` unless each claim is standing or proven; ``ConfigError`` for unknown ids."""
        known = {judgment.id: judgment for judgment in self.judgments}
        for id in ids:
            if id not in known:
                raise ConfigError("CFG121", f"there is no claim {id!r}; there are {sorted(known)}")
        failed = [known[id] for id in ids if known[id].verdict not in ("standing", "proven")]
        if failed:
            raise AssertionError("\n".join(f"{j.id} {j.verdict}: {j.claim} — {j.because}" for j in failed))


def perform(
    plan: Plan, *, folder: Path, ledger: Ledger | None = None, suite: str = ""
) -> Iterator[Progress | Evidence | Outcome]:
    """Plays every trial of the plan and judges its claims.

    Yields progress and evidence as they come, and the outcome last. What is earned is in the ledger before it is
    yielded; a second run with the same ledger resumes.

    Raises:
        AssayError: where target, data or plan cannot be used at all.
    """
    effort = suites.find(suite or suites.needed(plan) or "standard")
    if not plan.trial:
        raise ConfigError("CFG150", "the plan has no [[trial]]")
    claims_of(plan)  # a claim that cannot be read is said before anything is spent, not after
    procedure = plan.target.kind == "training"
    dataset = _cut(load_data(plan.data, folder), effort if suite and not procedure else None)
    validate(dataset, bounds=(plan.target.bounds[0], plan.target.bounds[1]), classes=None)
    trials = [_ready(trial, number, plan, effort) for number, trial in enumerate(plan.trial, 1)]
    games = [game_of(trial, dataset) for trial in trials]
    methods = [_methods(trial, folder) for trial in trials]
    target = load_target(plan.target, folder, dataset)
    for trial, game in zip(trials, games):
        _matched(trial, game, procedure)
    found: list[Evidence] = []
    for trial, game, (attacks, proofs) in zip(trials, games, methods):
        for event in game.rounds(attacks, proofs, target, seed=trial.seed, memory=ledger):
            if isinstance(event, Evidence):
                found.append(event)
                if ledger is not None:
                    ledger.record(event)
            yield event
    outcome = judged(plan, found).with_samples(dataset.x, dataset.y)
    if ledger is not None:
        ledger.judge(list(outcome.judgments))
    yield outcome


def judged(plan: Plan, found: Sequence[Evidence]) -> Outcome:
    """The claims of the plan judged on this evidence, contradictions marked."""
    marked = with_contradictions(found)
    return Outcome(tuple(marked), tuple(judge(plan, marked)))


def judge(plan: Plan, found: Sequence[Evidence]) -> list[Judgment]:
    """The verdict on every claim of the plan."""
    return [claim.judge(found) for claim in claims_of(plan)]


def claims_of(plan: Plan) -> list[Claim]:
    """The claims of the plan, read. Raises ``ConfigError`` (CFG120, THR104)."""
    claims = []
    for number, c in enumerate(plan.claim, 1):
        budget = game_class(plan.trial[0]).budget_named(c.budget) if c.budget and plan.trial else ""
        claims.append(Claim.parse(c.that, id=c.id or f"claim-{number}", about=c.about, budget=budget))
    return claims


def _matched(trial: TrialPlan, game: Game, procedure: bool) -> None:
    """Raises ``ConfigError`` (CFG151) where a game about models meets a procedure, or the other way round."""
    wanted = getattr(game, "subject", "model")
    if wanted != ("procedure" if procedure else "model"):
        had = "a training procedure" if procedure else "a finished model"
        raise ConfigError("CFG151", f"{game.name} is played on a {wanted}, and the target is {had}",
                          where=f"[[trial]] {trial.id}, game")


def _cut(dataset: Dataset, effort: suites.Suite | None) -> Dataset:
    if effort is None or effort.points is None or len(dataset.y) <= effort.points:
        return dataset
    return Dataset(dataset.x[: effort.points], dataset.y[: effort.points], dataset.name, dataset.classes)


def _ready(trial: TrialPlan, number: int, plan: Plan, effort: suites.Suite) -> TrialPlan:
    provable = plan.target.kind in ("torch", "onnx") and not plan.target.defenses
    return suites.filled(trial.model_copy(update={"id": trial.id or f"trial-{number}"}), effort, proofs=provable)


def game_class(trial: TrialPlan) -> type[Game]:
    """The game that the trial names."""
    card = catalog.game(trial.game, where=f"[[trial]] {trial.id}, game")
    game: type[Game] = catalog.load(card)
    return game


def game_of(trial: TrialPlan, dataset: Dataset) -> Game:
    """The trial's game on these examples."""
    t = trial.threat
    words = Words(budget=t.budget, access=t.access, goal=t.goal, knows=tuple(t.knows), queries=t.queries)
    settings = Settings(curve=tuple(trial.curve), chunk=trial.chunk, confidence=trial.confidence, runs=trial.runs)
    return game_class(trial).planned(dataset, words, settings)


def _methods(trial: TrialPlan, folder: Path) -> tuple[list[Any], list[Any]]:
    where, wing = f"[[trial]] {trial.id}", trial.game.partition(".")[0]
    for spec in trial.attacks:
        _seated(spec, trial, wing, f"{where}, attacks")
    attacks = [catalog.make(with_models(spec, folder), kind="attack", wing=wing, where=f"{where}, attacks")
               for spec in trial.attacks]
    proofs = [catalog.make(spec, kind="proof", wing=wing, where=f"{where}, proofs") for spec in trial.proofs]
    return attacks, proofs


def _seated(spec: Method, trial: TrialPlan, wing: str, where: str) -> None:
    """Raises ``ConfigError`` (CFG152) where an attack belongs to another game of its wing."""
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    card, game = catalog.find(name, kind="attack", wing=wing, where=where), catalog.game(trial.game, where=where).name
    if card.game and card.game != game:
        known = any(row.name == card.game for row in catalog.listed(kind="game"))
        fix = f'Give the trial game = "{card.game}".' if known else f"Play it from Python: assay explain {card.name}."
        raise ConfigError("CFG152", f"{card.name} does not play in {game}", where=where, fix=fix)
