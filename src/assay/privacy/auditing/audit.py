"""The audit itself: a procedure goes in, and what comes out is an ε that it leaks and what becomes of its claim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import ConfigError, TargetError
from assay.evidence.bound import CONFIDENCE
from assay.games import name_of
from assay.privacy.auditing.adversaries import Adversary, APIAccess, StaticInput, Trial
from assay.privacy.auditing.counts import EXACT, Method, PerStep
from assay.privacy.auditing.insiders import GradientCanary, IntermediateModels, MaliciousData
from assay.privacy.auditing.one_run import OneRun
from assay.privacy.auditing.procedure import Procedure, as_procedure, differentiable, procedure_name, watchable
from assay.privacy.auditing.result import AuditResult
from assay.privacy.auditing.thresholds import Claim, Pick, Rule, checked, pick, verdict
from assay.privacy.canaries import Canaries, Mislabeled, Planter
from assay.privacy.signals import logit_scale

LADDER: tuple[Adversary, ...] = (
    APIAccess(), StaticInput(), IntermediateModels(), GradientCanary(), MaliciousData(),
)
"""Nasr's ladder (S&P 2021), from the weakest adversary to the strongest."""

PILOT = 0.2
"""The share of the runs in which the threshold is chosen; half as many try out every adversary and canary."""

_LARGE = 1e30
"""What stands for an infinite score."""

Floats = NDArray[np.float64]


class Choice(NamedTuple):
    """An adversary and the canary it adds."""

    adversary: Adversary
    canary: Canaries

    def __str__(self) -> str:
        return type(self.adversary).__name__


class Seen(NamedTuple):
    """Scores of runs with the canary and of as many without."""

    inside: Floats
    outside: Floats


class Audited(NamedTuple):
    """A result, the scores that were judged, and by which rule."""

    result: AuditResult
    seen: Seen
    rule: Rule


@dataclass(frozen=True, eq=False)
class Bench:
    """Where the runs are made.

    Attributes:
        procedure: what is under audit.
        x, y: the data without canaries.
        chunk: runs trained at once.
        method: how guesses will become ε: about runs, or about every step of them.
        seed: of everything.
    """

    procedure: Procedure
    x: Tensor
    y: Tensor
    chunk: int
    method: Method
    seed: int

    def scores(self, choice: Choice, runs: int, stage: int) -> Seen:
        """Fresh runs, half of them with the canary, as the adversary scores them.

        Raises:
            ConfigError: PRV322 where the method speaks of other steps than the adversary saw.
        """
        rng = np.random.default_rng((self.seed, stage))
        inside = rng.permutation(np.arange(runs) % 2 == 0)
        seeds = [int(seed) for seed in rng.integers(2**31, size=runs)]
        parts = [self._chunk(choice, inside[at : at + self.chunk], seeds[at : at + self.chunk])
                 for at in range(0, runs, self.chunk)]
        found = np.concatenate(parts)
        if not isinstance(self.method, PerStep):
            found = found.sum(1)
        elif found.shape[1] != self.method.steps.count:
            raise ConfigError("PRV322", f"{choice} saw {found.shape[1]} steps, not {self.method.steps.count}")
        return Seen(found[inside].ravel(), found[~inside].ravel())

    def _chunk(self, choice: Choice, inside: NDArray[np.bool_], seeds: list[int]) -> Floats:
        trial = Trial(self.procedure, self.x, self.y, choice.canary, seeds, torch.from_numpy(inside))
        found = choice.adversary.infer(trial).double().reshape(len(seeds), -1)
        finite = found.nan_to_num(nan=-_LARGE, posinf=_LARGE, neginf=-_LARGE)  # a model that broke down tells, too
        return np.asarray(finite.numpy(), dtype=np.float64)


def audit(
    train: Callable[..., Any] | Procedure,
    canary: Planter | None = None,
    *,
    data: tuple[Tensor, Tensor],
    claim: tuple[float, float],
    runs: int = 1000,
    one_run: OneRun | None = None,
    adversary: Adversary | Sequence[Adversary] | None = None,
    method: Method = EXACT,
    confidence: float = CONFIDENCE,
    threshold: float | None = None,
    chunk: int = 250,
    seed: int = 0,
) -> AuditResult:
    """Tries to refute that a training procedure is (ε, δ)-differentially private.

    The procedure is run many times, on the data with and without one added example, and an adversary guesses which run
    had it. Adversary, example and threshold are chosen in pilot runs; fresh runs are judged, so that the confidence is
    exact whatever was chosen. With ``one_run`` the procedure runs once, on many examples of which each was added with
    chance one half.

    Args:
        train: ``train(x, y, seed) -> model``, untouched, where a model maps inputs to logits; or a
            :class:`~assay.privacy.auditing.procedure.Procedure`, which trains many at once. One that takes a keyword
            ``watch`` is audited from within as well.
        canary: the examples to add; by default the worst of mislabeled, out-of-distribution and blank ones (a
            thousand mislabeled ones, or half as many as there are examples, for one run).
        data: ``x`` and ``y`` to train on.
        claim: (ε, δ), for data sets that differ in one added or removed example.
        runs: trainings in all, half of them with the canary; trying out several adversaries takes further ones.
        one_run: how one run is judged; ``None`` for many runs.
        adversary: one, or several of which pilot runs choose; ``None`` for every rung of :data:`LADDER` on which the
            procedure can be met.
        method: how guesses become ε: exact rates, a Gaussian curve, or single steps.
        confidence: one-sided, of the answer.
        threshold: a threshold that was known before; scores above it mean "in". ``None`` for pilot runs.
        chunk: runs trained at once.
        seed: of everything.

    Raises:
        ConfigError: PRV310 for a claim that says nothing, PRV311 for too few runs, PRV322 for a method about other
            steps than there are.
        TargetError: PRV321 where an adversary must see steps and the procedure shows none.
    """
    said, procedure = checked(claim), as_procedure(train)
    bench = Bench(procedure, *data, chunk, method, seed)
    ladder = rungs_of(procedure, adversary)
    if one_run is not None:
        return _once(bench, canary, one_run, said, confidence)
    choices = choices_of(ladder, canary, data, seed)
    return audited(bench, choices, said, runs, confidence, threshold).result


def audited(
    bench: Bench, choices: Sequence[Choice], claim: Claim, runs: int, confidence: float,
    threshold: float | None = None,
) -> Audited:
    """Pilot runs of every choice, more of the best one for its threshold, and fresh ones that are judged.

    Raises:
        ConfigError: PRV311 for too few runs, PRV322 where the method speaks of other steps than there are.
    """
    method = bench.method
    if runs < 40:
        raise ConfigError("PRV311", f"{runs} runs")
    scouts = [bench.scores(choice, _even(runs * PILOT / 2), 2 + at) for at, choice in enumerate(choices)]
    error, left = 1 - confidence, _even(runs * (1 - PILOT))
    promises = [_pick(seen, method, claim, error, left) for seen in scouts]
    best = max(range(len(choices)), key=lambda at: promises[at].merit)
    more = bench.scores(choices[best], _even(runs * PILOT / 2), 0)
    pooled = Seen(*(np.concatenate(parts) for parts in zip(scouts[best], more)))
    rule = Rule(threshold) if threshold is not None else _pick(pooled, method, claim, error, left).rule
    fresh = bench.scores(choices[best], left, 1)
    result = verdict(rule.counts(*fresh), claim, method, error)
    return Audited(replace(result, adversary=str(choices[best])), fresh, rule)


def rungs_of(procedure: Procedure, adversary: Adversary | Sequence[Adversary] | None) -> tuple[Adversary, ...]:
    """The adversaries asked for, or all that this procedure can be met by. Raises ``TargetError`` (PRV321)."""
    if adversary is None:
        rungs = tuple(one for one in LADDER if not one.watches or watchable(procedure))
        return tuple(one for one in rungs if not isinstance(one, IntermediateModels) or differentiable(procedure))
    rungs = tuple(adversary) if isinstance(adversary, Sequence) else (adversary,)
    for one in rungs:
        if one.watches and not watchable(procedure):
            raise TargetError("PRV321", f"{name_of(one)} must see the steps of {procedure_name(procedure)}")
    return rungs


def choices_of(
    ladder: Sequence[Adversary], canary: Planter | None, data: tuple[Tensor, Tensor], seed: int
) -> list[Choice]:
    """Every adversary with every one of its canaries; a canary that is given replaces those made to stand out."""
    x, y = data
    found = []
    for one in ladder:
        planter = canary if canary is not None and not isinstance(one, APIAccess) else one.canary
        planted = planter.plant(x, y, classes=int(y.max()) + 1, seed=seed)
        found += [Choice(one, planted.pick([at])) for at in range(len(planted))]
    return found


def _pick(seen: Seen, method: Method, claim: Claim, error: float, runs: int) -> Pick:
    """The rule of these pilot runs, and what it promises for so many runs more."""
    guesses = runs // 2 if not isinstance(method, PerStep) else runs // 2 * method.steps.count
    return pick(seen.inside, seen.outside, method, claim.delta, error, guesses)


def _once(bench: Bench, canary: Planter | None, judge: OneRun, claim: Claim, confidence: float) -> AuditResult:
    """One run, with many canaries."""
    planter = canary or Mislabeled(min(1000, len(bench.y) // 2))
    planted = planter.plant(bench.x, bench.y, classes=int(bench.y.max()) + 1, seed=bench.seed)
    rng = np.random.default_rng((bench.seed, 0))
    member = rng.random(len(planted)) < 0.5
    keep = torch.cat([torch.ones(len(bench.x), dtype=torch.bool), torch.from_numpy(member)])[None]
    x, y = torch.cat([bench.x, planted.x]), torch.cat([bench.y, planted.y])
    models = bench.procedure.runs(x, y, keep, [int(rng.integers(2**31))])
    with torch.no_grad():
        scores = logit_scale(models(planted.x), planted.y)[0]
    return replace(judge.judged(scores.numpy(), member, claim, confidence), adversary=f"{name_of(planter)} in one run")


def _even(runs: float) -> int:
    return 2 * max(2, round(runs / 2))
