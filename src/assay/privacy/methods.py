"""What this wing's methods are: attacks on a finished model infer, proofs certify, private training trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError, Denied
from assay.privacy.rates import Scores
from assay.privacy.signals import Signals, Values
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, eq=False)
class Sight:
    """What the adversary of a membership game holds.

    Attributes:
        y: the examples' labels, int64 ``[examples]``.
        shadows: what models of its own say of the examples; it knows what each was trained on.
        answers: what each target says, as :func:`~assay.privacy.signals.logit_scale`: float64
            ``[targets, examples, augmentations]``; ``None`` where the targets reveal labels alone.
        x: the examples themselves, in the targets' box; ``None`` where signals are all there is.
        views: of each target, for attacks that ask more than the signals; empty where signals are all there is.
    """

    y: NDArray[np.int64]
    shadows: Signals | None = None
    answers: Values | None = None
    x: NDArray[np.generic] | None = None
    views: tuple[View, ...] = ()

    @property
    def signals(self) -> Values:
        """The targets' answers. Raises ``Denied`` (THR101) where they reveal labels alone."""
        if self.answers is None:
            raise Denied("THR101", "scores access asked, but the threat grants labels only")
        return self.answers

    @property
    def models(self) -> Signals:
        """The shadow models' signals. Raises ``DataError`` (PRV111) where there are none."""
        if self.shadows is None or not len(self.shadows):
            raise DataError("PRV111", "this attack compares with shadow models, and there are none")
        return self.shadows


@runtime_checkable
class Inferrer(Protocol):
    """A membership attack: a frozen dataclass with one verb.

    It may have an attribute ``shadows``, how many models it wants trained, and ``augment``, the queries it makes of
    each example.

    Attributes:
        needs: the least access that it can work with.
    """

    needs: ClassVar[Access]

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """How likely each example was trained on: float64 ``[targets, examples]``, the higher the likelier."""


def judge(
    attack: Inferrer, *, target: Signals, shadows: Signals | None = None,
    y: NDArray[np.int64] | None = None, seed: int = 0,
) -> Scores:
    """What an attack makes of signals that were brought along, and the truth beside it.

    Args:
        target: of the models under attack; their ``keep`` is the truth and is not shown to the attack.
        shadows: of the adversary's own models, about the same examples.
        y: labels, where the attack looks at them.

    Raises:
        DataError: PRV110 where the two are not about the same examples and augmentations.
    """
    if shadows is not None and shadows.values.shape[1:] != target.values.shape[1:]:
        raise DataError("PRV110", f"target signals {target.values.shape[1:]}, shadows' {shadows.values.shape[1:]}")
    labels = np.zeros(target.examples, np.int64) if y is None else y
    sight = Sight(labels, shadows, target.values.astype(np.float64))
    return Scores(attack.infer(sight, np.random.default_rng(seed)), target.keep)


def shadows_of(attack: object) -> int:
    """How many shadow models an attack wants."""
    return int(getattr(attack, "shadows", 0))


