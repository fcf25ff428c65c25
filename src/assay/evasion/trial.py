"""One trial while it is played: turns in order, each chunk judged by the referee and kept as soon as it is earned."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import ConfigError, LedgerError
from assay.evasion.adaptive import NOTHING, Composition
from assay.evasion.board import Board, Spent, to_index, to_numpy
from assay.evasion.methods import (
    Certifier,
    Method,
    Minimizer,
    Perturber,
    Surveyor,
    kinds_of,
    name_of,
    needs_of,
    norms_of,
)
from assay.evasion.referee import Referee
from assay.evasion.threat import Ball
from assay.evasion.transformations import Applied, Transformation
from assay.evasion.turns import Turn, schedule
from assay.evidence.record import content_hash
from assay.games import Arrays, Memory, Progress
from assay.numerics.seeds import Stream
from assay.targets.base import Target
from assay.threats import Channel, Examples, Lens, ThreatModel, View

Earn = Callable[[], Arrays]


@dataclass(eq=False)
class Trial:
    """The state of one trial; what is settled grows chunk by chunk.

    Attributes:
        x, y: all points.
        draws: looks per judgment.
        identity: what the memory knows the trial by.
        errors: of each method that could not go on, why.
        escaped: of each method, how many of its inputs left the budget.
        surprised: of each method, how many points it broke with less access than methods that failed before it.
        composed: how attacks adapt to the target.
        examples: natural inputs that the adversary holds.
        naive_by: of each point, the first method that broke it without being adapted; −1 where none did.
    """

    x: Tensor | NDArray[np.generic]
    y: Tensor | NDArray[np.generic]
    threat: ThreatModel
    radii: tuple[float, ...]
    methods: tuple[Method, ...]
    target: Target
    seed: int
    draws: int
    identity: str
    memory: Memory
    composed: Composition = NOTHING
    examples: Examples | None = None
    board: Board = field(init=False)
    naive_by: NDArray[np.int64] = field(init=False)
    spent: list[Spent] = field(init=False)
    errors: dict[int, BaseException] = field(default_factory=dict)
    escaped: list[int] = field(init=False)
    surprised: list[int] = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.y)
        self.board = Board.blank(n)
        self.naive_by = np.full(n, -1, dtype=np.int64)
        self.spent = [Spent.blank(n) for _ in self.methods]
        self.escaped = [0] * len(self.methods)
        self.surprised = [0] * len(self.methods)

    @property
    def budget(self) -> Ball:
        """The adversary's budget."""
        budget: Ball = self.threat.budget  # type: ignore[assignment]  # this wing's budgets are balls
        return budget

    def naive_robust(self, owner: int) -> int:
        """How many points withstood every attack up to this method that was not adapted to the target."""
        return int((self.board.correct & ~((self.naive_by >= 0) & (self.naive_by <= owner))).sum())

    def play(self, chunk: int) -> Iterator[Progress]:
        """Plays every chunk; what a method or the target raises ends that method, not the trial."""
        turns = schedule(self.methods, self.budget, self.threat.access, self.composed)
        for start in range(0, len(self.y), chunk):
            rows = slice(start, min(start + chunk, len(self.y)))
            yield from self._chunk(rows, turns)
            if len(self.errors) == len(self.methods):
                return

    def points(self, rows: slice) -> tuple[Tensor, Tensor]:
        """These examples and labels as tensors where the target lives."""
        x = torch.as_tensor(self.x[rows]).to(device=self.target.device, dtype=self.target.dtype)
        return x, torch.as_tensor(self.y[rows]).to(device=self.target.device, dtype=torch.int64)

    @property
    def referee(self) -> Referee:
        """Who decides on this trial's points."""
        return Referee(self.target, self.threat.goal, self.draws)

    def judge(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The referee's word: whether the adversary has what it wants, and the prediction that says so."""
        return self.referee.judge(z, y)

    def _chunk(self, rows: slice, turns: Sequence[Turn]) -> Iterator[Progress]:
        x, y = self.points(rows)
        try:
            clean = self._kept(f"{rows.start}-{rows.stop}/clean", partial(self._look, rows, x, y))
        except LedgerError:
            raise
        except Exception as error:  # the target's own: no method can go on
            self.errors = {owner: self.errors.get(owner, error) for owner in range(len(self.methods))}
            return
        self.board.correct[rows] = clean["correct"]
        views: dict[tuple[int, str], View] = {}
        for number, turn in enumerate(turns):
            if turn.owner in self.errors:
                continue
            yield Progress(turn.label, rows.start, len(self.y), self._note(rows))
            try:
                part = self._kept(self._part(rows, number), partial(self._earn, turn, rows, x, y, views))
                self._apply(turn, rows, part)
            except LedgerError:
                raise  # what is earned from here on could not be kept: stop while everything so far is safe
            except Exception as error:
                self.errors[turn.owner] = error
        yield Progress("", rows.stop, len(self.y), self._note(rows))

    @contextmanager
    def seeded(self, part: str) -> Iterator[None]:
        """Inside, torch's global random numbers are those of this part of the trial; outside they are as before."""
        device = self.target.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(content_hash(self.seed, part)[:15], 16))
            yield

    def _look(self, rows: slice, x: Tensor, y: Tensor) -> Arrays:
        """The referee's look at the clean points."""
        with self.seeded(f"{rows.start}/clean"):
            return {"correct": to_numpy(self.referee.right(x, y))}

    def _note(self, rows: slice) -> str:
        return f"{len(self.board.standing(slice(0, rows.stop), self.budget.radius))} of {rows.stop} points open"

    def _part(self, rows: slice, number: int) -> str:
        """What the memory knows this turn by: with methods missing it meets other points, so it is another part."""
        missing = "".join(f" without {owner}" for owner in sorted(self.errors))
        return f"{rows.start}-{rows.stop}/{number}{missing}"

    def _kept(self, part: str, earn: Earn) -> Arrays:
        kept = self.memory.recall(self.identity, part)
        if kept is None:
            kept = earn()
            self.memory.keep(self.identity, part, kept)
        return kept

    def _view(self, turn: Turn, x: Tensor, y: Tensor, views: dict[tuple[int, str], View]) -> View:
        budget, bounds = self.budget, self.target.bounds
        self._admit(turn.method)
        if turn.proves:
            prover = replace(self.threat, access=needs_of(turn.method), queries=None)
            return prover.grant(self.target, len(x), labels=y, proving=True)
        channel: Channel | Lens | None = None
        if isinstance(budget, Transformation):
            channel = Applied(budget, x, bounds)
        elif budget.lattice is not None:
            channel = lambda z, at: budget.land(z, x[at], bounds)  # noqa: E731  # a channel of one line
        seen, lead = (turn.sight.target, turn.sight.handicap) if turn.sight else (self.target, 0.0)
        threat = replace(self.threat, access=min(self.threat.access, seen.offers)) if turn.sight else self.threat
        view = threat.grant(seen, len(x), labels=y, channel=channel, examples=self.examples, handicap=lead)
        paid = next((earlier.meter for (owner, _), earlier in views.items() if owner == turn.owner), view.meter)
        return replace(view, meter=paid)  # all sights of one method draw on one budget

    def _admit(self, method: Perturber | Certifier) -> None:
        """Raises ``ConfigError`` (THR105) where the method is not made for the budget."""
        budget, kinds = self.budget, kinds_of(method)
        moved = isinstance(budget, Transformation)
        norm = budget.ball.norm if isinstance(budget, Transformation) else budget.norm
        wrong = budget.kind not in kinds if kinds else norm not in norms_of(method)
        if wrong or (moved and isinstance(method, Certifier)):
            raise ConfigError("THR105", f"{name_of(method)} does not play under {budget}")

    def _asked(self, turn: Turn) -> tuple[float, ...]:
        """The radii at which a turn is asked: one that finds the whole curve at once is asked once."""
        if isinstance(turn.method, Surveyor):
            return self.radii[:1]
        if isinstance(turn.method, Minimizer):
            return (float("inf"),) if len(self.radii) > 1 else self.radii
        return self.radii[::-1] if turn.proves else self.radii

    def _open(self, turn: Turn, rows: slice, radius: float) -> NDArray[np.int64]:
        """The points that a turn has still to settle at a radius; at an infinite one, wherever nearer would count."""
        if not np.isfinite(radius) and not turn.proves:
            return self.board.improvable(rows, self.radii[0])
        return self.board.standing(rows, radius)

    def _earn(
        self, turn: Turn, rows: slice, x: Tensor, y: Tensor, views: dict[tuple[int, str], View]
    ) -> Arrays:
        """One stage on one chunk, at every radius: what it found, and what it spent."""
        began = time.perf_counter()
        eyes = (turn.owner, turn.sight.name if turn.sight else "")
        if eyes not in views:
            views[eyes] = self._view(turn, x, y, views)
        view = views[eyes]
        before = torch.stack(view.meter.columns)
        found: list[_Found] = []
        settled = np.zeros(len(x), dtype=bool)
        with self.seeded(f"{rows.start}/{turn.label}"):
            for radius in self._asked(turn):
                points = self._open(turn, rows, radius)
                points = points[~settled[points - rows.start]]
                if len(points):
                    found.append(self._at_radius(turn, view, points, rows.start, x, y, radius))
                    settled[found[-1].points - rows.start] = True
        after = torch.stack(view.meter.columns)
        return {
            "point": np.concatenate([f.points for f in found] or [np.zeros(0, dtype=np.int64)]),
            "radius": np.concatenate([f.radii for f in found] or [np.zeros(0)]),
            **_stacked("z", [f.z for f in found if f.z is not None]),
            **_stacked("parameters", [f.parameters for f in found if f.parameters is not None]),
            **_stacked("predicted", [f.predicted for f in found if f.predicted is not None]),
            "escaped": np.array([sum(f.escaped for f in found)]),
            "spent": to_numpy(after - before),
            "seconds": np.array([time.perf_counter() - began]),
        }

    def _at_radius(
        self, turn: Turn, view: View, points: NDArray[np.int64], start: int, x: Tensor, y: Tensor, radius: float
    ) -> _Found:
        rng = Stream.seeded(self.seed, to_index(points, x.device)).fold(turn.label)
        local = to_index(points - start, x.device)
        view, x, y, budget = view.select(local), x[local], y[local], self.budget.at(radius)
        if isinstance(turn.method, Certifier):
            radii = to_numpy(turn.method.certify(view, x, y, budget, rng)).astype(np.float64)
            held = radii >= radius
            return _Found(points[held], radii[held])
        found = self._perturbed(turn, view, x, y, budget, rng)
        z, moved, judged = found.z, found.moved, found.judged
        won, predicted = torch.zeros_like(moved), torch.zeros_like(y)
        if bool(judged.any()):
            won[judged], predicted[judged] = self.judge(z[judged], y[judged])
        rows = to_numpy(won).astype(bool)
        radii = np.full(int(rows.sum()), radius)
        if isinstance(turn.method, Minimizer) and not isinstance(budget, Transformation):
            radii = np.minimum(to_numpy(budget.distance(z[won], x[won]).double()), radius)
        parameters = None if found.parameters is None else to_numpy(found.parameters[won])
        escaped = int((moved & ~judged).sum())
        return _Found(points[rows], radii, to_numpy(z[won]), to_numpy(predicted[won]), escaped, parameters)

    def _perturbed(self, turn: Turn, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> _Perturbed:
        """What the attack hands in, and whether it keeps to the budget."""
        attack = cast(Perturber, turn.method)
        if isinstance(budget, Transformation):
            start = budget.start(x)
            parameters = _shaped(attack.perturb(view, start, y, budget.ball, rng), start, turn)
            z = budget.apply(x, parameters, self.target.bounds).detach()
            moved = (parameters != start).flatten(1).any(1)
            return _Perturbed(z, moved, moved & budget.ball.contains(parameters, start, budget.box), parameters)
        z = budget.land(_shaped(attack.perturb(view, x, y, budget, rng), x, turn), x, view.bounds)
        moved = (z != x).flatten(1).any(1)
        return _Perturbed(z, moved, moved & budget.contains(z, x, view.bounds))

    def _apply(self, turn: Turn, rows: slice, part: Arrays) -> None:
        points, radii = part["point"].astype(np.int64), part["radius"].astype(np.float64)
        self.spent[turn.owner].add(rows, part["spent"].astype(np.int64), float(part["seconds"][0]))
        self.escaped[turn.owner] += int(part["escaped"][0])
        if turn.proves:
            self.board.certify(points, radii, turn.owner)
            return
        if "z" in part:
            self.board.fell(points, radii, turn.owner, part["z"], part["predicted"], part.get("parameters"))
            if not turn.adaptive:
                within = points[radii <= self.budget.radius]
                self.naive_by[within[self.naive_by[within] < 0]] = turn.owner
        if turn.surprises:
            self.surprised[turn.owner] += len(points)


def _stacked(name: str, parts: Sequence[NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {name: np.concatenate(parts)} if parts else {}


@dataclass(frozen=True, eq=False)
class _Found:
    """What one stage settled at one radius: global points, their radii, and the inputs that broke them."""

    points: NDArray[np.int64]
    radii: NDArray[np.float64]
    z: NDArray[np.generic] | None = None
    predicted: NDArray[np.generic] | None = None
    escaped: int = 0
    parameters: NDArray[np.generic] | None = None


class _Perturbed(NamedTuple):
    """What an attack handed in: inputs, which of them moved, which of those keep to the budget, and parameters."""

    z: Tensor
    moved: Tensor
    judged: Tensor
    parameters: Tensor | None = None


def _shaped(found: Tensor, like: Tensor, turn: Turn) -> Tensor:
    """What an attack returned. Raises ``ConfigError`` (ATK101) for another shape."""
    if found.shape != like.shape:
        raise ConfigError("ATK101", f"{turn.label} returned shape {tuple(found.shape)} for {tuple(like.shape)}")
    return found.detach()
