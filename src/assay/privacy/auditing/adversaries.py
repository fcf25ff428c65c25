"""Who may know what of a private training: from the finished model alone to its every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.privacy.auditing.procedure import Models, Procedure, Watch
from assay.privacy.canaries import NATURAL, WORST, Canaries, Planter
from assay.privacy.signals import logit_scale
from assay.targets.access import Access


@dataclass(frozen=True, eq=False)
class Trial:
    """Runs of a procedure on data to which one example was added in some, which the adversary is to tell.

    Attributes:
        procedure: what trains.
        x, y: the data without the canary, known to the adversary.
        canary: the one example.
        seeds: one a run.
    """

    procedure: Procedure
    x: Tensor
    y: Tensor
    canary: Canaries
    seeds: Sequence[int]
    _inside: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.seeds)

    def train(self, watch: Watch | None = None, *, x: Tensor | None = None) -> Models:
        """The runs, watched where asked; on other inputs where the adversary chose the data."""
        given = self.x if x is None else x
        keep = torch.ones(len(self), len(given) + 1, dtype=torch.bool)
        keep[:, -1] = self._inside
        everything = torch.cat([given, self.canary.x]), torch.cat([self.y, self.canary.y])
        return self.procedure.runs(*everything, keep, self.seeds, watch)


class Adversary(Protocol):
    """A rung of the ladder: which example it adds, and how surely it says of each run that it was there.

    Attributes:
        needs: what it sees of a model.
        watches: whether it must see the training's steps.
    """

    needs: ClassVar[Access]
    watches: ClassVar[bool]

    @property
    def canary(self) -> Planter: ...

    def infer(self, trial: Trial) -> Tensor:
        """Scores of the runs: float64 ``[runs]``, or ``[runs, steps]`` whose sum says it; high or low for "in"."""


@dataclass(frozen=True, kw_only=True)
class APIAccess:
    """Asks the finished model how it likes an ordinary example, as any user of it could.

    *Paper*: Nasr, Song, Thakurta, Papernot & Carlini, S&P 2021, §IV-A: the weakest adversary of their ladder.
    *Needs*: scores of the final model.
    *Cost*: 1 training a run; 1 query.
    *Blind spots*: nearly everything: an ordinary example is learned from the others too, and later steps drown it.
    *Held to*: every other rung, each of which finds more, as published; all are held to an ε of 4.377, that of 20
    full-batch steps of DP-SGD.
    *Measured*: 1.6 of 4.4 in 2000 runs under a Gaussian curve, where the next rung shows 3.4
    (`tests/privacy/auditing/test_ladder.py`).

    Example:
        >>> import torch
        >>> from assay import demo, privacy
        >>> def train(x, y, seed):                       # a mean of each class, published as it is
        ...     means = torch.stack([x[y == c].mean(0) for c in range(10)]).flatten(1)
        ...     return lambda z: -torch.cdist(z.flatten(1), means)
        >>> found = privacy.audit(train, data=demo.digits("train[:100]"), claim=(1, 1e-5), runs=200,
        ...                       adversary=privacy.APIAccess())
        >>> found.refuted
        True

    Attributes:
        canary: what is added.
    """

    needs: ClassVar[Access] = Access.SCORES
    watches: ClassVar[bool] = False

    canary: Planter = NATURAL

    def infer(self, trial: Trial) -> Tensor:
        """See :class:`Adversary`: the margin of the canary's label, on the logit scale."""
        return _margin(trial.train(), trial.canary)


@dataclass(frozen=True, kw_only=True)
class StaticInput:
    """Asks the finished model how it likes an example made to be remembered, added before the training starts.

    *Paper*: Nasr et al., S&P 2021, §IV-B, and Jagielski, Ullman & Oprea, NeurIPS 2020; the choice of canaries of
    Aerni, Zhang & Tramèr, CCS 2024.
    *Needs*: scores of the final model, and one example of its own in the data.
    *Cost*: 1 training a run; 1 query.
    *Blind spots*: what only the steps show, such as noise that is the same in all of them; steps after those in which
    the canary was learned hide it.
    *Held to*: DP-SGD whose noise is divided by the batch size: Tramèr et al., 2022, refuted such a claim of 0.21 with
    an ε of at least 2.79, in 200,000 runs.
    *Measured*: that bug in a logistic regression refuted in 400 runs, with all that these can show
    (`tests/privacy/auditing/test_zoo.py`); of the correct training's 4.4, 3.4 in 2000 runs under a Gaussian curve.

    Example:
        >>> import torch
        >>> from assay import demo, privacy
        >>> def train(x, y, seed):                       # noise, but far too little of it
        ...     means = torch.stack([x[y == c].mean(0) for c in range(10)]).flatten(1)
        ...     noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(seed))
        ...     return lambda z: -torch.cdist(z.flatten(1), means + 0.01 * noise)
        >>> found = privacy.audit(train, privacy.Mislabeled(), data=demo.digits("train[:100]"), claim=(1, 1e-5),
        ...                       runs=200, adversary=privacy.StaticInput())
        >>> found.refuted
        True

    Attributes:
        canary: what is added; of several, an audit keeps the one that stood out in pilot runs.
    """

    needs: ClassVar[Access] = Access.SCORES
    watches: ClassVar[bool] = False

    canary: Planter = WORST

    def infer(self, trial: Trial) -> Tensor:
        """See :class:`Adversary`: the margin of the canary's label, on the logit scale."""
        return _margin(trial.train(), trial.canary)


def _margin(models: Models, canary: Canaries) -> Tensor:
    """``[runs]``: what the models make of the canary."""
    with torch.no_grad():
        return logit_scale(models(canary.x), canary.y)[:, 0]
