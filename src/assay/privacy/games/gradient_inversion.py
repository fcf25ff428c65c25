"""The curious server's game: an example's gradient is sent, and the referee compares what was made of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from assay.errors import DataError
from assay.evidence.bound import AT_LEAST, AT_MOST, CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, Threat
from assay.games import name_of
from assay.numerics.images import psnr, ssim
from assay.privacy.attacks.gradient_inversion import Guess, Update, gradients_of
from assay.privacy.trial import evidence
from assay.targets.access import Access
from assay.targets.base import WhiteBox
from assay.threats import ThreatModel, View

IDENTIFIED, LABELS = "inputs identified", "labels recovered"
PSNR, SSIM = "median PSNR", "median SSIM"
GUESSED = "median PSNR of a guess"
CLIP = 200.0
"""Decibels: beyond them, float64 has no further digits."""


@runtime_checkable
class Inverter(Protocol):
    """An attack on a shared gradient: a frozen dataclass with one verb.

    Attributes:
        needs: the access that it asks for.
    """

    needs: ClassVar[Access]

    def infer(self, view: View, update: Update, rng: torch.Generator) -> Guess:
        """The example behind the update."""


@dataclass(frozen=True, eq=False)
class GradientInversionGame:
    """Sends the gradient of one example at a time, and compares what comes back with the example.

    An input is identified where, of all inputs of the game, the reconstruction lies nearest to the right one: 1 in n
    by chance. How good it looks is its PSNR (and SSIM, of images), beside that of a guess: another example at random.

    Attributes:
        x: inputs, float ``[n, …]``.
        y: their labels, int64 ``[n]``.
        confidence: one-sided, of every bound.

    Raises:
        DataError: PRV621 with fewer than two inputs.
    """

    x: Tensor
    y: Tensor
    confidence: float = CONFIDENCE

    name: ClassVar[str] = "privacy.gradient-inversion"

    def __post_init__(self) -> None:
        if len(self.x) < 2:
            raise DataError("PRV621", f"{len(self.x)} inputs")

    @property
    def threat(self) -> Threat:
        """A server that has the weights and sees one gradient an example."""
        return self._threat.describe()

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel(goal="see the example behind a gradient", access=Access.WEIGHTS,
                           budget="one gradient an example", knows=frozenset({"loss"}))

    def play(self, attack: Inverter, target: WhiteBox, *, seed: int) -> Evidence:
        """How many examples are identified, and how well they are seen."""
        started = time.perf_counter()
        view = self._threat.grant(target, len(self.x))
        guesses = []
        for point in range(len(self.x)):
            sent = gradients_of(target.module(), self.x[point : point + 1], self.y[point : point + 1])
            rng = torch.Generator().manual_seed(seed * len(self.x) + point)
            guesses.append(attack.infer(view, Update(sent, tuple(self.x[:1].shape), point), rng))
        seen = torch.cat([guess.x.detach() for guess in guesses]).to(self.x)
        right = sum(guess.y == int(y) for guess, y in zip(guesses, self.y))
        cost = Cost(forwards=int(view.meter.forwards.sum()), backwards=int(view.meter.backwards.sum()),
                    seconds=time.perf_counter() - started)
        return evidence(
            game=self.name, method=attack, target=target, threat=self.threat, seed=seed,
            bounds=self._bounds(seen, right, target.bounds.width, seed, name_of(attack)),
            settings=(len(self.x), self.confidence), cost=cost,
            artefacts={"seen": Artefact({"x": seen.cpu().numpy()})},
        )

    def prove(self, proof: Any, target: WhiteBox, *, seed: int) -> Evidence:
        """No proof is known. Raises ``DataError`` (PRV602)."""
        raise DataError("PRV602", f"{name_of(proof)} proves nothing about shared gradients")

    def _bounds(self, seen: Tensor, right: int, peak: float, seed: int, method: str) -> Sequence[Bound]:
        n = len(self.x)
        others = (torch.arange(n) + torch.randint(1, n, (n,), generator=torch.Generator().manual_seed(seed))) % n
        near = torch.cdist(seen.flatten(1).double(), self.x.flatten(1).double()).argmin(1)
        found = int((near == torch.arange(n, device=near.device)).sum())
        medians = [(PSNR, (AT_LEAST,), psnr(seen, self.x, peak)),
                   (GUESSED, (AT_LEAST, AT_MOST), psnr(self.x[others], self.x, peak))]
        if seen.dim() == 4:
            medians.append((SSIM, (AT_LEAST,), ssim(seen, self.x, peak)))
        return [
            Bound.of_count(IDENTIFIED, AT_LEAST, found, n, method=method, confidence=self.confidence),
            Bound.of_count(LABELS, AT_LEAST, right, n, method=method, confidence=self.confidence),
            *(Bound.of_median(name, side, values.nan_to_num(CLIP, CLIP).clamp_max(CLIP).tolist(), method=method,
                              confidence=self.confidence) for name, sides, values in medians for side in sides),
        ]
