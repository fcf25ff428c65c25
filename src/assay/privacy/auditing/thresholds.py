"""Scores to guesses: thresholds chosen on other runs than those they are judged on, or paid for. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import ConfigError
from assay.evidence.bound import CONFIDENCE
from assay.privacy.auditing.counts import EXACT, Counts, Method
from assay.privacy.auditing.result import AuditResult

Floats = NDArray[np.float64]

_CANDIDATES = 400
"""At most so many thresholds are looked at, evenly over the ranks."""


class Claim(NamedTuple):
    """What is claimed: (ε, δ)-differential privacy, neighbors differing by one added or removed example."""

    epsilon: float
    delta: float


class Rule(NamedTuple):
    """Guess that the example was in where ``sign · score > sign · threshold``."""

    threshold: float
    sign: int = 1

    def counts(self, inside: Floats, outside: Floats) -> Counts:
        """How these scores are guessed."""
        true, false = (int((self.sign * scores > self.sign * self.threshold).sum()) for scores in (inside, outside))
        return Counts(true, false, len(inside), len(outside))


class Pick(NamedTuple):
    """A rule, and what it would show if it did as well on the runs to be judged."""

    rule: Rule
    merit: float


@dataclass(frozen=True)
class Explicit:
    """A threshold that was known before: every run is judged by it.

    Attributes:
        threshold: scores above it are guessed "in".
    """

    threshold: float


@dataclass(frozen=True)
class Split:
    """The threshold, and whether high or low scores mean "in", from a share of the runs; the others are judged.

    Attributes:
        share: of the runs, that chooses.
    """

    share: float = 0.1


@dataclass(frozen=True)
class MultiSplit:
    """The median of many splits, each at half of the error: less a matter of luck than one of them.

    Source: Meinshausen, Meier & Bühlmann (JASA 104, 2009): twice the median of the p-values is a p-value.

    Attributes:
        share: as of :class:`Split`.
        splits: how many, odd.
    """

    share: float = 0.2
    splits: int = 11


@dataclass(frozen=True)
class Bonferroni:
    """The best of several thresholds that were known before; each pays its part of the error.

    Attributes:
        thresholds: chosen without a look at these scores.
    """

    thresholds: tuple[float, ...]


Threshold = Explicit | Split | MultiSplit | Bonferroni

SPLIT = Split()
"""How thresholds are chosen where nothing else is asked for."""


def audit_scores(
    inside: Floats,
    outside: Floats,
    *,
    claim: tuple[float, float],
    method: Method = EXACT,
    threshold: Threshold = SPLIT,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> AuditResult:
    """An audit of scores at hand: one a run with the example, one a run without, the higher the likelier "in".

    Args:
        inside, outside: float ``[runs]`` each.
        claim: (ε, δ).
        method: how counts of guesses become ε.
        threshold: how scores become guesses.
        confidence: one-sided, of the whole audit.
        seed: of the splits.

    Raises:
        ConfigError: PRV310 for a claim that says nothing, PRV311 where there are too few runs.
    """
    said = checked(claim)
    inside, outside = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    if min(len(inside), len(outside)) < 4:
        raise ConfigError("PRV311", f"{len(inside)} runs with the example and {len(outside)} without")
    if method.symmetric:  # a fair coin: whoever guesses the commoner kind must win nothing
        equal = min(len(inside), len(outside))
        inside, outside = inside[:equal], outside[:equal]
    error = 1 - confidence
    match threshold:
        case Explicit(at):
            return verdict(Rule(at).counts(inside, outside), said, method, error)
        case Bonferroni(many):
            results = [verdict(Rule(at).counts(inside, outside), said, method, error / len(many)) for at in many]
            best = max(results, key=lambda result: result.epsilon)
            return replace(best, p_value=min(1.0, len(many) * min(one.p_value for one in results)),
                           confidence=confidence)
        case Split(share):
            return _split(inside, outside, share, said, method, error, seed)
        case MultiSplit(share, splits):
            results = [_split(inside, outside, share, said, method, error / 2, seed + 1000003 * at)
                       for at in range(splits)]
            results.sort(key=lambda result: result.epsilon)
            middle = float(np.median([one.p_value for one in results]))
            return replace(results[splits // 2], p_value=min(1.0, 2 * middle), confidence=confidence)


def checked(claim: tuple[float, float]) -> Claim:
    """The claim, if it is one. Raises ``ConfigError`` (PRV310)."""
    epsilon, delta = claim
    if not (epsilon >= 0 and 0 <= delta < 1):
        raise ConfigError("PRV310", f"claim = ({epsilon:g}, {delta:g})")
    return Claim(epsilon, delta)


def pick(inside: Floats, outside: Floats, method: Method, delta: float, error: float, runs: int) -> Pick:
    """The rule that would show most on so many further runs of either kind, its rates being as here.

    Rates are taken a standard error to the worse (Wilson, 1927), so that luck in a tail promises little. Under
    a symmetric curve the best threshold errs equally often both ways, which is the median of all scores.
    """
    pooled = np.unique(np.r_[inside, outside])
    middles = (pooled[1:] + pooled[:-1]) / 2 if len(pooled) > 1 else pooled
    at = middles[np.unique(np.linspace(0, len(middles) - 1, _CANDIDATES).round().astype(np.int64))]
    if method.symmetric:
        at = np.array([np.median(np.r_[inside, outside])])
    above = [1 - np.searchsorted(np.sort(scores), at, side="right") / len(scores) for scores in (inside, outside)]
    best = Pick(Rule(float(at[0])), -np.inf)
    for sign, true, false in ((1, above[0], above[1]), (-1, 1 - above[0], 1 - above[1])):
        worse = runs * _wilson(true, len(inside), -1), runs * _wilson(false, len(outside), 1)
        merit = method.merit(*worse, runs, runs, delta, error)
        where = int(np.argmax(merit))
        if merit[where] > best.merit:
            best = Pick(Rule(float(at[where]), sign), float(merit[where]))
    return best


def _wilson(rate: Floats, n: int, sign: int) -> Floats:
    """One end of the interval of one standard error around these rates of ``n``."""
    return np.asarray((rate + 1 / (2 * n) + sign * np.sqrt(rate * (1 - rate) / n + 1 / (4 * n**2))) / (1 + 1 / n))


def verdict(counts: Counts, claim: Claim, method: Method, error: float) -> AuditResult:
    """What these guesses are worth."""
    delta = claim.delta
    return AuditResult(
        epsilon=method.epsilon(counts, delta=delta, error=error), delta=delta, claim=claim.epsilon,
        ceiling=method.epsilon(method.best(counts.inside, counts.outside), delta=delta, error=error),
        p_value=method.p_value(counts, epsilon=claim.epsilon, delta=delta), confidence=1 - error, n=counts.runs,
        guesses=counts.said(method.unit), method=method.label,
    )


def _split(inside: Floats, outside: Floats, share: float, claim: Claim, method: Method, error: float,
           seed: int) -> AuditResult:
    rng = np.random.default_rng(seed)
    inside, outside = rng.permutation(inside), rng.permutation(outside)
    cuts = max(2, round(share * len(inside))), max(2, round(share * len(outside)))
    left = min(len(inside) - cuts[0], len(outside) - cuts[1])
    chosen = pick(inside[: cuts[0]], outside[: cuts[1]], method, claim.delta, error, left)
    return verdict(chosen.rule.counts(inside[cuts[0] :], outside[cuts[1] :]), claim, method, error)
