"""What the adversary may do: the threat model, and the View that enforces it and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from assay.errors import Denied, TargetError
from assay.evidence.record import Threat
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Loss, Smoothed, Structured, Target, WhiteBox

Kind = TypeVar("Kind")
Channel = Callable[[Tensor, Tensor], Tensor]
"""What happens to inputs on their way to the target: ``(x [rows, …], points [rows]) -> x``."""


Budget = object
"""A wing's own type for how much the adversary may change; its ``str`` is what evidence prints."""


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Goal, knowledge and capability of an adversary (Carlini et al., 2019, "On evaluating adversarial robustness").

    Attributes:
        goal: ``"misclassify"``, or ``"targeted"`` (reach the label given with each point).
        access: what the adversary sees of the target.
        knows: what it knows of the design, such as ``{"model", "defense"}``.
        budget: how much it may change.
        queries: how many inputs it may submit *per point*; ``None`` for no limit.
    """

    goal: str = "misclassify"
    access: Access = Access.GRADIENTS
    budget: Budget
    knows: frozenset[str] = field(default_factory=frozenset)
    queries: int | None = None

    def grant(self, target: Target, points: int, *, channel: Channel | None = None, proving: bool = False) -> View:
        """The adversary's view of ``target`` for a trial on this many points. Raises ``Denied`` (THR101).

        Args:
            channel: what happens to inputs on their way to the target.
            proving: whether the view is a prover's, who is on the defender's side and sees the votes below a label.
        """
        if target.offers < self.access:
            raise Denied("THR101", f"{self.access} access asked, but {target.name} offers only {target.offers}")
        at = torch.arange(points, device=target.device)
        return View(target, self, Meter.fresh(points, target.device), at, channel, proving)

    def describe(self) -> Threat:
        """The threat model as evidence keeps it."""
        return Threat(
            goal=self.goal,
            access=str(self.access),
            budget=str(self.budget),
            knows=tuple(sorted(self.knows)),
            queries=self.queries,
        )


@dataclass(frozen=True, eq=False)
class Meter:
    """What was spent on each point, int64 ``[points]`` each; the tensors are written in place as rows are charged."""

    forwards: Tensor
    backwards: Tensor
    queries: Tensor

    @classmethod
    def fresh(cls, points: int, device: torch.device) -> Meter:
        """A meter at zero."""
        zeros = torch.zeros(3, points, dtype=torch.int64, device=device)
        return cls(zeros[0], zeros[1], zeros[2])


@dataclass(frozen=True, eq=False)
class View:
    """What the adversary gets of a target: no more than the threat model grants, every row counted on its point.

    Every call takes ``at``: int64 ``[rows]``, the point that each row is about. A point may have many rows
    (restarts, targets, draws) or none. The View guards against self-deception, not against hostile code.
    """

    _target: Target
    threat: ThreatModel
    meter: Meter
    _points: Tensor
    _channel: Channel | None = None
    _proving: bool = False

    def __len__(self) -> int:
        return len(self._points)

    @property
    def bounds(self) -> Bounds:
        """The box in which inputs live."""
        return self._target.bounds

    @property
    def randomized(self) -> bool:
        """Whether the target's answers vary by design."""
        return self._target.randomized

    def select(self, points: Tensor) -> View:
        """The view of a subset of the points (an index or a mask), renumbered from 0; the meter is shared."""
        return View(self._target, self.threat, self.meter, self._points[points], self._channel, self._proving)

    def remaining(self, at: Tensor) -> Tensor | None:
        """Queries left for each row's point, or ``None`` where there is no limit."""
        if self.threat.queries is None:
            return None
        return self.threat.queries - self.meter.queries[self._points[at]]

    def labels(self, x: Tensor, at: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``: one query a row."""
        return self._target.labels(self._send(x, at, Access.LABELS))

    def scores(self, x: Tensor, at: Tensor) -> Tensor:
        """Logits or what is ordered like them, ``[rows, classes]``: one query a row."""
        return self._target.scores(self._send(x, at, Access.SCORES))

    def gradient(self, x: Tensor, at: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Scores, loss and input gradient of each row, from one forward and one backward."""
        sent = self._send(x, at, Access.GRADIENTS, gradients=1)
        return self._white().graded(sent, loss, *labels)

    def jacobian(self, x: Tensor, at: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the gradients of ``k`` scores a row: one forward and k backwards.

        Args:
            classes: int64 ``[rows, k]``.

        Returns:
            ``[rows, classes]`` and ``[rows, k, *input]``.
        """
        sent = self._send(x, at, Access.GRADIENTS, gradients=classes.shape[1])
        return self._white().jacobian(sent, classes)

    @property
    def sigma(self) -> float:
        """The standard deviation of a smoothed target's noise. Raises ``TargetError`` (PRF120) for any other."""
        return self._smoothed().sigma

    def votes(self, x: Tensor, at: Tensor, draws: int, rng: Stream) -> Tensor:
        """How many of ``draws`` noisy copies of each row get each label, int64 ``[rows, classes]``: so many queries.

        Shares of votes are scores: an adversary to whom only labels are granted does not see them, a prover does.

        Raises:
            TargetError: PRF120 where the target is not smoothed.
        """
        target = self._smoothed()
        level = Access.LABELS if self._proving else Access.SCORES
        return target.votes(self._send(x, at, level, votes=draws), draws, rng)

    def module(self) -> nn.Module:
        """The network itself, from declared inputs to logits. Raises ``Denied`` unless weights are granted."""
        self._require(Access.WEIGHTS)
        return self._white().module()

    def structure(self, kind: type[Kind]) -> Kind | None:
        """What was learned by a target that is no network, where it is of this kind: a ``Forest`` of trees, say.

        To walk through it is no query. Raises ``Denied`` unless weights are granted.
        """
        self._require(Access.WEIGHTS)
        found = self._target.structure if isinstance(self._target, Structured) else None
        return found if isinstance(found, kind) else None

    def charge(self, at: Tensor, *, forwards: int = 0, backwards: int = 0) -> None:
        """Book what was computed on the module directly, so many passes a row."""
        points = self._points[at]
        self.meter.forwards.index_add_(0, points, torch.full_like(points, forwards))
        self.meter.backwards.index_add_(0, points, torch.full_like(points, backwards))

    def _require(self, level: Access) -> None:
        if level > self.threat.access:
            raise Denied("THR102", f"this method asked for {level}; the threat model grants {self.threat.access}")

    def _white(self) -> WhiteBox:
        if not isinstance(self._target, WhiteBox):
            raise TargetError("TGT150", f"{self._target.name} is no network")
        return self._target

    def _smoothed(self) -> Smoothed:
        if not isinstance(self._target, Smoothed):
            raise TargetError("PRF120", f"{self._target.name} does not put noisy copies of its input to the vote")
        return self._target

    def _passes(self, gradients: int, votes: int) -> tuple[int, int]:
        """Forwards and backwards of the model for one query."""
        if gradients:
            return self._white().passes(gradients)
        return (self._smoothed().forwards_per_vote if votes else self._target.forwards_per_query), 0

    def _send(self, x: Tensor, at: Tensor, level: Access, *, gradients: int = 0, votes: int = 0) -> Tensor:
        self._require(level)
        points = self._points[at]
        queries = torch.bincount(points, minlength=len(self.meter.queries)) * max(votes, 1)
        limit = self.threat.queries
        if limit is not None and bool(((self.meter.queries + queries > limit) & (queries > 0)).any()):
            raise Denied("THR103", f"the budget of {limit} queries a point is spent")
        self.meter.queries.add_(queries)
        forwards, backwards = self._passes(gradients, votes)
        self.meter.forwards.add_(queries * forwards)
        self.meter.backwards.add_(queries * backwards)
        return x if self._channel is None else self._channel(x, points)


