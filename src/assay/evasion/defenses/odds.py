"""The odds are odd: noise moves the scores of an adversarial input back toward its true class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import torch
from torch import Tensor

from assay.evasion.defenses.detection import BATCH, Guard, Judged, prepared, seeded, split
from assay.evasion.defenses.layered import refuse_settings
from assay.targets.access import Access
from assay.targets.base import Target
from assay.targets.defended import Parts
from assay.targets.differentiable import Network


@dataclass(frozen=True, kw_only=True)
class StatisticalOdds:
    """Refuses inputs whose log-odds shift under noise as those of no natural input of the predicted class do.

    *Paper*: Roth, Kilcher & Hofmann, ICML 2019, "The odds are odd", with one noise level and one threshold for all
    pairs of classes; their correction of the label is left out: what is suspect is refused. Hosseini, Kannan &
    Poovendran, 2019, and Tramèr et al., NeurIPS 2020, break it by imitating the scores of natural inputs.
    *Needs*: scores, and natural inputs with labels; gradients for an attack on it.
    *Cost*: 1 + ``draws`` forwards a query, 1 + ``gradient_draws`` forwards and backwards a gradient.
    *Blind spots*: inputs that are wrong with little confidence, which noise moves no farther than natural ones; attacks
    that know it.
    *Held to*: the shifts of a linear model; 95 % of CIFAR-10 images lost to an attack that knows it, at Linf 8/255 and
    5 % false positives.
    *Measured*: the shifts to 10 % (`tests/evasion/defenses/test_detection.py`); of 40 images PGD on the joint margin
    leaves 0 %, feature collision with its refinement 0 % (`benchmarks/detectors.py`).

    The noise is drawn from torch's global random numbers, which a game seeds and hands back.

    Example:
        >>> from assay import demo, evasion
        >>> net, (x, y) = demo.target(), demo.digits("test")
        >>> guard = evasion.StatisticalOdds(sigma=0.1, draws=32).fit(net, *demo.digits("train"))
        >>> safe, (low, high) = guard.protect(net), guard.rate.interval
        >>> refused = safe.labels(x) == safe.classes
        >>> low - 0.02 < float(refused.float().mean()) < high + 0.02
        True

    Attributes:
        sigma: the noise's standard deviation, in the units of the data.
        draws: noisy copies a query.
        gradient_draws: noisy copies a gradient.
        false_positives: the share of natural inputs that may be refused.
    """

    sigma: float = 0.01
    draws: int = 64
    gradient_draws: int = 4
    false_positives: float = 0.05

    def __post_init__(self) -> None:
        refuse_settings(self, holds=self.sigma > 0 and min(self.draws, self.gradient_draws) >= 1
                        and 0 <= self.false_positives < 1)

    def fit(self, target: Target, x: Tensor, y: Tensor, *, seed: int = 0) -> Guard:
        """The detector for ``target``, from natural inputs ``x [n, …]`` and their labels.

        Of the inputs, half (drawn by ``seed``) give the statistics of the shifts, half set the threshold.
        """
        x, y = prepared(target, x, y, Access.SCORES)
        learned, held = split(x, 0.5, seed)
        refuse_settings(self, holds=len(learned) >= 2)
        with seeded(seed, target):
            detector = Odds.fitted(self, target, x[learned], y[learned])
        return Guard.calibrated(detector, target, x[held], self.false_positives, seed)


@dataclass(frozen=True, eq=False)
class Odds:
    """A fitted :class:`StatisticalOdds`.

    Attributes:
        mean: of the shift of the log-odds of class ``z`` against class ``y``, over natural inputs of class ``y``:
            ``[classes, classes]``.
        width: its standard deviation.
    """

    settings: StatisticalOdds
    mean: Tensor
    width: Tensor

    @classmethod
    def fitted(cls, settings: StatisticalOdds, target: Target, x: Tensor, y: Tensor) -> Self:
        """The statistics of natural inputs (Roth et al., 2019, Eq. 7).

        A class with fewer than two examples has the statistics of all of them.
        """
        network, size, draws = Network(target), max(BATCH // settings.draws, 1), settings.draws
        with torch.no_grad():
            parts = [shifts(network, x[i : i + size], settings.sigma, draws)[1] for i in range(0, len(x), size)]
        shift = torch.cat(parts)
        odds = shift[:, None, :] - shift[:, :, None]  # of z against y: [n, y, z]
        mean, width = odds.mean(0), odds.std(0)
        for c in range(shift.shape[1]):
            if int((y == c).sum()) > 1:
                mean[c], width[c] = odds[y == c, c].mean(0), odds[y == c, c].std(0)
        return cls(settings, mean, width.clamp_min(1e-6))

    @property
    def name(self) -> str:
        """How evidence calls it."""
        return "statistical odds"

    @property
    def parts(self) -> Parts:
        """Every look draws new noise."""
        return Parts(randomness=True)

    def looks(self, *, climbing: bool) -> int:
        """The input and its noisy copies."""
        return 1 + (self.settings.gradient_draws if climbing else self.settings.draws)

    def judge(self, network: Network, x: Tensor, *, climbing: bool, informed: bool) -> Judged:
        """The largest standardized shift of the log-odds of any class against the predicted one (Eq. 8)."""
        scores, shift = shifts(network, x, self.settings.sigma, self.looks(climbing=climbing) - 1)
        own = scores.argmax(1)
        odds = shift - shift.gather(1, own[:, None])
        standardized = (odds - self.mean[own].to(odds)) / self.width[own].to(odds)
        return Judged(scores, standardized.scatter(1, own[:, None], -torch.inf).amax(1))

    def state(self) -> dict[str, object]:
        """The settings and the statistics."""
        return {**asdict(self.settings), "mean": self.mean, "width": self.width}


def shifts(network: Network, x: Tensor, sigma: float, draws: int) -> tuple[Tensor, Tensor]:
    """Scores, and by how much Gaussian noise moves them on average: ``[rows, classes]`` each."""
    noise = torch.randn(draws, *x.shape, dtype=x.dtype, device=x.device) * sigma
    scores = network(torch.cat([x[None], x + noise]).flatten(0, 1)).reshape(draws + 1, len(x), -1)
    return scores[0], scores[1:].mean(0) - scores[0]
