"""What is settled of each point: the smallest radius at which it fell, the largest up to which it is proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.evidence.record import Cost


@dataclass(eq=False)
class Spent:
    """What one method spent, per point of the trial."""

    per_point: NDArray[np.int64]
    """Forwards, backwards and queries: int64 ``[3, n]``."""
    seconds: float = 0.0

    @classmethod
    def blank(cls, n: int) -> Spent:
        """Nothing spent."""
        return cls(np.zeros((3, n), dtype=np.int64))

    def add(self, rows: slice, passes: NDArray[np.int64], seconds: float) -> None:
        """Books what was spent on these points: ``passes [3, rows]``."""
        self.per_point[:, rows] += passes
        self.seconds += seconds

    def total(self) -> Cost:
        """The sum over points."""
        forwards, backwards, queries = (int(v) for v in self.per_point.sum(1))
        return Cost(forwards=forwards, backwards=backwards, queries=queries, seconds=self.seconds)


class Fallen(NamedTuple):
    """What broke a point: the input, what it is taken for, and, of a transformation, its parameters."""

    z: NDArray[np.generic]
    predicted: int
    parameters: NDArray[np.generic] | None = None


@dataclass(frozen=True, eq=False)
class Board:
    """The standing of ``n`` points; every array is written in place as chunks and methods are played.

    Attributes:
        correct: the clean prediction is right (or, for a targeted goal, not yet the target).
        broken_at: the smallest radius at which a method broke the point; ``inf`` where none did.
        broken_by: which method, by its number; −1 where none did.
        certified_at: the largest radius up to which a proof holds; ``-inf`` where none does.
        certified_by: which proof, by its number; −1 where none did.
        adversarial: of broken points by index, the adversarial input and what it is taken for.
    """

    correct: NDArray[np.bool_]
    broken_at: NDArray[np.float64]
    broken_by: NDArray[np.int64]
    certified_at: NDArray[np.float64]
    certified_by: NDArray[np.int64]
    adversarial: dict[int, Fallen]

    @classmethod
    def blank(cls, n: int) -> Board:
        """Nothing known."""
        return cls(
            correct=np.ones(n, dtype=bool),
            broken_at=np.full(n, np.inf),
            broken_by=np.full(n, -1, dtype=np.int64),
            certified_at=np.full(n, -np.inf),
            certified_by=np.full(n, -1, dtype=np.int64),
            adversarial={},
        )

    def standing(self, rows: slice, radius: float) -> NDArray[np.int64]:
        """The points among ``rows`` that are right, not broken and not proved at this radius."""
        held = (self.broken_at[rows] > radius) | (self.broken_by[rows] < 0)
        part = self.correct[rows] & held & (self.certified_at[rows] < radius)
        points: NDArray[np.int64] = np.flatnonzero(part) + rows.start
        return points

    def improvable(self, rows: slice, radius: float) -> NDArray[np.int64]:
        """The points among ``rows`` that are right, and of which it is open how near they can be broken.

        A point broken within the smallest radius that is asked about is settled; where that is infinite, none is.
        """
        nearer = (self.broken_at[rows] > radius) | ~np.isfinite(radius)
        part = self.correct[rows] & nearer & (self.certified_at[rows] < max(radius, 0.0))
        points: NDArray[np.int64] = np.flatnonzero(part) + rows.start
        return points

    def fell(
        self,
        points: NDArray[np.int64],
        radii: NDArray[np.float64],
        method: int,
        z: NDArray[np.generic],
        predicted: NDArray[np.generic],
        parameters: NDArray[np.generic] | None = None,
    ) -> None:
        """Records broken points and what broke them; the smallest radius counts."""
        for i, (point, radius) in enumerate(zip(points.tolist(), radii.tolist())):
            if radius < self.broken_at[point]:
                self.broken_at[point], self.broken_by[point] = radius, method
                self.adversarial[point] = Fallen(z[i], int(predicted[i]), None if parameters is None else parameters[i])

    def certify(self, points: NDArray[np.int64], radii: NDArray[np.float64], proof: int) -> None:
        """Records proofs; the largest radius counts."""
        better = radii > self.certified_at[points]
        self.certified_at[points[better]] = radii[better]
        self.certified_by[points[better]] = proof

    def distances(self, upto: int) -> NDArray[np.float64]:
        """How near each point was broken by methods up to this number; 0 where it is wrong anyway."""
        far: NDArray[np.float64] = np.where((self.broken_by >= 0) & (self.broken_by <= upto), self.broken_at, np.inf)
        return np.where(self.correct, far, 0.0)

    def robust(self, radius: float, upto: int) -> int:
        """How many points no method up to this number broke within the radius."""
        broken = (self.broken_at <= radius) & (self.broken_by <= upto) & (self.broken_by >= 0)
        return int((self.correct & ~broken).sum())

    def proved(self, radius: float, upto: int) -> int:
        """How many points a proof up to this number certifies at the radius."""
        held = (self.certified_at >= radius) & (self.certified_by <= upto) & (self.certified_by >= 0)
        return int((self.correct & held).sum())


def to_numpy(values: Tensor) -> NDArray[np.generic]:
    """A contiguous array on the CPU."""
    array: NDArray[np.generic] = values.detach().to("cpu").contiguous().numpy()
    return array


def to_index(points: NDArray[np.int64], device: torch.device) -> Tensor:
    """Indices as a tensor where the target lives."""
    return torch.as_tensor(points, dtype=torch.int64, device=device)
