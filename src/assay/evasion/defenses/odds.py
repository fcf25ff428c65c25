"""The odds are odd: noise moves the scores of an adversarial input back toward its true class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import torch
from torch import Tensor

from assay.evasion.defenses.detection import BATCH, Guard, Judged, Network, prepared, seeded, split
from assay.evasion.defenses.layered import refuse_settings
from assay.targets.access import Access
from assay.targets.base import Target
from assay.targets.defended import Parts


@dataclass(frozen=True, kw_only=True)
class StatisticalOdds:
    """Refuses inputs whose log-odds shift under noise as those of no natural input of the predicted class do."""

    sigma: float = 0.03
    draws: int = 256
    gradient_draws: int = 16
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
