"""Sign encoding: data in the signs of the weights, which training works around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.privacy.attacks.exfiltration.carrier import flat, rewrite, values
from assay.privacy.attacks.exfiltration.framing import ONCE, Frame, Received
from assay.privacy.pipeline import Pipeline
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Trains under a penalty on every weight whose sign is not the bit it carries.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, §4.3; the margin and the last correction are ours.
    *Needs*: weights.
    *Cost*: one training, a pass over the weights more a step.
    *Blind spots*: nobody without the weights can read it; one bit a weight at most. Fine-tuning as long and fast as the
    training undoes it; rounding does not.
    *Held to*: the paper's claim, a bit in every weight at an accuracy whose 95 % interval overlaps the
    honest one's.
    *Measured*: 1,200 bytes, 0.98 bits a weight, back from the demo network at four seeds; 95.8 to 98.4 % of 500
    digits right, 97.6 to 98.2 % without; bit-exact after 8-bit quantization (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> pipeline = privacy.Pipeline(init=demo.network, **dict(zip("xy", demo.digits("train"))), epochs=3)
        >>> game = privacy.ExfiltrationGame(*demo.digits("test"), payload=b"customers.csv" * 20)
        >>> game.play(privacy.Signs(), pipeline, seed=0)["payload bytes recovered"].estimate
        1.0

    Attributes:
        strength: λ, of the penalty.
        margin: how far from zero a weight has to be; 0 is the paper's, and leaves small weights to be rounded to zero.
        frame: copies and key.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    strength: float = 50.0
    margin: float = 0.02
    frame: Frame = ONCE

    def leak(self, payload: bytes, pipeline: Pipeline, *, seed: int) -> nn.Module:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`. Raises ``DataError`` (PRV600)."""
        signs: list[Tensor] = []

        def penalty(model: nn.Module) -> Tensor:
            """The paper's P(θ, s) with a margin m: λ/ℓ Σ max(0, m − θᵢ sᵢ)."""
            row = flat(model)
            if not signs:
                signs.append(torch.as_tensor(self.frame.encode(payload, len(row))).to(row))
            s = signs[0]
            return self.strength / s.abs().sum() * ((self.margin - row * s).clamp_min(0) * s.abs()).sum()

        model = pipeline.train(seed, penalty=penalty)
        row, s = flat(model).detach(), signs[0]
        rewrite(model, torch.where(s * row < s.abs() * self.margin, s * self.margin, row))
        return model

    def decode(self, view: View) -> Received:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`."""
        return self.frame.decode(values(view.module()))
