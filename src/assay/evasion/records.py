"""Records: rows of numbers and categories, of which some fields may be changed into what a real form would accept.

A record is one row of numbers, a column a field: numbers as they are, categories as codes. Encoding for the model
(one-hot columns, scaling) is the model pipeline's business, so that an adversarial record is one that can be handed in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.threat import Granting
from assay.evidence.record import content_hash
from assay.numerics.balls import distance, steepest
from assay.numerics.seeds import Stream
from assay.targets.base import Bounds


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column, and what may be written into it.

    Attributes:
        name: the column's.
        kind: ``"number"`` or ``"category"`` (codes).
        lower, upper: the range of a number.
        step: a number's unit; 0 for real numbers.
        values: the codes of a category; of a number, what a search tries first.
        fixed: whether it cannot be changed.
        direction: 1 where it may only grow, −1 where it may only shrink.
    """

    name: str
    kind: Literal["number", "category"]
    lower: float
    upper: float
    step: float = 0.0
    values: tuple[float, ...] = ()
    fixed: bool = False
    direction: Literal[-1, 0, 1] = 0

    def snap(self, values: Tensor) -> Tensor:
        """The nearest values that may be written."""
        if self.kind == "category":
            codes = torch.tensor(self.values, dtype=values.dtype, device=values.device)
            return codes[(values[:, None] - codes).abs().argmin(1)]
        if self.step:
            values = self.lower + ((values - self.lower) / self.step).round() * self.step
        return values.clamp(self.lower, self.upper)

    def accepts(self, values: Tensor) -> Tensor:
        """Whether each may be written, bool ``[rows]``."""
        if self.kind == "category":
            return torch.isin(values, torch.tensor(self.values, dtype=values.dtype, device=values.device))
        inside = (values >= self.lower) & (values <= self.upper)
        if not self.step:
            return inside
        steps = (values - self.lower) / self.step
        return inside & ((steps - steps.round()).abs() <= 1e-6)


class Rule(Protocol):
    """A dependency between fields.

    Attributes:
        fields: the columns it is about.
    """

    @property
    def fields(self) -> tuple[str, ...]: ...

    def allows(self, values: Tensor) -> Tensor:
        """Whether these ``[rows, fields]`` may stand in one record, bool ``[rows]``."""


@dataclass(frozen=True)
class Observed:
    """Fields that depend on each other: only combinations that were seen are allowed.

    Attributes:
        combinations: each a value a field.
    """

    fields: tuple[str, ...]
    combinations: tuple[tuple[float, ...], ...]

    def allows(self, values: Tensor) -> Tensor:
        """See :class:`Rule`."""
        known = torch.tensor(self.combinations, dtype=values.dtype, device=values.device)
        allowed = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        for combination in known:  # some tens of combinations, and many more rows
            allowed |= (values == combination).all(1)
        return allowed


@dataclass(frozen=True)
class Exclusive:
    """Fields of which at most one differs from 0."""

    fields: tuple[str, ...]

    def allows(self, values: Tensor) -> Tensor:
        """See :class:`Rule`."""
        return (values != 0).sum(1) <= 1


@dataclass(frozen=True)
class Schema:
    """What a valid record is, and which changes of one are possible.

    What was in a record before the change is not questioned: a field that stays, and a rule none of whose fields
    changes, holds.

    Attributes:
        fields: the columns in order.
        rules: dependencies between them.
    """

    fields: tuple[Field, ...]
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        unknown = sorted({name for rule in self.rules for name in rule.fields} - set(names))
        if unknown or len(set(names)) < len(names):
            raise ConfigError("THR130", f"no column is called {', '.join(unknown)}" if unknown
                              else "two columns have the same name")

    @classmethod
    def learn(
        cls,
        x: Tensor | NDArray[np.generic],
        names: Sequence[str],
        *,
        categories: Collection[str] = (),
        fixed: Collection[str] = (),
        grows: Collection[str] = (),
        shrinks: Collection[str] = (),
        dependent: Collection[Sequence[str]] = (),
        exclusive: Collection[Sequence[str]] = (),
        least: int = 1,
        values: int = 32,
    ) -> Schema:
        """Ranges, units, categories and combinations from real records; what the data cannot say is declared.

        A number's unit is 1 where all its values are whole numbers.

        Args:
            x: real records, ``[rows, fields]``.
            names: of the columns.
            categories: columns of codes; all others hold numbers.
            fixed: columns that cannot be changed.
            grows, shrinks: numbers that can be changed one way only.
            dependent: groups of columns of which only combinations that were seen are allowed.
            exclusive: groups of columns of which at most one differs from 0.
            least: how often a combination must have been seen; rarer ones may be errors of the data.
            values: how many quantiles of a number a search tries.

        Raises:
            ConfigError: THR130 for a name that no column has.
        """
        table = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
        named = {*categories, *fixed, *grows, *shrinks, *(name for group in dependent for name in group)}
        if table.shape[1] != len(names) or not named <= set(names):
            raise ConfigError("THR130", f"{table.shape[1]} columns are called {', '.join(names)}; "
                                        f"also named: {', '.join(sorted(named - set(names))) or 'none'}")
        fields = []
        for name, column in zip(names, table.T):
            way: Literal[-1, 0, 1] = 1 if name in grows else -1 if name in shrinks else 0
            one = _category(name, column) if name in categories else _number(name, column, values)
            fields.append(replace(one, fixed=name in fixed, direction=way))
        observed = [_observed(table, list(names), tuple(group), least) for group in dependent]
        return cls(tuple(fields), (*observed, *(Exclusive(tuple(group)) for group in exclusive)))

    def columns(self, rule: Rule) -> list[int]:
        """Where a rule's fields are."""
        names = [f.name for f in self.fields]
        return [names.index(name) for name in rule.fields]

    def effort(self, z: Tensor, x0: Tensor) -> Tensor:
        """How much was changed, a number a field, ``[rows, fields]``: of a number the share of its range, else 1."""
        ranges = [f.upper - f.lower if f.kind == "number" else 0.0 for f in self.fields]
        width = torch.tensor(ranges, dtype=torch.float64).to(z)
        share = (z - x0).abs() / torch.where(width > 0, width, 1.0)
        return torch.where((width > 0) | (z == x0), share, 1.0)

    def allows(self, z: Tensor, x0: Tensor) -> Tensor:
        """Whether ``x0`` may be changed into ``z``, both ``[rows, fields]``: bool ``[rows]``."""
        changed = z != x0
        allowed = torch.ones(len(z), dtype=torch.bool, device=z.device)
        for column, f in enumerate(self.fields):
            fine = f.accepts(z[:, column]) & ((z[:, column] - x0[:, column]) * f.direction >= 0)
            allowed &= ~changed[:, column] | (fine & (not f.fixed))
        for rule in self.rules:
            columns = self.columns(rule)
            allowed &= ~changed[:, columns].any(1) | rule.allows(z[:, columns])
        return allowed

    def moves(self, more: Mapping[int, Sequence[float]] | None = None) -> tuple[Tensor, Tensor]:
        """Single changes to try: fields one by one, dependent ones together, ``[moves, fields]``.

        Args:
            more: further values of numbers, by column.

        Returns:
            What each writes, and, as bool, where.
        """
        rows: list[dict[int, float]] = []
        together: set[int] = set()
        for rule in self.rules:
            if isinstance(rule, Observed):
                columns = self.columns(rule)
                together.update(columns)
                rows += [dict(zip(columns, combination)) for combination in rule.combinations]
        for column, f in enumerate(self.fields):
            if not f.fixed and column not in together:
                further = f.snap(torch.tensor((more or {}).get(column, ()), dtype=torch.float64)).tolist()
                rows += [{column: value} for value in sorted({*f.values, *further})]
        written = torch.zeros(len(rows), len(self.fields), dtype=torch.float64)
        where = torch.zeros(len(rows), len(self.fields), dtype=torch.bool)
        for number, row in enumerate(rows):
            for column, value in row.items():
                written[number, column], where[number, column] = value, True
        return written, where


def _category(name: str, column: NDArray[np.float64]) -> Field:
    codes = tuple(np.unique(column).tolist())
    return Field(name=name, kind="category", lower=codes[0], upper=codes[-1], values=codes)


def _number(name: str, column: NDArray[np.float64], count: int) -> Field:
    whole = bool((column == np.round(column)).all())
    share = np.linspace(0, 1, count)
    # Quantiles of the distinct values too: where most records hold the same number, the others are what matters.
    tried = np.concatenate([np.quantile(values, share, method="nearest") for values in (column, np.unique(column))])
    return Field(name=name, kind="number", lower=float(column.min()), upper=float(column.max()),
                 step=1.0 if whole else 0.0, values=tuple(np.unique(tried).tolist()))


def _observed(table: NDArray[np.float64], names: list[str], group: tuple[str, ...], least: int) -> Observed:
    rows, seen = np.unique(table[:, [names.index(name) for name in group]], axis=0, return_counts=True)
    return Observed(group, tuple(tuple(row) for row in rows[seen >= least].tolist()))


@dataclass(frozen=True)
class Records(Granting):
    """At most so many fields of a record change, and what comes out is a record that a real form would accept.

    The distance is the number of fields that changed, so it lies in the L0 ball of the same radius: what is proved of
    that one holds of it.

    Attributes:
        changes: how many fields may change.
        schema: what a valid record is.
    """

    changes: float
    schema: Schema = field(repr=False)
    norm: ClassVar[float] = 0
    kind: ClassVar[str] = "records"

    def __post_init__(self) -> None:
        if not self.changes >= 0:
            raise ConfigError("THR104", f"the number of changes must be at least 0; got {self.changes}")

    def __str__(self) -> str:
        schema = content_hash(repr(self.schema))[:8]
        return f"records {self.changes:.6g} of {len(self.schema.fields)} fields (schema {schema})"

    @property
    def radius(self) -> float:
        """How many fields may change."""
        return self.changes

    @property
    def lattice(self) -> int | None:
        """None: every field has its own unit."""
        return None

    def project(self, z: Tensor, x0: Tensor, bounds: Bounds, radius: Tensor | None = None) -> Tensor:
        """A valid record near ``z``: the largest changes, snapped to what may be written; what breaks a rule is undone.

        Every rule that does not hold takes its fields back to ``x0``, until all hold.
        """
        count = torch.full((len(x0),), self.changes, dtype=x0.dtype, device=x0.device) if radius is None else radius
        flat, base = z.clamp(*bounds).flatten(1), x0.flatten(1)
        snapped = base.clone()
        for column, f in enumerate(self.schema.fields):
            if not f.fixed:
                value, old = f.snap(flat[:, column]), base[:, column]
                stays = (flat[:, column] == old) | ((value - old) * f.direction < 0)
                snapped[:, column] = torch.where(stays, old, value)
        order = self.schema.effort(snapped, base).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(dim=1)
        kept = torch.where(rank < count.floor()[:, None], snapped, base)
        return self._repaired(kept, base).reshape(x0.shape)

    def _repaired(self, z: Tensor, x0: Tensor) -> Tensor:
        for _ in self.schema.fields:
            for rule in self.schema.rules:
                columns = self.schema.columns(rule)
                broken = (z != x0)[:, columns].any(1) & ~rule.allows(z[:, columns])
                z[:, columns] = torch.where(broken[:, None], x0[:, columns], z[:, columns])
        return torch.where(self.schema.allows(z, x0)[:, None], z, x0)

    def random(self, x0: Tensor, bounds: Bounds, rng: Stream) -> Tensor:
        """A random valid record: as many random moves as fields may change."""
        written, where = (part.to(x0.device) for part in self.schema.moves())
        z = x0.flatten(1).clone()
        for number in range(int(min(self.changes, len(self.schema.fields)))):
            chosen = rng.fold(number).integers(len(written), 1)[:, 0]
            z = torch.where(where[chosen], written[chosen].to(z), z)
        return self.project(z.reshape(x0.shape), x0, bounds)

    def steepest(self, gradient: Tensor, *, density: float | Tensor = 0.05) -> Tensor:
        """The ascent direction of unit norm."""
        return steepest(gradient, self.norm, density=density)

    def distance(self, z: Tensor, x0: Tensor) -> Tensor:
        """How many fields differ, ``[rows]``."""
        return distance(z - x0, self.norm)

    def contains(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """Whether each row is a valid record with few enough fields changed, bool ``[rows]``."""
        inside = ((z >= bounds.lower) & (z <= bounds.upper)).flatten(1).all(1)
        return inside & (self.distance(z, x0) <= self.changes) & self.schema.allows(z.flatten(1), x0.flatten(1))

    def land(self, z: Tensor, x0: Tensor, bounds: Bounds) -> Tensor:
        """``z`` as it is: a form refuses what does not fit, it does not round."""
        return z

    def at(self, radius: float) -> Self:
        """The same budget with another number of changes."""
        return replace(self, changes=radius)

    @property
    def most(self) -> int:
        """How many fields can change at all under this budget."""
        free = sum(not f.fixed for f in self.schema.fields)
        return free if math.isinf(self.changes) else min(int(self.changes), free)
