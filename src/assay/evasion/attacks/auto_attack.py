"""AutoAttack: the standard cascade, from cheap to dear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from assay.evasion.attacks.apgd import APGD, TargetedAPGD
from assay.evasion.attacks.fab import FAB
from assay.evasion.attacks.square import Square
from assay.evasion.methods import Perturber
from assay.evasion.threat import Ball
from assay.numerics.frontier import Frontier
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View

Version = Literal["standard", "plus", "rand"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """Four complementary attacks in a row, each on what the earlier ones left standing; nothing to tune.

    ``"standard"``: APGD on cross-entropy, targeted APGD, FAB, Square. ``"plus"``: more restarts, APGD on the logit
    ratio, untargeted besides targeted, and Square without early abandonment. ``"rand"``, for randomized targets: APGD
    on both losses with gradients averaged over 20 looks. With scores only, Square alone.

    *Paper*: Croce & Hein, ICML 2020; L1: Croce & Hein, ICML 2021.
    *Needs*: scores; its full strength needs gradients.
    *Cost*: that of its stages; a broken point pays for no further step, a point that Square cannot reach at its rate
    of progress is abandoned early.
    *Blind spots*: defenses that adapt at inference time; randomness, except in version ``"rand"``.
    *Held to*: 76.5 % robust accuracy that the reference leaves of mnist_cnn_a_adv at Linf 0.3, at 6,088 forwards a
    point.
    *Measured*: 76.5 % at 1,851 forwards a point (`tests/papers/test_published_robustness.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:20]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
        >>> game.play(evasion.AutoAttack(), net, seed=0)["robust accuracy"].estimate < 0.3
        True
    """

    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2, 1})

    version: Version = "standard"

    def stages(self, budget: Ball, access: Access) -> tuple[Perturber, ...]:
        """See :class:`~assay.evasion.methods.Cascade`."""
        if access < Access.GRADIENTS:
            return (Square(queries=10_000 if self.version == "plus" else 5000, patience=None),)
        l1 = budget.norm == 1
        # APGD in L1 spends most of its steps outside the budget: a short run inside it settles the easy points.
        first: tuple[Perturber, ...] = (APGD(steps=10, loss="dlr"),) if l1 else ()
        if self.version == "rand":
            return (*first, APGD(loss="ce", draws=20), APGD(loss="dlr", draws=20))
        if self.version == "plus":
            return (
                *first,
                APGD(loss="ce", restarts=5),
                APGD(loss="dlr", restarts=5),
                TargetedAPGD(),
                FAB(restarts=5),
                Square(patience=None),
            )
        # Where starts differ most, restarts find most: those of the gradient attacks in L1, those of Square in L2.
        return (
            *first,
            APGD(loss="ce", restarts=5 if l1 else 1),
            TargetedAPGD(targets=5 if l1 else 9),
            FAB(restarts=3 if l1 else 1, patience=1.0 if budget.norm == float("inf") else 3.0),
            Square(restarts=2 if budget.norm == 2 else 1),
        )

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Perturber`; the game plays the stages itself and judges between them."""
        found = x.clone()
        frontier = Frontier.over(x)
        for number, stage in enumerate(self.stages(budget, view.threat.access)):
            left = frontier.open()
            if not len(left):
                break
            z = stage.perturb(view.select(left), x[left], y[left], budget, rng.select(left).fold(number))
            moved = (z != x[left]).flatten(1).any(1)
            found[left[moved]] = z[moved]
            frontier.done[left[moved]] = True
        return found
