"""Examples that stand out, put into the training data to see whether they show in the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from assay.errors import DataError


@dataclass(frozen=True, eq=False)
class Canaries:
    """Examples to plant.

    Attributes:
        x: ``[n, …]``, in the shape and dtype of the data.
        y: int64 ``[n]``.
        index: int64 ``[n]``: the row of the data that each was made from, −1 where there is none.
    """

    x: Tensor
    y: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def pick(self, rows: Tensor | Sequence[int]) -> Canaries:
        """These canaries alone."""
        at = torch.as_tensor(rows, dtype=torch.int64)
        return Canaries(self.x[at], self.y[at], self.index[at])


class Planter(Protocol):
    """What makes canaries out of data."""

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """Canaries for this data; the same seed gives the same bytes. The data stay as they are."""


@dataclass(frozen=True)
class Natural:
    """Examples of the data as they are: the weakest canaries, and what most members look like.

    Attributes:
        count: how many, at most as many as there are examples.
    """

    count: int = 1

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """See :class:`Planter`. Raises ``DataError`` (PRV300) where there are fewer examples than canaries."""
        index = _drawn(len(x), self.count, seed)
        return Canaries(x[index].clone(), y[index].clone(), index)


@dataclass(frozen=True)
class Mislabeled:
    """Examples of the data with a wrong label, uniform over the others.

    Attributes:
        count: how many, at most as many as there are examples.

    Source: Aerni, Zhang & Tramèr (CCS 2024), who judge defenses on the examples that are worst off.
    """

    count: int = 1

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """See :class:`Planter`. Raises ``DataError``: PRV300 for too many, PRV301 where there is no other label."""
        if classes < 2:
            raise DataError("PRV301", f"{classes} class leaves no wrong label")
        index = _drawn(len(x), self.count, seed)
        shift = torch.randint(1, classes, (self.count,), generator=_rng(seed, 1))
        return Canaries(x[index].clone(), (y[index] + shift.to(y.device)) % classes, index)


@dataclass(frozen=True)
class OutOfDistribution:
    """Inputs that no example resembles: every value at one of the ends of the data's range, at random.

    Attributes:
        count: how many.
        reach: how many times the data's range they span. A guarantee that holds for every record holds for those far
            outside too; statistics of the data that are not private give way to them.
    """

    count: int = 1
    reach: float = 1.0

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """See :class:`Planter`."""
        low, high = float(x.min()), float(x.max())
        ends = torch.randint(0, 2, (self.count, *x.shape[1:]), generator=_rng(seed, 2)).to(x)
        middle, width = (low + high) / 2, (high - low) * self.reach
        return Canaries(middle + (ends - 0.5) * width, *_unrelated(self.count, classes, seed, y))


@dataclass(frozen=True)
class Blank:
    """Inputs without content, all at the data's lowest value: what they teach goes into the biases alone.

    Attributes:
        count: how many; they differ by their labels only.

    Source: Nasr, Song, Thakurta, Papernot & Carlini (S&P 2021) and Jagielski, Ullman & Oprea (NeurIPS 2020): what
    lies where the data do not is hidden by none of them.
    """

    count: int = 1

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """See :class:`Planter`."""
        dark = torch.full((self.count, *x.shape[1:]), float(x.min()), dtype=x.dtype, device=x.device)
        return Canaries(dark, *_unrelated(self.count, classes, seed, y))


@dataclass(frozen=True)
class WorstOf:
    """Canaries of several kinds, of which an audit keeps the one that stood out in pilot runs.

    Attributes:
        kinds: what to choose from.
    """

    kinds: tuple[Planter, ...] = (Mislabeled(), OutOfDistribution(), OutOfDistribution(reach=1000.0), Blank())

    def plant(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> Canaries:
        """See :class:`Planter`: those of every kind, in order."""
        made = [kind.plant(x, y, classes=classes, seed=seed + 7 * at) for at, kind in enumerate(self.kinds)]
        return Canaries(torch.cat([one.x for one in made]), torch.cat([one.y for one in made]),
                        torch.cat([one.index for one in made]))

    def many(self, count: int) -> WorstOf:
        """The same with ``count`` of every kind that says how many it makes."""
        return WorstOf(tuple(replace(kind, count=count) if isinstance(kind, _COUNTED) else kind for kind in self.kinds))


NATURAL, WORST = Natural(), WorstOf()
"""What is planted where nothing else is asked for."""

_COUNTED = (Natural, Mislabeled, OutOfDistribution, Blank)


def _rng(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(4 * seed + purpose)


def _drawn(examples: int, count: int, seed: int) -> Tensor:
    if count > examples:
        raise DataError("PRV300", f"{count} canaries asked of {examples} examples")
    return torch.randperm(examples, generator=_rng(seed, 0))[:count]


def _unrelated(count: int, classes: int, seed: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform labels, and the rows that they were made from: none."""
    labels = torch.randint(0, classes, (count,), generator=_rng(seed, 3)).to(y)
    return labels, torch.full((count,), -1, dtype=torch.int64)
