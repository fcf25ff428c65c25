"""Interval bound propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from assay.evasion.proofs.relaxation.through import proved_radius
from assay.evasion.threat import Ball
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class IBP:
    """Pushes an interval through every layer: loose, and cheap enough for anything.

    *Paper*: Gowal et al., 2018; Mirman et al., ICML 2018.
    *Needs*: the weights.
    *Cost*: about 2 forwards a point.
    *Assumes*: networks of linear layers, convolutions, batch norm, ReLU, pooling, reshaping and additions, in eval
    mode; rounding is paid for, so the bound holds in floating point too.
    *Held to*: an interval computed by hand.
    *Measured*: equal to 1e-12 (`tests/evasion/proofs/test_relaxation.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.005).threat())
        >>> game.prove(evasion.IBP(), net, seed=0)["robust accuracy"].side
        'at least'
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2, 1})

    @property
    def failure(self) -> float:
        """A deterministic bound: it does not fail by chance."""
        return 0.0

    def certify(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Certifier`."""
        return proved_radius(view, x, y, budget, "ibp")
