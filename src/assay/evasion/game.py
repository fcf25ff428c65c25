"""How evasion is played and judged: attacks and proofs on the same points, each skipping what the other settled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data import Dataset, arrays, validate
from assay.errors import ConfigError, LedgerError
from assay.evasion.adaptive import DEFENSE, NOTHING, Composition, compose
from assay.evasion.budgets import parse_budget
from assay.evasion.doubts import examine, of_method
from assay.evasion.methods import Cascade, Certifier, Method, Minimizer, Perturber, identity_of, name_of, needs_of
from assay.evasion.probes import SAMPLE, diagnose
from assay.evasion.threat import MISCLASSIFY, TARGETED, Ball, ladder
from assay.evasion.transformations import Transformation
from assay.evasion.trial import Trial
from assay.evidence.bound import AT_LEAST, AT_MOST, CLEAN, CONFIDENCE, NAIVE, ROBUST, Bound, quantity_at
from assay.evidence.record import Artefact, Doubt, Evidence, content_hash, not_run
from assay.games import Arrays, Forgetful, Memory, Progress, Replay, Settings, Words
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Smoothed, Target, WhiteBox, refuses
from assay.targets.defended import Defended
from assay.threats import Examples, ThreatModel

EXAMPLES = 512
"""How many natural inputs the adversary holds, at most."""

OBFUSCATED = 0.1
"""The share of points from which on a gap between plain and adapted attacks is named an obfuscation."""


@dataclass(frozen=True, eq=False)
class EvasionGame:
    """Inputs changed at test time, within a budget, until the prediction is wrong.

    The referee re-checks budget and success on a fresh evaluation of the target; what an attack says of itself does
    not count. A certified point is not attacked, a broken point is not certified.

    Attributes:
        x: examples in the target's declared box, ``[n, …]`` (array or tensor).
        y: labels, int ``[n]``: the true ones, or, for a targeted goal, the ones to reach.
        threat: the adversary.
        curve: further radii at which the bracket is wanted.
        chunk: points in one batch; each chunk is kept as soon as it is earned.
        confidence: one-sided, of what is implied beyond these points.
        draws: first looks at a randomized target per judgment; see :class:`~assay.evasion.referee.Referee`.
        examples: natural inputs and labels that the adversary holds; the points themselves, where none are given.
        source: where the examples come from, as errors name it.
    """

    x: Tensor | NDArray[np.generic]
    y: Tensor | NDArray[np.generic]
    threat: ThreatModel
    curve: tuple[float, ...] = ()
    chunk: int = 500
    confidence: float = CONFIDENCE
    draws: int = 11
    examples: tuple[NDArray[np.generic] | Tensor, NDArray[np.generic] | Tensor] | None = None
    name: str = "evasion"
    source: str = "arrays"

    def __post_init__(self) -> None:
        if self.threat.goal not in (MISCLASSIFY, TARGETED):
            raise ConfigError("THR106", f"the evasion game knows no goal {self.threat.goal!r}")

    @classmethod
    def planned(cls, data: Dataset, words: Words, settings: Settings) -> EvasionGame:
        """The game that a plan describes. Raises ``ConfigError`` (THR104) for a budget that cannot be read."""
        threat = parse_budget(words.budget).threat(
            access=words.access, knows=words.knows, goal=words.goal, queries=words.queries
        )
        return cls(data.x, data.y, threat=threat, curve=settings.curve, chunk=settings.chunk,
                   confidence=settings.confidence, source=data.name)

    @staticmethod
    def budget_named(text: str) -> str:
        """The budget of these words, as evidence prints it. Raises ``ConfigError`` (THR104)."""
        return str(parse_budget(text))

    def replay(self, evidence: Evidence, target: Target) -> Replay:
        """Re-judges stored adversarial examples: in the budget, and still wrong on a fresh evaluation."""
        if "adversarial" not in evidence.artefacts:
            return Replay(0, 0, "nothing was broken" if evidence.kind == "played" else "nothing to re-judge")
        stored = evidence.artefacts["adversarial"].arrays
        data = arrays(_array(self.x), _array(self.y))
        if data.fingerprint != evidence.provenance.get("data"):
            return Replay(0, len(stored["index"]), "the data are not those of the evidence")
        draws = self.draws if target.randomized else 1
        trial = replace(self._trial((), data, target, evidence.seed, Forgetful()), draws=draws)
        held = 0
        for start in range(0, len(stored["index"]), self.chunk):
            index = stored["index"][start : start + self.chunk].astype(np.int64)
            z = torch.as_tensor(stored["x"][start : start + self.chunk]).to(target.device, target.dtype)
            x = torch.as_tensor(data.x[index]).to(target.device, target.dtype)
            y = torch.as_tensor(data.y[index]).to(target.device)
            with trial.seeded(f"replay {start}"):
                kept = _kept(trial.budget, stored, slice(start, start + self.chunk), z, x, target.bounds)
                held += int((trial.judge(z, y)[0] & kept).sum())
        return Replay(held, len(stored["index"]))

    def play(self, attack: Perturber | Cascade, target: Target, *, seed: int, memory: Memory | None = None) -> Evidence:
        """The demonstrated side: robust accuracy *at most*."""
        return self.bracket([attack], [], target, seed=seed, memory=memory)[0]

    def prove(self, proof: Certifier, target: Target, *, seed: int, memory: Memory | None = None) -> Evidence:
        """The proved side: robust accuracy *at least*."""
        return self.bracket([], [proof], target, seed=seed, memory=memory)[0]

    def bracket(
        self,
        attacks: Sequence[Perturber | Cascade],
        proofs: Sequence[Certifier],
        target: Target,
        *,
        seed: int,
        memory: Memory | None = None,
    ) -> tuple[Evidence, ...]:
        """Both sides on the same points: one evidence a method, attacks first."""
        events = self.rounds(attacks, proofs, target, seed=seed, memory=memory)
        return tuple(event for event in events if isinstance(event, Evidence))

    def rounds(
        self,
        attacks: Sequence[Perturber | Cascade],
        proofs: Sequence[Certifier],
        target: Target,
        *,
        seed: int,
        memory: Memory | None = None,
    ) -> Iterator[Progress | Evidence]:
        """The same as :meth:`bracket`, yielding progress on the way and the evidence at the end."""
        methods: tuple[Method, ...] = (*attacks, *proofs)
        data = arrays(_array(self.x), _array(self.y), name=self.source)
        trial = self._trial(methods, data, target, seed, memory or Forgetful())
        doubts: tuple[Doubt, ...] = ()
        try:
            validate(data, bounds=(target.bounds.lower, target.bounds.upper), classes=None)
            x, _ = trial.points(slice(0, 16))
            target.check(x)
            if target.offers >= Access.SCORES:
                with trial.seeded("classes"):
                    classes = target.scores(x[:2]).shape[1] - refuses(target)
                validate(data, bounds=None, classes=classes)
            if target.randomized or not _steady(target, x):
                trial.draws = self.draws
            trial.composed = self._composed(trial)
            yield from trial.play(self.chunk)
            with trial.seeded("doubts"):
                doubts = examine(trial) if len(trial.errors) < len(methods) else ()
        except LedgerError:
            raise
        except Exception as error:  # the model's own code runs here: whatever it raises is a reason, not a crash
            trial.errors = {**dict.fromkeys(range(len(methods)), error), **trial.errors}
        for owner in range(len(methods)):
            yield self._evidence(trial, owner, doubts)

    def _composed(self, trial: Trial) -> Composition:
        """How attacks adapt to the target: by what it declares, or by what probing finds."""
        target, diagnosis = trial.target, None
        white = any(isinstance(m, Cascade) or (not isinstance(m, Certifier) and needs_of(m) >= Access.GRADIENTS)
                    for m in trial.methods)
        granted = min(trial.threat.access, target.offers) >= Access.GRADIENTS
        if not (white and granted and isinstance(target, WhiteBox)):
            return NOTHING
        moved = isinstance(trial.budget, Transformation)
        if DEFENSE in trial.threat.knows and not (moved or isinstance(target, Defended | Smoothed)):
            x, y = trial.points(slice(0, SAMPLE))
            rng = Stream.seeded(trial.seed, torch.arange(len(x), device=x.device)).fold("probes")
            with trial.seeded("probes"):
                diagnosis = diagnose(target, x, y, trial.budget, rng)
        return compose(target, trial.threat, diagnosis)

    def _trial(self, methods: tuple[Method, ...], data: Dataset, target: Target, seed: int, memory: Memory) -> Trial:
        ball: Ball = self.threat.budget  # type: ignore[assignment]  # this wing's budgets are balls
        curve = self.curve or (() if math.isfinite(ball.radius) else ladder(ball.norm, target.bounds.width))
        radii = tuple(sorted({*curve, ball.radius}))
        identity = content_hash(
            self.name, version("assay"), target.name, target.fingerprint(), data.fingerprint,
            repr(self.threat.describe()), radii, [identity_of(m) for m in methods], seed, self.chunk, self.draws,
        )
        return Trial(
            x=data.x, y=data.y, threat=self.threat, radii=radii, methods=methods, target=target, seed=seed, draws=1,
            identity=identity, memory=memory, examples=self._examples(data, target),
        )

    def _examples(self, data: Dataset, target: Target) -> Examples | None:
        """Natural inputs for attacks that are made from them: those given, or else some of the points themselves."""
        x, y = self.examples if self.examples is not None else (data.x, data.y)
        x = torch.as_tensor(x[:EXAMPLES]).to(device=target.device, dtype=target.dtype)
        return Examples(x, torch.as_tensor(y[:EXAMPLES]).to(device=target.device, dtype=torch.int64))

    def _evidence(self, trial: Trial, owner: int, doubts: tuple[Doubt, ...]) -> Evidence:
        method, target = trial.methods[owner], trial.target
        identity = content_hash(trial.identity, owner)
        threat, seed = self.threat.describe(), trial.seed
        proved = isinstance(method, Certifier)
        if not proved and owner not in trial.errors:
            try:
                with trial.seeded(f"doubts/{owner}"):
                    doubts = (*doubts, *of_method(trial, owner))
            except Exception as error:  # the model's own code, again
                trial.errors[owner] = error
        if owner in trial.errors:
            return not_run(game=self.name, trial=identity, target=target.name, threat=threat,
                           attack=name_of(method), seed=seed, error=trial.errors[owner])
        return Evidence(
            kind="proved" if proved else "played",
            game=self.name,
            trial=identity,
            target=target.name,
            threat=threat,
            attack=name_of(method),
            seed=seed,
            bounds=self._bounds(trial, owner),
            cost=trial.spent[owner].total(),
            doubts=() if proved else (*doubts, *self._gap(trial, owner)),
            artefacts=_artefacts(trial, owner),
            provenance={"data": arrays(_array(self.x), _array(self.y)).fingerprint, **target.fingerprint()},
        )

    def _gap(self, trial: Trial, owner: int) -> Iterator[Doubt]:
        """Whether the attacks that did not know the defense were misled by it."""
        n = len(self.y)
        before, after = trial.naive_robust(owner), trial.board.robust(trial.budget.radius, owner)
        if trial.composed.adaptive and before - after > OBFUSCATED * max(n, 1):
            words = ", ".join(trial.composed.parts.words) or "its gradients"
            yield Doubt("DBT111", f"robust accuracy at most {before / n:.1%} without adapting to {words}, at most "
                                  f"{after / n:.1%} with it")

    def _bounds(self, trial: Trial, owner: int) -> tuple[Bound, ...]:
        method, board, n = trial.methods[owner], trial.board, len(self.y)
        by = name_of(method)
        right = int(board.correct.sum())
        bounds = [
            Bound.of_count(CLEAN, side, right, n, method="evaluation", confidence=self.confidence)
            for side in (AT_MOST, AT_LEAST)
        ]
        for radius in sorted(trial.radii, key=lambda r: (r != trial.budget.radius, r)):
            name = ROBUST if radius == trial.budget.radius else quantity_at(ROBUST, str(trial.budget.at(radius)))
            if isinstance(method, Certifier):
                count, side = board.proved(radius, owner), AT_LEAST
            else:
                count, side = board.robust(radius, owner), AT_MOST
            bound = Bound.of_count(name, side, count, n, method=by, confidence=self.confidence)
            if isinstance(method, Certifier) and method.failure:
                # Each certificate fails with at most this chance, so that much of the certified mass may be wrong.
                bound = replace(bound, value=max(0.0, bound.value - method.failure))
            bounds.append(bound)
        if not isinstance(method, Certifier) and trial.composed.adaptive:
            bounds.append(Bound.of_count(NAIVE, AT_MOST, trial.naive_robust(owner), n, method=by,
                                         confidence=self.confidence))
        return (*bounds, *self._median(trial, owner))

    def _median(self, trial: Trial, owner: int) -> Iterator[Bound]:
        """How near half of all points can be broken, where every point's distance was sought."""
        sought = len(trial.radii) > 1 or not math.isfinite(trial.radii[-1])
        if not (sought and isinstance(trial.methods[owner], Minimizer)):
            return
        bound = Bound.of_median(f"median {trial.budget.kind} distance", AT_MOST, trial.board.distances(owner).tolist(),
                                method=name_of(trial.methods[owner]), confidence=self.confidence)
        if math.isfinite(bound.value):
            yield bound


def _array(values: Tensor | NDArray[np.generic]) -> NDArray[np.generic]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _kept(budget: Ball, stored: Arrays, rows: slice, z: Tensor, x: Tensor, bounds: Bounds) -> Tensor:
    """Whether stored inputs keep to the budget; of a transformation, whether its parameters give them."""
    if not isinstance(budget, Transformation):
        return budget.contains(z, x, bounds)
    parameters = torch.as_tensor(stored["parameters"][rows]).to(z)
    same = (budget.apply(x, parameters, bounds) - z).flatten(1).abs().amax(1) <= 1e-4 * bounds.width
    return same & budget.ball.contains(parameters, budget.start(x), budget.box)


def _steady(target: Target, x: Tensor) -> bool:
    """Whether two looks at the same inputs agree."""
    look = target.scores if target.offers >= Access.SCORES else target.labels
    with torch.random.fork_rng(devices=[]):
        return torch.equal(look(x), look(x))


def _artefacts(trial: Trial, owner: int) -> dict[str, Artefact]:
    """Outcomes of every point after this method and the ones before it, its own costs, and the inputs it broke."""
    board, passes = trial.board, trial.spent[owner].per_point
    outcomes = {
        "correct": board.correct.astype(np.uint8),
        "forwards": passes[0],
        "backwards": passes[1],
        "queries": passes[2],
    }
    if isinstance(trial.methods[owner], Certifier):
        mine = board.certified_by <= owner
        return {"points": Artefact({**outcomes, "certified_at": np.where(mine, board.certified_at, -np.inf)})}
    mine = (board.broken_by <= owner) & (board.broken_by >= 0)
    artefacts = {"points": Artefact({**outcomes, "broken_at": np.where(mine, board.broken_at, np.inf)})}
    index = np.flatnonzero((board.broken_by == owner) & board.correct)
    if len(index):
        fallen = [board.adversarial[i] for i in index.tolist()]
        artefacts["adversarial"] = Artefact(
            {
                "index": index,
                "x": np.stack([each.z for each in fallen]),
                "predicted": np.array([each.predicted for each in fallen]),
                "radius": board.broken_at[index],
            }
        )
        if moved := [each.parameters for each in fallen if each.parameters is not None]:
            artefacts["adversarial"] = Artefact({**artefacts["adversarial"].arrays, "parameters": np.stack(moved)})
    return artefacts
