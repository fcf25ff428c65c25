"""JSMA: pairs of coordinates that a saliency map picks, one pair after another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.evasion.attacks.gradient import as_rows
from assay.evasion.attacks.nearest import Rows, Search
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.closest import Closest
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

_SHORTLIST = 48
"""Coordinates of either kind that pairs are made of: those of the largest slopes."""


@dataclass(frozen=True, eq=False)
class _Rows(Rows):
    target: Tensor
    """The class that each row goes for."""
    used: Tensor
    """Which coordinates were set already, bool ``[rows, d]``."""


@dataclass(frozen=True, kw_only=True)
class JSMA:
    """Sets the two coordinates to a limit of the box that together favor a target class most over all others.

    *Paper*: Papernot et al., EuroS&P 2016, Algorithm 2 and 3, increasing and decreasing coordinates alike.
    *Needs*: gradients.
    *Cost*: 1 forward to rank the classes; 2 forwards + 2 backwards per point, target and step, because a saliency needs
    the slope of the target's score and that of all others' sum; 1 forward for the last iterate. A broken row stops
    paying.
    *Blind spots*: greedy: a pair once set stays; changes smaller than to the edge of the box; pairs are made of the 48
    coordinates of largest slope of either kind.
    *Held to*: ART 1.20.1 and torchattacks 3.5.1 (targeted at the next class) on an undefended MNIST network, 100
    points: median 28 and 32 changed values, 92 and 91 % broken.
    *Measured*: untargeted, an easier goal: 12, all broken, 49 gradients; on the CIFAR-10 CNN-A 32, where ART comes
    to 214 (`tests/evasion/attacks/test_jsma.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L0(float("inf")).threat())
        >>> game.play(evasion.JSMA(), net, seed=0)["median l0 distance"].estimate <= 6
        True

    Attributes:
        share: of the coordinates that may change.
        targets: how many classes are gone for, from the highest score down, where none is given.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({0.0})
    minimal: ClassVar[Literal[True]] = True

    share: float = 0.14
    targets: int = 2

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Minimizer`."""
        return self.closest(view, x, y, budget, rng).within(x, budget.radius)

    def closest(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Closest:
        """The success of each point that changes the fewest coordinates."""
        search = Search.over(view, x, budget)
        if not len(x):
            return search.closest
        rows, size = self._begun(view, x, y), x[0].numel()
        for number in range(int(min(max(1, self.share * size), budget.radius)) // 2 + 1):
            rows = search.live(rows)
            if not len(rows.at):
                return search.closest
            seen = search.landed(rows)
            toward = view.gradient(seen, rows.at, _score, rows.target)
            won = search.record(rows, seen, toward.scores)
            rows, slopes = rows.keep(~won), toward.gradient[~won]
            if not len(search.live(rows).at):
                return search.closest
            away = view.gradient(search.landed(rows), rows.at, _others, rows.target).gradient
            pairs = budget.radius - 2 * number >= 2
            rows = _set(view, rows, slopes, away, pairs)
        search.judge(rows)
        return search.closest

    def _begun(self, view: View, x: Tensor, y: Tensor) -> _Rows:
        at = torch.arange(len(x), device=x.device)
        if view.threat.goal == TARGETED:
            targets = y[:, None]
        else:
            scores = view.scores(x, at)
            targets = scores.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1][:, : self.targets]
        k = targets.shape[1]
        used = torch.zeros(len(x) * k, x[0].numel(), dtype=torch.bool, device=x.device)
        return _Rows(at=as_rows(at, k), x0=as_rows(x, k), y=as_rows(y, k), z=as_rows(x, k),
                     target=targets.T.flatten(), used=used)


def _set(view: View, rows: _Rows, toward: Tensor, away: Tensor, pairs: bool) -> _Rows:
    """The most salient pair (or coordinate) of each row, up or down, at its limit."""
    lower, upper = view.bounds
    alpha, beta, flat = toward.flatten(1), away.flatten(1), rows.z.flatten(1)
    best = torch.full((len(flat),), -torch.inf, dtype=flat.dtype, device=flat.device)
    chosen, limit = torch.zeros(len(flat), 2, dtype=torch.int64, device=flat.device), torch.zeros_like(best)
    for sign, edge in ((1.0, upper), (-1.0, lower)):
        free = ~rows.used & (flat != edge)
        gain, pair = _most_salient(sign * alpha, sign * beta, free, pairs)
        better = gain > best
        best = torch.where(better, gain, best)
        chosen[better], limit[better] = pair[better], edge
    moved = flat.scatter(1, chosen, limit[:, None].expand(-1, 2))
    going = torch.isfinite(best)
    z = torch.where(going[:, None], moved, flat).reshape(rows.z.shape)
    spent = going[:, None].expand(-1, 2) | rows.used.gather(1, chosen)
    return replace(rows, z=z, used=rows.used.scatter(1, chosen, spent))


def _most_salient(alpha: Tensor, beta: Tensor, free: Tensor, pairs: bool) -> tuple[Tensor, Tensor]:
    """Algorithm 3: the pair with ``a > 0 > b`` and the largest ``−a·b``, a and b its summed slopes.

    Where no pair is salient, that with the largest ``a − b``: the target still gains on the others.
    """
    a, b = alpha.masked_fill(~free, -torch.inf), beta.masked_fill(~free, torch.inf)
    count = min(_SHORTLIST, a.shape[1])
    shortlist = torch.cat([a.topk(count, 1).indices, (-b).topk(count, 1).indices], 1)
    a, b = a.gather(1, shortlist), b.gather(1, shortlist)
    if pairs:
        a, b = a[:, :, None] + a[:, None, :], b[:, :, None] + b[:, None, :]
        same = shortlist[:, :, None] == shortlist[:, None, :]
        a, b = a.masked_fill(same, -torch.inf), b.masked_fill(same, torch.inf)
    a, b = a.flatten(1), b.flatten(1)
    known = torch.isfinite(a) & torch.isfinite(b)
    salient = torch.where((a > 0) & (b < 0), -a * b, -torch.inf)
    scale = 1 + torch.where(known, (a - b).abs(), torch.zeros_like(a)).amax(1, keepdim=True)
    value = torch.where(known, torch.where(salient > 0, salient, (a - b) / scale - 2), -torch.inf)
    most, place = value.max(1)
    width = shortlist.shape[1]
    first, second = (place // width, place % width) if pairs else (place, place)
    return most, torch.stack([shortlist.gather(1, p[:, None])[:, 0] for p in (first, second)], 1)


def _score(scores: Tensor, t: Tensor) -> Tensor:
    return scores.gather(1, t[:, None])[:, 0]


def _others(scores: Tensor, t: Tensor) -> Tensor:
    return scores.sum(1) - _score(scores, t)
