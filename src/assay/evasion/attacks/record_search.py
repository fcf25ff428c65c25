"""Beam search over valid changes of records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.attacks.gradient import objective, succeeded
from assay.evasion.records import Records
from assay.evasion.threat import Ball
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.trees import Forest
from assay.threats import View

_THRESHOLDS = 64
"""How many thresholds of a forest are tried of one number."""

_AHEAD = 3
"""Over how many rounds to come the queries that are left are spread."""

_SWAPS = 64
"""How many neighbours of each record of the beam are looked at in a round of swaps."""

_HALVINGS = 6
"""Rounds in which the numbers of what was found are drawn back toward the original."""


@dataclass(frozen=True, eq=False)
class _Beams:
    """The best records so far of the points that are searched.

    Attributes:
        at: ``[rows]``, the point.
        x0, y: ``[rows, fields]``, ``[rows]``.
        z: ``[rows, beam, fields]``.
        loss: ``[rows, beam]``; ``-inf`` where there is none.
        keys: of the row's random stream.
    """

    at: Tensor
    x0: Tensor
    y: Tensor
    z: Tensor
    loss: Tensor
    keys: Tensor

    def keep(self, mask: Tensor) -> _Beams:
        """The rows under the mask."""
        return _Beams(*(part[mask] for part in (self.at, self.x0, self.y, self.z, self.loss, self.keys)))


@dataclass(frozen=True, kw_only=True)
class RecordSearch:
    """Changes records field by field, keeps the best few and goes on from them; every record submitted is valid.

    Round by round one more field changes: all moves of the schema from every record of the beam (numbers to quantiles
    and, where the weights are granted and the model is made of trees, past their thresholds; dependent fields
    together), or as many as the queries allow, drawn at random. When all fields that may change have changed, what is
    left of the queries goes to swaps: one changed field back, another move at random. Under an infinite radius the
    nearest record is looked for: what was found is undone field by field, and its numbers are drawn back by halving.

    *Paper*: Kulynych, Hayes, Samarin & Troncoso, 2018 ("Evading classifiers in discrete domains with provable
    optimality guarantees"): a graph of valid records, searched best first; here with a beam, in lock-step.
    *Needs*: scores; budgets of records (:class:`~assay.evasion.records.Records`).
    *Cost*: 1 query a record, at most ``queries`` a point; a broken point stops paying.
    *Blind spots*: fields of which only several together help, none alone; scores that are rounded; values between the
    quantiles.
    *Held to*: enumeration of every valid change of one field, and of two, on small tables.
    *Measured*: as few fields on all of 96 points (`tests/evasion/attacks/test_record_search.py`); on the census data
    there, 1 field suffices for 78 of 88 people and a gradient boosting, and every record is valid.

    Example:
        >>> import numpy as np
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from assay import evasion, targets
        >>> x = np.random.default_rng(0).integers(0, 9, (200, 3)).astype(float)  # age, sex, income
        >>> tree = DecisionTreeClassifier().fit(x, x[:, 2] > 4)
        >>> schema = evasion.Schema.learn(x, ["age", "sex", "income"], fixed=["sex"], grows=["age", "income"])
        >>> threat = evasion.Records(1, schema).threat(access="scores", queries=50)
        >>> game = evasion.EvasionGame(x, (x[:, 2] > 4).astype(int), threat=threat)
        >>> found = game.play(evasion.RecordSearch(), targets.sklearn(tree, bounds=(0, 9)), seed=0)
        >>> bool(found["robust accuracy"].estimate == (x[:, 2] > 4).mean())  # income may grow, but not shrink
        True

    Attributes:
        queries: per point.
        beam: how many records a round goes on from.
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({0.0})
    minimal: ClassVar[Literal[True]] = True
    plays: ClassVar[Literal["records"]] = "records"

    queries: int = 2000
    beam: int = 6

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`. With an infinite radius: the nearest record found."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The record with the fewest fields changed, of those the one with the least effort. Raises ATK151."""
        if not isinstance(budget, Records):
            raise ConfigError("ATK151", f"{budget} is no budget of records")
        closest, at = Closest.over(x), torch.arange(len(x), device=x.device)
        left = view.remaining(at)
        left = torch.full_like(at, self.queries) if left is None else left.clamp(max=self.queries)
        start = x.flatten(1)[:, None].repeat(1, self.beam, 1)
        loss = torch.full(start.shape[:2], -torch.inf, dtype=x.dtype, device=x.device)
        loss[:, 0] = 0  # one record to go on from: the original
        beams = _Beams(at, start[:, 0], y, start, loss, rng.keys)
        search = _Search(view=view, budget=budget, closest=closest, left=left, moves=_moves(view, budget))
        search.run(beams)
        if budget.radius == float("inf"):
            search.draw_back(beams)
        return closest


def _moves(view: View, budget: Records) -> tuple[Tensor, Tensor]:
    """What single changes write, and where; with a forest's thresholds where its weights are granted."""
    forest = view.structure(Forest) if view.threat.access >= Access.WEIGHTS else None
    more: dict[int, list[float]] = {}
    if forest is not None:
        for column, f in enumerate(budget.schema.fields):
            edges = np.unique(forest.threshold[forest.feature == column])
            if f.kind == "number" and len(edges):
                few = edges[np.unique(np.linspace(0, len(edges) - 1, _THRESHOLDS).round().astype(int))]
                step = f.step or (f.upper - f.lower) * 1e-9
                below = f.lower + np.floor((few - f.lower) / step) * step
                more[column] = [*below.tolist(), *(below + step).tolist()]
    return budget.schema.moves(more)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search over all points in lock-step.

    Attributes:
        closest: where successes are offered.
        left: ``[points]``: how many queries each may still spend; written in place.
        moves: what single changes write, and where.
    """

    view: View
    budget: Records
    closest: Closest
    left: Tensor
    moves: tuple[Tensor, Tensor]

    def run(self, beams: _Beams) -> None:
        """Rounds in which one more field changes, then swaps, until every point is broken or out of queries."""
        for tick in count():
            beams = beams.keep((self.left[beams.at] > 0) & ~torch.isfinite(self.closest.length[beams.at]))
            rounds = self.budget.most - tick
            if not len(beams.at) or (rounds <= 0 and self.budget.most <= 1):
                return
            before = int(self.left.sum())
            if rounds > 0:
                ahead = min(rounds, _AHEAD)
                beams = self._round(beams, *self._grown(beams), (self.left[beams.at] + ahead - 1) // ahead, tick)
            else:
                beams = self._round(beams, *self._swapped(beams, tick), self.left[beams.at], tick)
                if int(self.left.sum()) == before:
                    return

    def _grown(self, beams: _Beams) -> tuple[Tensor, Tensor]:
        """Every move from every record of the beam that changes one more field (dependent ones: some more)."""
        written, where = (part.to(beams.z.device) for part in self.moves)
        pool = torch.where(where, written.to(beams.z), beams.z[:, :, None]).flatten(1, 2)
        before = (beams.z != beams.x0[:, None]).sum(2).repeat_interleave(len(written), 1)
        alive = torch.isfinite(beams.loss).repeat_interleave(len(written), 1)
        return pool, alive & ((pool != beams.x0[:, None]).sum(2) > before)

    def _swapped(self, beams: _Beams, tick: int) -> tuple[Tensor, Tensor]:
        """Of every record of the beam some neighbours: one changed field is taken back, and a move made at random."""
        written, where = (part.to(beams.z.device) for part in self.moves)
        rng, (rows, beam, fields) = Stream(beams.keys).fold("swap").fold(tick), beams.z.shape
        changed = (beams.z != beams.x0[:, None])[:, :, None]
        draw = rng.fold("field").uniform(beam, _SWAPS, fields, dtype=torch.float64)
        undone = torch.nn.functional.one_hot((draw * changed).argmax(3), fields).bool() & changed
        base = torch.where(undone, beams.x0[:, None, None], beams.z[:, :, None])
        chosen = rng.fold("move").integers(len(written), beam, _SWAPS)
        pool = torch.where(where[chosen], written.to(beams.z)[chosen], base)
        fresh = (pool != base).any(3) & torch.isfinite(beams.loss)[:, :, None]
        return pool.reshape(rows, -1, fields), fresh.reshape(rows, -1)

    def _round(self, beams: _Beams, pool: Tensor, usable: Tensor, share: Tensor, tick: int) -> _Beams:
        """Asks about ``share`` records of each point's pool, drawn at random, and goes on from the best."""
        usable = usable & self._valid(pool, beams.x0)
        alive = torch.isfinite(beams.loss)
        fresh = _first(torch.cat([beams.z, pool], 1), torch.cat([alive, usable], 1))[:, beams.z.shape[1] :]
        draw = Stream(beams.keys).fold("pool").fold(tick).uniform(pool.shape[1], dtype=torch.float64)
        rank = torch.where(usable & fresh, draw, 2.0).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        loss = self._ask(beams, pool, usable & fresh & (rank < share[:, None]))[0]
        # While fields are added, the old records make way, unless nothing new was asked.
        old = beams.loss
        if tick < self.budget.most:
            old = torch.where(torch.isfinite(loss).any(1, keepdim=True), -torch.inf, old)
        loss, records = torch.cat([loss, old], 1), torch.cat([pool, beams.z], 1)
        best = loss.argsort(dim=1, descending=True, stable=True)[:, : beams.z.shape[1]]
        z = records.gather(1, best[:, :, None].expand(-1, -1, records.shape[2]))
        return replace(beams, z=z, loss=loss.gather(1, best))

    def _valid(self, pool: Tensor, x0: Tensor) -> Tensor:
        inside = self.budget.contains(pool.flatten(0, 1), x0.repeat_interleave(pool.shape[1], 0), self.view.bounds)
        return inside.reshape(pool.shape[:2])

    def _ask(self, beams: _Beams, pool: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of these records, ``-inf`` for all others, and which of them do; pays, and offers successes.

        Of a point's successes with equally many fields changed the one with the least effort is offered.
        """
        row, entry = asked.nonzero(as_tuple=True)
        loss, won = torch.full_like(pool[:, :, 0], -torch.inf), torch.zeros_like(asked)
        if len(row):
            at, x0, y, z = beams.at[row], beams.x0[row], beams.y[row], pool[row, entry]
            self.left.index_add_(0, at, torch.full_like(at, -1))
            sent = z.reshape(-1, *self.closest.found.shape[1:])
            scores = self.view.scores(sent, at)
            won[row, entry] = hit = succeeded(self.view, scores, y)
            loss[row, entry] = objective(self.view, "margin")(scores, y).to(loss.dtype)
            length = torch.where(hit, self.budget.distance(z, x0), torch.inf)
            order = self.budget.schema.effort(z, x0).sum(1).argsort(stable=True)
            self.closest.offer(at[order], sent[order], length[order])
        return loss, won

    def draw_back(self, beams: _Beams) -> None:
        """Takes back what the nearest record does not need: whole fields, then half of a number's way at a time."""
        low = beams.x0.clone()  # numbers as near to the original as this did not do
        for halving in range(-beams.x0.shape[1], _HALVINGS):
            found = self.closest.found.flatten(1)
            x0, z = beams.x0, found[beams.at]
            goal = x0 if halving < 0 else self._halfway(low, z)
            each = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
            pool = torch.where(each, goal[:, None], z[:, None])
            usable = (pool != z[:, None]).any(2) & (z != x0) & self._valid(pool, x0)
            usable &= usable.cumsum(1) <= self.left[beams.at][:, None]
            won = self._ask(beams, pool, usable)[1]
            if halving < 0:
                continue
            low = torch.where(usable & ~won, goal, low)
            effort = self.budget.schema.effort(pool.flatten(0, 1), x0.repeat_interleave(z.shape[1], 0)).sum(1)
            best = torch.where(won, effort.reshape(won.shape), torch.inf).argmin(1)
            better = won.any(1)
            rows = beams.at[better]
            self.closest.found[rows] = pool[better, best[better]].reshape(-1, *self.closest.found.shape[1:])

    def _halfway(self, low: Tensor, z: Tensor) -> Tensor:
        """Of each number the middle between what did not do and what does."""
        columns = [f.snap((low[:, c] + z[:, c]) / 2) if f.kind == "number" else z[:, c]
                   for c, f in enumerate(self.budget.schema.fields)]
        return torch.stack(columns, 1)


def _first(records: Tensor, usable: Tensor) -> Tensor:
    """Whether no usable record before it is the same, bool ``[rows, records]``."""
    order = (~usable).long().argsort(dim=1, stable=True)
    bits = (records.double() + 0.0).view(torch.int64)  # + 0.0: −0 and 0 are the same number
    odd = torch.arange(records.shape[2], device=records.device) * 2 + 0x9E3779B97F4A7C1
    mixed = ((bits ^ (bits >> 29)) * (2 * odd + 1)).sum(2).gather(1, order)
    again = mixed.argsort(dim=1, stable=True)
    ordered = mixed.gather(1, again)
    fresh = torch.ones_like(usable)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(usable).scatter_(1, order.gather(1, again), fresh)
