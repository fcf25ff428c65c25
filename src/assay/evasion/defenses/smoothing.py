"""Randomized smoothing: the label that most noisy copies of an input get."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from assay.errors import ConfigError, Denied
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.around import Over
from assay.targets.base import Graded, Loss, Target, WhiteBox, passed_on


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Answers with the majority vote of the model on ``n`` copies of the input under Gaussian noise.

    *Paper*: Cohen, Rosenfeld & Kolter, ICML 2019; gradients through the vote as in SmoothAdv, Salman et al.,
    NeurIPS 2019.
    *Needs*: labels; what is smoothed offers what the model below offers, up to gradients.
    *Cost*: ``n`` forwards a query; ``gradient_draws`` forwards and backwards a gradient.
    *Blind spots*: a model not trained under noise loses accuracy under it; the guarantee is about the vote of
    infinitely many copies, of which ``n`` are a sample; a tie is broken by the mean softmax, never by abstaining.

    The noise is drawn from torch's global random numbers, which a game seeds and hands back: the same game with the
    same seed sees the same noise. Inputs live in the box, their noisy copies do not.
    *Held to*: the radius of a linear model, which smoothing leaves as it is.
    *Measured*: proved to 7 % of it on average (`tests/evasion/test_smoothing.py`).

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:50]")
        >>> safe = evasion.Smoothing(sigma=0.25, n=100).protect(demo.target(noise=0.25))
        >>> game = evasion.EvasionGame(x, y, threat=evasion.L2(0.25).threat())
        >>> game.prove(evasion.SmoothingRadius(n=1000), safe, seed=0)["robust accuracy"].estimate > 0.7
        True

    Attributes:
        sigma: the noise's standard deviation, in the units of the data.
        n: copies a query.
        gradient_draws: copies a gradient.
        batch: the most copies in memory at once.
    """

    sigma: float = 0.25
    n: int = 1000
    gradient_draws: int = 16
    batch: int = 1024

    def __post_init__(self) -> None:
        if not (0 < self.sigma < math.inf and min(self.n, self.gradient_draws, self.batch) >= 1):
            raise ConfigError("PRF121", f"{self} cannot be used")

    def protect(self, target: Target) -> SmoothedTarget:
        """``target``, smoothed; itself unchanged."""
        return SmoothedTarget(target, self)


class _Read(NamedTuple):
    """What the copies of each row say together.

    Attributes:
        soft: log of the mean softmax, ``[rows, classes]``.
        scores: log of the shares of votes, one further vote being split by the mean softmax.
        loss: of ``soft``, ``[rows]``.
        gradient: of ``loss`` by the input.
    """

    soft: Tensor
    scores: Tensor
    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class SmoothedTarget(Over):
    """A target under randomized smoothing; build it with :class:`Smoothing`."""

    smoothing: Smoothing

    @property
    def name(self) -> str:
        """The model's, and how it was smoothed."""
        return f"{self.base.name}, smoothed with sigma {self.sigma:g}"

    @property
    def offers(self) -> Access:
        """What the model below offers, but no weights: no network computes a vote."""
        return passed_on(self.base)

    @property
    def randomized(self) -> bool:
        """Every look draws new noise."""
        return True

    @property
    def sigma(self) -> float:
        """The noise's standard deviation."""
        return self.smoothing.sigma

    @property
    def forwards_per_vote(self) -> int:
        """What the model below takes for one query."""
        return self.base.forwards_per_query

    @property
    def forwards_per_query(self) -> int:
        """So many votes."""
        return self.smoothing.n * self.forwards_per_vote

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """Every gradient goes through ``gradient_draws`` copies of its own."""
        forwards, backwards = cast(WhiteBox, self.base).passes()
        return (gradients * self.smoothing.gradient_draws * forwards,
                gradients * self.smoothing.gradient_draws * backwards)

    def labels(self, x: Tensor) -> Tensor:
        """The class with the most votes, int64 ``[rows]``."""
        if self.base.offers >= Access.SCORES:
            return self.scores(x).argmax(1)
        return self._votes(x, self.smoothing.n, _fresh(len(x))).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        """Log of the shares of votes, ``[rows, classes]``.

        To the ``n`` votes the mean softmax is added as one further, divided vote: no share is zero, a tie goes to the
        class of the larger mean softmax, and the order of the votes stays.
        """
        n, parts, seeds = self.smoothing.n, [], _fresh(len(x))
        for rows in self._groups(len(x), n):
            votes: Tensor | float = 0.0
            soft: Tensor | float = 0.0
            for copies in self._copies(x[rows], n, seeds[rows]):
                scores = self._ask(copies)
                votes = votes + _count(scores.argmax(2), scores.shape[2])
                soft = soft + scores.softmax(2).sum(1)
            parts.append(_shares(cast(Tensor, votes), cast(Tensor, soft) / n, n))
        return torch.cat(parts) if parts else self.base.scores(x)

    def votes(self, x: Tensor, draws: int, rng: Stream) -> Tensor:
        """How many of ``draws`` noisy copies get each label, int64 ``[rows, classes]``."""
        return self._votes(x, draws, rng.keys.tolist())

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Scores by vote of ``gradient_draws`` copies; loss and gradient of the log of their mean softmax.

        Source: Salman et al., 2019, Eq. 6: the mean is taken inside the loss. Where the model below splits the copies
        of a row over several of its batches, the gradient averages over the parts.
        """
        if not len(x):
            return cast(WhiteBox, self.base).graded(x, loss, *labels)
        read = self._read(x, _fresh(len(x)), loss, labels)
        return Graded(read.scores, read.loss, read.gradient)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The log of the mean softmax, and its gradients: each class pays for ``gradient_draws`` copies."""
        k = classes.shape[1]
        if not len(x) or not k:
            return cast(WhiteBox, self.base).jacobian(x, classes)
        seeds = [seed for seed in _fresh(len(x)) for _ in range(k)]
        read = self._read(x.repeat_interleave(k, 0), seeds, _pick, (classes.reshape(-1),))
        return read.soft[::k], read.gradient.reshape(len(x), k, *x.shape[1:])

    def module(self) -> nn.Module:
        """Refused: no network computes a vote. Raises ``Denied`` (THR101)."""
        raise Denied("THR101", f"{self.name} is a vote over noise, not a network; it offers {self.offers}",
                     fix="Grant gradients, or attack the model below as a target of its own.")

    def check(self, x: Tensor) -> None:
        """Whatever the model below checks."""
        self.base.check(x)

    def fingerprint(self) -> dict[str, str]:
        """The model's, and the smoothing's parameters."""
        return {**self.base.fingerprint(), "smoothing": repr(self.smoothing)}

    def _groups(self, rows: int, draws: int) -> Iterator[slice]:
        """Rows whose copies share a batch."""
        size = max(self.smoothing.batch // draws, 1)
        return (slice(start, start + size) for start in range(0, rows, size))

    def _copies(self, x: Tensor, draws: int, seeds: list[int]) -> Iterator[Tensor]:
        """``[rows, copies, …]`` until there were ``draws`` of each row; a row's noise is its seed's alone."""
        generators = [torch.Generator(x.device).manual_seed(seed) for seed in seeds]
        for done in range(0, draws, self.smoothing.batch):
            shape = (min(self.smoothing.batch, draws - done), *x.shape[1:])
            noise = torch.stack([torch.randn(shape, generator=g, dtype=x.dtype, device=x.device) for g in generators])
            yield noise.mul_(self.sigma).add_(x.unsqueeze(1))

    def _ask(self, copies: Tensor) -> Tensor:
        return self.base.scores(copies.flatten(0, 1)).reshape(*copies.shape[:2], -1)

    def _votes(self, x: Tensor, draws: int, seeds: list[int]) -> Tensor:
        parts = []
        for rows in self._groups(len(x), draws):
            votes = torch.zeros(len(x[rows]), 0, dtype=torch.int64, device=x.device)
            for copies in self._copies(x[rows], draws, seeds[rows]):
                votes = _added(votes, self._vote(copies))
            parts.append(votes)
        width = max((part.shape[1] for part in parts), default=0)
        return torch.cat([_widened(part, width) for part in parts]) if parts else x.new_zeros(0, 0, dtype=torch.int64)

    def _vote(self, copies: Tensor) -> Tensor:
        """The votes on these copies, ``[rows, classes]``."""
        if self.base.offers >= Access.SCORES:
            scores = self._ask(copies)
            return _count(scores.argmax(2), scores.shape[2])
        labels = self.base.labels(copies.flatten(0, 1)).reshape(copies.shape[:2])
        return _count(labels, int(labels.max()) + 1)

    def _read(self, x: Tensor, seeds: list[int], loss: Loss, labels: tuple[Tensor, ...]) -> _Read:
        draws, parts = self.smoothing.gradient_draws, []
        base, mean = cast(WhiteBox, self.base), _Joint(loss)
        for rows in self._groups(len(x), draws):
            own = tuple(label[rows] for label in labels)
            logits, gradient = [], torch.zeros_like(x[rows])
            for copies in self._copies(x[rows], draws, seeds[rows]):
                count = copies.shape[1]
                of = torch.arange(len(copies), device=x.device)
                graded = base.graded(copies.flatten(0, 1), mean, *(t.repeat_interleave(count, 0) for t in (of, *own)))
                logits.append(graded.scores.reshape(*copies.shape[:2], -1))
                gradient += graded.gradient.reshape(copies.shape).sum(1) / draws
            scores = torch.cat(logits, 1)
            soft = scores.log_softmax(2).logsumexp(1) - math.log(draws)
            votes = _count(scores.argmax(2), scores.shape[2])
            parts.append(_Read(soft, _shares(votes, soft.exp(), draws), loss(soft, *own), gradient))
        return _Read(*(torch.cat(column) for column in zip(*parts)))


@dataclass(frozen=True)
class _Joint:
    """A loss of the log of the mean softmax over the copies of a row, as a loss of the copies.

    Called with ``scores [copies, classes]``, the row of each copy and its labels; each copy's value is its row's
    loss, so that the sum of gradients over copies is, per copy, the gradient of the row's loss times their number.
    """

    loss: Loss

    def __call__(self, scores: Tensor, of: Tensor, *labels: Tensor) -> Tensor:
        """Values ``[copies]``."""
        _, row, count = torch.unique_consecutive(of, return_inverse=True, return_counts=True)
        first = count.cumsum(0) - count
        logs = scores.log_softmax(1)
        wide = row[:, None].expand_as(logs)
        empty = torch.full((len(count), logs.shape[1]), -torch.inf, dtype=logs.dtype, device=logs.device)
        top = empty.scatter_reduce(0, wide, logs.detach(), "amax")
        total = torch.zeros_like(top).index_add(0, row, (logs - top[row]).exp())
        soft = total.log() + top - count[:, None].to(logs.dtype).log()
        value: Tensor = self.loss(soft, *(label[first] for label in labels))
        return value[row]


def _fresh(rows: int) -> list[int]:
    """Seeds for the noise of each row, from torch's global random numbers."""
    seeds: list[int] = torch.randint(1 << 62, (rows,)).tolist()
    return seeds


def _pick(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]


def _count(labels: Tensor, classes: int) -> Tensor:
    """Votes ``[rows, classes]`` from labels ``[rows, copies]``."""
    empty = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    return empty.scatter_add_(1, labels, torch.ones_like(labels))


def _widened(votes: Tensor, classes: int) -> Tensor:
    return nn.functional.pad(votes, (0, classes - votes.shape[1]))


def _added(first: Tensor, second: Tensor) -> Tensor:
    width = max(first.shape[1], second.shape[1])
    return _widened(first, width) + _widened(second, width)


def _shares(votes: Tensor, soft: Tensor, draws: int) -> Tensor:
    shares = (votes + soft) / (draws + 1)
    return shares.clamp_min(torch.finfo(soft.dtype).tiny).log()
