"""Stored artefacts judged again, against the target as it is now, without running any attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.audits.loading import load_data, load_target
from assay.audits.plan import Plan, TrialPlan
from assay.audits.run import game_of
from assay.data import Dataset
from assay.evidence.record import Evidence
from assay.games import Replay


def replayed(toml: str, folder: Path, found: Sequence[Evidence]) -> Iterator[tuple[Evidence, Replay]]:
    """Each played evidence with what re-judging it found, target and data loaded anew from the plan.

    Raises:
        AssayError: where target or data cannot be loaded any more.
    """
    plan = Plan.parse(toml, name="the plan in the ledger")
    dataset = load_data(plan.data, folder)
    target = load_target(plan.target, folder, dataset)
    trials: dict[tuple[str, str, str], TrialPlan] = {
        (game_of(trial, dataset).budget_named(trial.threat.budget), trial.threat.goal, trial.threat.access): trial
        for trial in plan.trial
    }
    for evidence in (e for e in found if e.kind == "played"):
        trial = trials.get((evidence.threat.budget, evidence.threat.goal, evidence.threat.access))
        if trial is None:
            yield evidence, Replay(0, 1, "the plan has no trial with this threat any more")
            continue
        n = max((b.n for b in evidence.bounds), default=len(dataset.y))
        cut = Dataset(dataset.x[:n], dataset.y[:n], dataset.name, dataset.classes)
        yield evidence, game_of(trial, cut).replay(evidence, target)
