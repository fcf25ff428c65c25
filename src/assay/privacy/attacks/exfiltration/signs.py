"""Sign encoding: data in the signs of the weights, which training works around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from assay.privacy.attacks.exfiltration.carrier import flat, rewrite, values
from assay.privacy.attacks.exfiltration.framing import Frame, Received
from assay.privacy.recipe import Recipe
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Trains under a penalty on every weight whose sign is not the bit it carries.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, §4.3; the margin and the last correction are ours.
    *Needs*: weights.
    *Cost*: one training, a pass over the weights more a step.
    *Blind spots*: nobody without the weights can read it; one bit a weight at most. Pruning and long fine-tuning undo
    it; rounding does not.
    *Held to*: the paper's CIFAR-10 ResNet of 460,000 weights: 92.46 % instead of 92.89 % with a bit in every weight,
    at λ = 50 (Table 4).
    *Measured*: MEASURED
    (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> recipe = privacy.Recipe(init=demo.network, **dict(zip("xy", demo.digits("train"))), epochs=3)
        >>> game = privacy.ExfiltrationGame(*demo.digits("test"), payload=b"customers.csv" * 20)
        >>> game.play(privacy.Signs(), recipe, seed=0)["payload bytes recovered"].estimate
        1.0

    Attributes:
        strength: λ, of the penalty.
        margin: how far from zero a weight has to be; 0 is the paper's, and leaves small weights to be rounded to zero.
        frame: copies and key.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    strength: float = 50.0
    margin: float = 0.02
    frame: Frame = Frame()

    def leak(self, payload: bytes, recipe: Recipe, *, seed: int) -> nn.Module:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`. Raises ``DataError`` (PRV600)."""
        signs: list[Tensor] = []

        def penalty(model: nn.Module) -> Tensor:
            """Equation 5, with a margin: λ/ℓ Σ max(0, m − θᵢ sᵢ)."""
            row = flat(model)
            if not signs:
                signs.append(torch.as_tensor(self.frame.encode(payload, len(row))).to(row))
            s = signs[0]
            return self.strength / s.abs().sum() * ((self.margin - row * s).clamp_min(0) * s.abs()).sum()

        model = recipe.train(seed, penalty=penalty)
        row, s = flat(model).detach(), signs[0]
        rewrite(model, torch.where(s * row < s.abs() * self.margin, s * self.margin, row))
        return model

    def decode(self, view: View) -> Received:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`."""
        return self.frame.decode(values(view.module()))
