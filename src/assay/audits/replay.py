"""Stored artefacts judged again, against the target as it is now, without running any attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.audits.loading import load_data, load_target
from assay.audits.plan import Plan
from assay.audits.run import game_of
from assay.data import Dataset
from assay.evidence.record import Evidence, Threat
from assay.games import Game, Replay
from assay.targets.procedure import Training
from assay.threats import ThreatModel


def replayed(toml: str, folder: Path, found: Sequence[Evidence]) -> Iterator[tuple[Evidence, Replay]]:
    """Each played evidence with what re-judging it found, target and data loaded anew from the plan.

    Raises:
        AssayError: where target or data cannot be loaded any more.
    """
    plan = Plan.parse(toml, name="the plan in the ledger")
    dataset = load_data(plan.data, folder)
    target = load_target(plan.target, folder, dataset)
    trials = {_key(_threat(game_of(trial, dataset))): trial for trial in plan.trial}
    for evidence in (e for e in found if e.kind == "played"):
        trial = trials.get(_key(evidence.threat))
        if trial is None:
            yield evidence, Replay(0, 1, "the plan has no trial with this threat any more")
            continue
        n = len(dataset) if isinstance(target, Training) else max((b.n for b in evidence.bounds), default=len(dataset))
        cut = Dataset(dataset.x[:n], dataset.y[:n], dataset.name, dataset.classes)
        yield evidence, game_of(trial, cut).replay(evidence, target)


def _key(threat: Threat) -> tuple[str, str, str]:
    return threat.budget, threat.goal, threat.access


def _threat(game: Game) -> Threat:
    threat: ThreatModel | Threat = getattr(game, "threat")  # noqa: B009  # every game has one, each wing of its own type
    return threat if isinstance(threat, Threat) else threat.describe()
