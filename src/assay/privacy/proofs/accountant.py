"""Privacy accountants: the ε that a mechanism cannot exceed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scipy.optimize import brentq

from assay.errors import ConfigError, nearest
from assay.evidence.bound import AT_MOST, Bound
from assay.privacy.accounting.gaussian import delta_of_gaussian, epsilon_of_gaussian
from assay.privacy.accounting.loss import DIRECTIONS, privacy_loss
from assay.privacy.accounting.renyi import ORDERS, divergences, epsilon_of
from assay.privacy.mechanisms import Gaussian, Mechanism, Renyi, SampledGaussian, adjacency

Method = Literal["pld", "rdp", "rdp-classic", "gdp"]

CERTAIN = 1 - 1e-12
"""The confidence of a bound that is a theorem: what is left is arithmetic."""

_SAID = {
    "pld": "privacy loss distribution",
    "rdp": "RDP, improved conversion (Canonne et al. 2020)",
    "rdp-classic": "RDP, classic conversion (Mironov 2017)",
    "gdp": "exact Gaussian DP",
}


@dataclass(frozen=True)
class Accountant:
    """Adds up what every noisy release can have given away, and says the ε that the whole cannot exceed.

    *Paper*: ``"pld"``: Koskela, Jälkö & Honkela, AISTATS 2020, on the grid of Doroshenko et al., PoPETs 2022;
    ``"rdp"``: Mironov, CSF 2017, and Mironov, Talwar & Zhang, 2019; ``"gdp"``: Balle & Wang, ICML 2018.
    *Needs*: the mechanism; no model and no data.
    *Cost*: milliseconds; a second for 100,000 steps.
    *Assumes*: that the procedure draws the noise it says, clips every example to the sensitivity, and samples each
    example by itself (Poisson), not by shuffling; real numbers, not floats; neighbors differ by one added or removed
    example.
    *Held to*: eight published settings of DP-SGD at ε = 3 (Tramèr & Boneh, ICLR 2021), 2.992 to 3.003 with the
    classic conversion; the exact 1.993, 4.377 and 9.997 of Gaussian mechanisms with μ = 0.5, 1 and 2; dp-accounting
    0.6.0 and Opacus 1.6.0.
    *Measured*: the same within 1e-3 (`tests/privacy/proofs/test_accountant.py`).

    Example:
        >>> from assay import privacy
        >>> steps = privacy.SampledGaussian(noise=1.1, rate=256 / 60_000, steps=14_062)
        >>> round(privacy.Accountant("rdp-classic").epsilon(steps, delta=1e-5), 2)
        3.01
        >>> round(privacy.Accountant().epsilon(steps, delta=1e-5), 2)
        2.38

    Attributes:
        method: ``"pld"``, the tightest; ``"rdp"`` and ``"rdp-classic"`` by the conversion to (ε, δ); ``"gdp"``, exact,
            for Gaussian releases without sampling.
    """

    method: Method = "pld"

    def __post_init__(self) -> None:
        if self.method not in _SAID:
            raise ConfigError("CFG134", f"there is no accountant {self.method!r}{nearest(self.method, _SAID)}")

    def certify(self, mechanism: Mechanism, *, delta: float, n: int = 0) -> Bound:
        """``epsilon@delta=…`` at most …

        Args:
            mechanism: what was released.
            delta: the chance with which the guarantee may fail; below one over the number of examples.
            n: how many examples the guarantee is about.

        Raises:
            ConfigError: PRV202, PRV203 where this method cannot account for the mechanism, PRV204 for a wrong δ.
        """
        epsilon = self.epsilon(mechanism, delta=delta)
        return Bound(quantity=f"epsilon@delta={delta:g}", side=AT_MOST, estimate=epsilon, value=epsilon,
                     confidence=CERTAIN, n=n, method=f"{_SAID[self.method]}, {adjacency(mechanism)}")

    def epsilon(self, mechanism: Mechanism, *, delta: float) -> float:
        """The ε of :meth:`certify`; ``inf`` where the mechanism keeps nothing private."""
        if not 0 < delta < 1:
            raise ConfigError("PRV204", f"delta = {delta}")
        match self.method:
            case "gdp":
                return epsilon_of_gaussian(_exact(mechanism), delta)
            case "pld":
                return max(privacy_loss(mechanism, way, tail=delta * 1e-4).epsilon(delta) for way in DIRECTIONS)
            case "rdp" | "rdp-classic":
                orders = _orders(mechanism)
                curve = divergences(mechanism, orders)
                return epsilon_of(orders, curve, delta, "improved" if self.method == "rdp" else "classic")[0]

    def delta(self, mechanism: Mechanism, *, epsilon: float) -> float:
        """The δ that goes with this ε, at most."""
        match self.method:
            case "gdp":
                return delta_of_gaussian(_exact(mechanism), epsilon)
            case "pld":
                return max(privacy_loss(mechanism, way).delta(epsilon) for way in DIRECTIONS)
            case "rdp" | "rdp-classic":
                return _inverted(lambda delta: self.epsilon(mechanism, delta=delta), epsilon)

    def noise(self, *, epsilon: float, delta: float, rate: float, steps: int) -> float:
        """The least noise multiplier (to 1e-4, rounded up) with which DP-SGD stays within (ε, δ).

        Args:
            rate: the chance with which each example enters a step.
            steps: how many.

        Raises:
            ConfigError: PRV204 where no noise below 10,000 suffices.
        """
        def excess(noise: float) -> float:
            return self.epsilon(SampledGaussian(noise=noise, rate=rate, steps=steps), delta=delta) - epsilon

        high = 0.5
        while excess(high) > 0:
            if (high := high * 2) > 1e4:
                raise ConfigError("PRV204", f"no noise keeps {steps} steps at rate {rate} within epsilon = {epsilon}")
        low = high / 2
        while low > 1e-2 and excess(low) <= 0:
            low, high = low / 2, low
        noise = math.ceil(brentq(excess, low, high, xtol=1e-5) * 1e4 if excess(low) > 0 else low * 1e4) / 1e4
        return noise if excess(noise) <= 0 else noise + 1e-4


def _exact(mechanism: Mechanism) -> float:
    """The μ of a composition of plain Gaussians."""
    squares = 0.0
    for part in mechanism.parts:
        if not isinstance(part, Gaussian):
            raise ConfigError("PRV203", f"{part} is not a Gaussian mechanism without sampling")
        squares += part.mu**2
    return math.sqrt(squares)


def _orders(mechanism: Mechanism) -> tuple[float, ...]:
    """Where the curve is looked at: a part known by its divergences says where."""
    for part in mechanism.parts:
        if isinstance(part, Renyi):
            return part.orders
    return ORDERS


def _inverted(epsilon: Callable[[float], float], wanted: float) -> float:
    """The δ at which a decreasing ``epsilon(δ)`` is what is wanted, on a logarithmic scale."""
    low, high = -200.0, math.log(1 - 1e-12)
    if epsilon(math.exp(high)) > wanted:
        return 1.0
    if epsilon(math.exp(low)) <= wanted:
        return math.exp(low)
    return math.exp(brentq(lambda log_delta: epsilon(math.exp(log_delta)) - wanted, low, high, xtol=1e-9))
