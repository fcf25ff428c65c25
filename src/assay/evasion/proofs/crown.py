"""CROWN: linear bounds, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from assay.evasion.proofs.relaxation.linear import Slopes
from assay.evasion.proofs.relaxation.through import proved_radius
from assay.evasion.threat import Ball
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class CROWN:
    """Linear bounds from every unstable neuron back to the input; points go through the cheaper bounds first.

    *Paper*: Zhang et al., NeurIPS 2018; ``optimize``: Xu et al., ICLR 2021 (alpha-CROWN, fixed intermediate bounds).
    *Needs*: the weights.
    *Cost*: one backward pass an unstable neuron and class of the points that IBP and CROWN-IBP leave undecided.
    *Assumes*: networks of linear layers, convolutions, batch norm, ReLU, pooling, reshaping and additions, in eval
    mode; rounding is paid for, so the bound holds in floating point too.
    *Held to*: 26.88 % proved accuracy published of a CIFAR ResNet-2B at Linf 2/255, 10,000 images.
    *Measured*: 29.00 % on 300 of them (`tests/evasion/proofs/test_relaxation_published.py`).

    Example:
        >>> from assay import demo, evasion
        >>> net, x, y = demo.target(), *demo.digits("test[:50]")
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.005).threat())
        >>> game.prove(evasion.CROWN(), net, seed=0)["robust accuracy"].side
        'at least'

    Attributes:
        slopes: the lower relaxation of unstable ReLUs: ``"adaptive"`` is CROWN's, ``"parallel"`` Fast-Lin's, ``"best"``
            takes the better of the two for every neuron and margin.
        optimize: steps of gradient ascent on the slopes of pairs that are still undecided.
    """

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf"), 2, 1})

    slopes: Slopes = "adaptive"
    optimize: int = 0

    @property
    def failure(self) -> float:
        """A deterministic bound: it does not fail by chance."""
        return 0.0

    def certify(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Certifier`."""
        return proved_radius(view, x, y, budget, "crown", self.slopes, self.optimize)
