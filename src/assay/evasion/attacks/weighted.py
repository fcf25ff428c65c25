"""What searches that weigh the loss against the perturbation's size share: the class to head for, and the weight."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import objective
from assay.evasion.attacks.nearest import Rows, Search
from assay.evasion.objectives import pair_margin, toward_margin
from assay.evasion.threat import TARGETED
from assay.numerics.balls import distance, hyperplane_step
from assay.targets.base import Graded
from assay.threats import View

_RANKED = 9
"""Among how many wrong classes, from the highest score down, the nearest are looked for."""


@dataclass(frozen=True, eq=False)
class _Ranked(Rows):
    classes: Tensor
    """The likeliest wrong classes of each row, int64 ``[rows, k]``."""


@dataclass(frozen=True, eq=False)
class Heading(Rows):
    """Rows at their originals, and what the first look says of the class that each heads for.

    Attributes:
        target: that class, int64.
        gap: by how much its score is behind.
        slope: the gradient by which the gap closes, the input's shape.
        nearest: by first order the smallest perturbation that closes it inside the box, the input's shape.
        far: the length of ``nearest``.
    """

    target: Tensor
    gap: Tensor
    slope: Tensor
    nearest: Tensor
    far: Tensor


@dataclass(frozen=True, eq=False)
class Weighted(Rows):
    """The live rows of a search for the weight of the loss.

    Attributes:
        target: the class that the row heads for; ``far``: how far its boundary was thought to be.
        c: the weight of the loss, and ``low`` and ``high`` its bracket.
        length: the nearest success of the row, ``inf`` where there is none; ``earlier``: before this search.
        late: whether the second half of this search has succeeded.
    """

    target: Tensor
    far: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    length: Tensor
    earlier: Tensor
    late: Tensor

    @property
    def found(self) -> Tensor:
        """Whether the row has had a success."""
        return torch.isfinite(self.length)


W = TypeVar("W", bound=Weighted)


def every(rows: Rows) -> dict[str, Tensor]:
    """The fields of rows, to make rows with more of them."""
    return {f.name: getattr(rows, f.name) for f in fields(rows)}


def headed(search: Search, x: Tensor, y: Tensor, targets: int) -> Heading:
    """A row for each point and class to head for: of the likeliest wrong classes the ``targets`` nearest.

    How near they are is seen by first order, as in DeepFool (Moosavi-Dezfooli et al., CVPR 2016), but inside the box.
    Costs 2 forwards and a backward for each class; where the label to reach is given, 1 forward and 1 backward.
    """
    rows = search.live(Rows(at=torch.arange(len(x), device=x.device), x0=x, y=y, z=x))
    if search.view.threat.goal == TARGETED:
        graded = search.view.gradient(rows.x0, rows.at, toward_margin, rows.y)
        search.record(rows, rows.x0, graded.scores)
        return _open(search, _heading(search, rows, rows.y, -graded.loss, graded.gradient))
    wrong = search.view.scores(rows.x0, rows.at).scatter(1, rows.y[:, None], -torch.inf)
    classes = wrong.topk(min(_RANKED, wrong.shape[1] - 1), dim=1).indices
    ranked = search.live(_Ranked(**every(rows), classes=classes))
    both = torch.cat([ranked.y[:, None], ranked.classes], 1)
    scores, jacobian = search.view.jacobian(ranked.x0, ranked.at, both)
    search.record(ranked, ranked.x0, scores)
    headings = [
        _heading(search, ranked, target, (scores.gather(1, both[:, :1]) - scores.gather(1, target[:, None]))[:, 0],
                 jacobian[:, k + 1] - jacobian[:, 0])
        for k, target in enumerate(ranked.classes.T)
    ]
    far = torch.stack([heading.far for heading in headings], 1)
    order = far.argsort(dim=1, stable=True)[:, :targets].T
    together = Heading(**{name: torch.stack([every(h)[name] for h in headings], 1) for name in every(headings[0])})
    each = torch.arange(len(far), device=far.device).repeat(len(order))
    chosen = Heading(**{name: value[each, order.flatten()] for name, value in every(together).items()})
    return _open(search, chosen)


def _heading(search: Search, rows: Rows, target: Tensor, gap: Tensor, slope: Tensor) -> Heading:
    lower, upper = search.view.bounds
    base, slope = rows.x0.flatten(1), torch.nan_to_num(slope)
    norm = max(search.budget.norm, 1.0)  # the coordinates of the smallest L1 step are the fewest as well
    step = hyperplane_step(slope.flatten(1), gap, lower - base, upper - base, norm)
    closed = (step * slope.flatten(1)).sum(1) >= gap * (1 - 1e-4)
    far = torch.where(closed, distance(step, search.budget.norm), torch.inf)
    return Heading(at=rows.at, x0=rows.x0, y=rows.y, z=rows.x0, target=target, gap=gap, slope=slope,
                   nearest=step.reshape(slope.shape), far=torch.minimum(far, search.reach(rows.x0)))


def _open(search: Search, heading: Heading) -> Heading:
    """Without the rows of points that are adversarial as they are."""
    return heading.keep((heading.gap > 0) & (search.closest.length[heading.at] > 0))


def looked(view: View, rows: Weighted, seen: Tensor, search: int) -> Graded:
    """The first search heads for the row's class, later ones for whichever is the closest to winning."""
    if search == 0 and view.threat.goal != TARGETED:
        return view.gradient(seen, rows.at, pair_margin, rows.y, rows.target)
    return view.gradient(seen, rows.at, objective(view, "margin"), rows.y)


def advanced(rows: W, gain: float) -> W:
    """Of each point the row that came nearest, where this search brought it nearer by more than a share ``gain``.

    A row that has found nothing yet goes on.
    """
    order = rows.length.argsort(stable=True)
    order = order[rows.at[order].argsort(stable=True)]
    at = rows.at[order]
    first = torch.ones_like(at, dtype=torch.bool)
    first[1:] = at[1:] != at[:-1]
    rows = rows.keep(order[first])
    return rows.keep(~rows.found | (rows.length < (1 - gain) * rows.earlier))


def bisected(rows: W) -> W:
    """The next weight: less after a success, more after none.

    As a search begins at the nearest success, only what its second half sees counts.
    """
    high = torch.where(rows.late, torch.minimum(rows.high, rows.c), rows.high)
    low = torch.where(rows.late, rows.low, torch.maximum(rows.low, rows.c))
    lower = torch.where(low > 0, (low + high) / 2, high / 2)
    return replace(rows, c=torch.where(torch.isfinite(high), lower, 10 * low), low=low, high=high)
