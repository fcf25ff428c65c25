"""The certified radius of randomized smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from scipy.special import ndtri
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.threat import TARGETED, Ball
from assay.numerics.intervals import clopper_pearson_lower
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds
from assay.threats import View

_ROUNDING = 1e-9
"""What the radius gives up, relatively: quantiles are rounded, and the theorem's ball is open, a budget closed."""


@dataclass(frozen=True, kw_only=True)
class SmoothingRadius:
    """Proves, but for a chance of ``alpha`` a point, how far the vote of a smoothed target cannot be turned.

    A first sample of ``n0`` votes names the class; a second, independent one of ``n`` bounds its share from below, as
    p (Clopper & Pearson, 1934); the radius is sigma·Φ⁻¹(p) in L2 where p > 1/2, and the proof abstains elsewhere.
    The same radius R holds in L1, whose balls lie inside those of L2; R/√d in Linf over d coordinates; and in L0 as
    many coordinates may change as, each moved across its room in the box, stay within R.

    *Paper*: Cohen, Rosenfeld & Kolter, ICML 2019 (CERTIFY; Theorem 1).
    *Needs*: labels of the model under noise, so a target under :class:`~assay.evasion.defenses.smoothing.Smoothing`.
    *Cost*: ``n0`` forwards a point, and ``n`` more where the class is right, once for all radii of a curve.
    *Assumes*: Gaussian noise as good as torch's generator; a model that looks at each copy by itself. It is a
    statement about the ideal vote, of which the deployed one is a sample of finite size. Rounding inside the model
    is not accounted for (Voráček & Hein, ICLR 2023).
    *Held to*: σ·Φ⁻¹(α^{1/n}), the paper's radius when all n votes agree.
    *Measured*: equal to 1e-8; within 12 % of the truth on linear models (`tests/evasion/test_smoothing.py`).

    Example:
        >>> from assay import demo, evasion
        >>> x, y = demo.digits("test[:20]")
        >>> safe = evasion.Smoothing(sigma=0.25, n=100).protect(demo.target(noise=0.25))
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(8 / 255).threat())
        >>> print(game.prove(evasion.SmoothingRadius(n=1000), safe, seed=0)["robust accuracy"].side)
        at least

    Attributes:
        n: votes that bound the share; the radius cannot exceed sigma·Φ⁻¹(alpha^(1/n)).
        n0: votes that name the class.
        alpha: the chance that one point's radius is too large.
    """

    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[frozenset[float]] = frozenset({2, 1, float("inf"), 0})
    once: ClassVar[Literal[True]] = True

    n: int = 10_000
    n0: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not (min(self.n, self.n0) >= 1 and 0 < self.alpha < 1):
            raise ConfigError("PRF121", f"{self} cannot be used")

    @property
    def failure(self) -> float:
        """``alpha``: the chance that the share of the named class was overestimated."""
        return self.alpha

    def certify(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """See :class:`~assay.evasion.methods.Certifier`. Raises ``TargetError`` (PRF120) on a target without noise."""
        at, sigma = torch.arange(len(x), device=x.device), view.sigma
        lengths = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        named = view.votes(x, at, self.n0, rng.fold("select")).argmax(1)
        held = named != y if view.threat.goal == TARGETED else named == y
        rows = held.nonzero()[:, 0]
        if len(rows):
            votes = view.votes(x[rows], at[rows], self.n, rng.select(rows).fold("estimate"))
            own = _column(votes, named[rows])
            lengths[rows] = torch.tensor([self.radius(k, sigma) for k in own], dtype=torch.float64, device=x.device)
        return _in_norm(lengths, budget.norm, x, view.bounds)

    def radius(self, votes: int, sigma: float) -> float:
        """The L2 radius that this many of ``n`` votes prove; ``-inf`` where they prove no majority."""
        share = clopper_pearson_lower(votes, self.n, 1 - self.alpha)
        return sigma * float(ndtri(share)) * (1 - _ROUNDING) if share > 0.5 else -math.inf


def _column(votes: Tensor, classes: Tensor) -> list[int]:
    """Each row's votes for its class; a class beyond the columns got none."""
    wide = torch.nn.functional.pad(votes, (0, max(int(classes.max()) + 1 - votes.shape[1], 0)))
    own: list[int] = wide.gather(1, classes[:, None])[:, 0].tolist()
    return own


def _in_norm(lengths: Tensor, norm: float, x: Tensor, bounds: Bounds) -> Tensor:
    """Radii in this norm from L2 radii, ``[points]``."""
    if norm == math.inf:
        return lengths / math.sqrt(x[0].numel()) if len(x) else lengths
    if norm == 0:
        flat = x.flatten(1).to(lengths.dtype)
        room = torch.maximum(flat - bounds.lower, bounds.upper - flat).square()
        farthest = room.sort(1, descending=True).values.cumsum(1)
        count = (farthest <= lengths.square()[:, None]).sum(1).to(lengths.dtype)
        return torch.where(lengths >= 0, count, lengths)
    return lengths
