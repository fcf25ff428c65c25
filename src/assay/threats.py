"""What the adversary may do: the threat model, and the View that enforces it and counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from assay.errors import Denied, TargetError
from assay.evidence.record import Threat
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Loss, Smoothed, Structured, Target, WhiteBox, refuses
from assay.targets.features import Activations, FeatureLoss, graded, read

Kind = TypeVar("Kind")
Channel = Callable[[Tensor, Tensor], Tensor]
"""What happens to inputs on their way to the target: ``(x [rows, …], points [rows]) -> x``."""

TARGETED = "targeted"
"""The goal of reaching the label given with each point; every other goal is to leave it."""


class Lens(Protocol):
    """A channel through which the adversary moves parameters of a change, and gradients come back to them.

    Attributes:
        bounds: the box in which the parameters live.
    """

    @property
    def bounds(self) -> Bounds: ...

    def __call__(self, parameters: Tensor, points: Tensor) -> Tensor:
        """Parameters ``[rows, …]`` of changes to these points as inputs of the target, differentiably."""


class Examples(NamedTuple):
    """Natural inputs that the adversary holds beside the points under attack.

    Attributes:
        x: ``[m, …]``.
        y: their labels, int64 ``[m]``.
    """

    x: Tensor
    y: Tensor


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

    def grant(
        self,
        target: Target,
        points: int,
        *,
        labels: Tensor | None = None,
        channel: Channel | Lens | None = None,
        proving: bool = False,
        examples: Examples | None = None,
        handicap: float = 0.0,
    ) -> View:
        """The adversary's view of ``target`` for a trial on this many points. Raises ``Denied`` (THR101).

        Args:
            labels: int64 ``[points]``: the labels to leave or to reach; needed where a refusal or a handicap is.
            channel: what happens to inputs on their way to the target.
            proving: whether the view is a prover's, who is on the defender's side and sees the votes below a label.
            examples: natural inputs that the adversary holds.
            handicap: by how much a score must do better than win; against targets whose answers vary.
        """
        if target.offers < self.access:
            raise Denied("THR101", f"{self.access} access asked, but {target.name} offers only {target.offers}")
        at = torch.arange(points, device=target.device)
        return View(target, self, Meter.fresh(points, target.device), at, labels, channel, proving, examples, handicap)

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

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Forwards, backwards and queries."""
        return self.forwards, self.backwards, self.queries

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
    _labels: Tensor | None = None
    _channel: Channel | Lens | None = None
    _proving: bool = False
    examples: Examples | None = None
    """Natural inputs that the adversary holds, or ``None``."""
    _handicap: float = 0.0

    def __len__(self) -> int:
        return len(self._points)

    @property
    def bounds(self) -> Bounds:
        """The box in which what the adversary moves lives: inputs, or the parameters of a change."""
        return self._target.bounds if self._lens is None else self._lens.bounds

    @property
    def randomized(self) -> bool:
        """Whether the target's answers vary by design."""
        return self._target.randomized

    def select(self, points: Tensor) -> View:
        """The view of a subset of the points (an index or a mask), renumbered from 0; the meter is shared."""
        return replace(self, _points=self._points[points])

    def remaining(self, at: Tensor) -> Tensor | None:
        """Queries left for each row's point, or ``None`` where there is no limit."""
        if self.threat.queries is None:
            return None
        return self.threat.queries - self.meter.queries[self._points[at]]

    def rehearsal(self) -> View:
        """A view of the examples instead of the points, with a meter of its own: see :meth:`book`.

        Raises:
            Denied: THR107 where the adversary holds no examples.
        """
        if self.examples is None or self._lens is not None:
            raise Denied("THR107", "this method rehearses on natural inputs, of which the adversary holds none")
        count = len(self.examples.x)
        meter = Meter.fresh(count, self._target.device)
        at = torch.arange(count, device=self._target.device)
        return replace(self, meter=meter, _points=at, _labels=self.examples.y, _channel=None)

    def book(self, rehearsal: View) -> None:
        """Books what was spent on the examples on the points, evenly and rounded up."""
        if not len(self._points):
            return
        for own, other in zip(self.meter.columns, rehearsal.meter.columns):
            own[self._points] += -(-int(other.sum()) // len(self._points))

    def labels(self, x: Tensor, at: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``: one query a row. A refused input never counts as a success."""
        labels = self._target.labels(self._send(x, at, Access.LABELS))
        if not refuses(self._target):
            return labels
        return torch.where(labels == self._target.classes, self._failure(at, self._target.classes), labels)

    def scores(self, x: Tensor, at: Tensor) -> Tensor:
        """Logits or what is ordered like them, ``[rows, classes]``: one query a row."""
        return self._seen(self._target.scores(self._send(x, at, Access.SCORES)), at)

    def gradient(self, x: Tensor, at: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Scores, loss and input gradient of each row, from one forward and one backward."""
        target = self._white()
        if not (refuses(target) or self._handicap):
            return self._pulled(x, at, self._climbed, lambda z: target.graded(z, loss, *labels))

        def seen(scores: Tensor, rows: Tensor, *rest: Tensor) -> Tensor:
            return loss(self._seen(scores, rows), *rest)

        joint = self._pulled(x, at, self._climbed, lambda z: target.graded(z, seen, at, *labels))
        return joint._replace(scores=self._seen(joint.scores, at))

    def jacobian(self, x: Tensor, at: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the gradients of ``k`` scores a row: one forward and k backwards.

        Args:
            classes: int64 ``[rows, k]``.

        Returns:
            ``[rows, classes]`` and ``[rows, k, *input]``.
        """
        target, k = self._white(), classes.shape[1]
        if refuses(target) or self._lens is not None:
            picked = [self.gradient(x, at, _pick, classes[:, column]) for column in range(k)]
            return picked[0].scores, torch.stack([one.gradient for one in picked], 1)
        sent = self._send(x, at, Access.GRADIENTS, gradients=k)
        scores, rows = target.jacobian(sent, classes)
        return self._seen(scores, at), rows

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

    def features(self, x: Tensor, at: Tensor, names: tuple[str, ...]) -> Activations:
        """What these layers of the network make of each row, and its scores (not those of a defense around it).

        One forward a row, on the adversary's own copy of the weights: no query.

        Raises:
            Denied: THR102 unless weights are granted.
            TargetError: PRF141 for a layer that is not there.
        """
        module = self.module()
        self.charge(at, forwards=1)
        with torch.no_grad():
            return read(module, names, self._arrived(x, at))

    def feature_gradient(
        self, x: Tensor, at: Tensor, names: tuple[str, ...], loss: FeatureLoss, *labels: Tensor
    ) -> Graded:
        """The network's scores, and loss and input gradient of its features: one forward and one backward a row.

        Args:
            loss: ``(features of each layer, *labels) -> [rows]``; ``labels`` are row-aligned tensors of any shape.
        """
        module = self.module()
        self.charge(at, forwards=1, backwards=1)
        return self._pulled(x, at, self._arrived, lambda z: graded(module, names, z, loss, *labels))

    def charge(self, at: Tensor, *, forwards: int = 0, backwards: int = 0) -> None:
        """Book what was computed on the module directly, so many passes a row."""
        points = self._points[at]
        self.meter.forwards.index_add_(0, points, torch.full_like(points, forwards))
        self.meter.backwards.index_add_(0, points, torch.full_like(points, backwards))

    @property
    def _lens(self) -> Lens | None:
        return cast("Lens", self._channel) if hasattr(self._channel, "bounds") else None

    def _pulled(self, x: Tensor, at: Tensor, send: Channel, look: Callable[[Tensor], Graded]) -> Graded:
        """What ``look`` sees of the inputs sent, its gradient brought back through the lens where there is one."""
        if self._lens is None:
            return look(send(x, at))
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            sent = send(leaf, at)
            seen = look(sent.detach())
            (gradient,) = torch.autograd.grad(sent, leaf, seen.gradient)
        return seen._replace(gradient=gradient)

    def _climbed(self, x: Tensor, at: Tensor) -> Tensor:
        """Inputs sent for one gradient."""
        return self._send(x, at, Access.GRADIENTS, gradients=1)

    def _arrived(self, x: Tensor, at: Tensor) -> Tensor:
        """Inputs as they come out of the channel."""
        return x if self._channel is None else self._channel(x, self._points[at])

    def _failure(self, at: Tensor, classes: int) -> Tensor:
        """A label for each row that is not what the adversary wants."""
        if self._labels is None:
            raise Denied("THR108", f"{self._target.name} may refuse an input, and the view was granted without labels")
        own = self._labels[self._points[at]]
        return (own + 1) % classes if self.threat.goal == TARGETED else own

    def _seen(self, scores: Tensor, at: Tensor) -> Tensor:
        """Scores as the adversary reads them: a refusal speaks for the label to leave, a handicap too.

        With the refusal's column merged, ``margin`` is positive exactly where the label is lost *and* the input is
        accepted: the joint objective of Carlini & Wagner (AISec 2017, §3) for whatever attack climbs it.
        """
        refused = refuses(self._target)
        if not (refused or self._handicap):
            return scores
        own = self._failure(at, scores.shape[1] - refused)[:, None]
        if refused:
            scores, refusal = scores[:, :-1], scores[:, -1:]
            scores = scores.scatter(1, own, torch.maximum(scores.gather(1, own), refusal))
        if not self._handicap:
            return scores
        if self.threat.goal != TARGETED:
            return scores.scatter_add(1, own, torch.full_like(own, self._handicap, dtype=scores.dtype))
        aim = cast(Tensor, self._labels)[self._points[at]][:, None]
        return scores.scatter_add(1, aim, torch.full_like(aim, -self._handicap, dtype=scores.dtype))

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
        return self._arrived(x, at)


def _pick(scores: Tensor, chosen: Tensor) -> Tensor:
    return scores.gather(1, chosen[:, None])[:, 0]
