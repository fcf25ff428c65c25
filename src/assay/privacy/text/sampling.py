"""How text is drawn from a language model: sampling schemes, ``(scores, step) -> scores``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TopKSampling:
    """The k likeliest tokens alone, at one temperature; ``k=1`` is greedy decoding.

    Source: Fan, Lewis & Dauphin (ACL 2018).

    Attributes:
        k: how many; ``None`` for all of them.
        temperature: what scores are divided by.
    """

    k: int | None = 40
    temperature: float = 1.0

    def __call__(self, scores: Tensor, step: Tensor) -> Tensor:
        """See :data:`~assay.targets.language_model.Sampling`; of equal scores the tokens that come first are kept."""
        scores = scores / self.temperature
        if self.k is None or self.k >= scores.shape[-1]:
            return scores
        kept = scores.argsort(dim=-1, descending=True, stable=True)[..., : self.k]
        return torch.full_like(scores, -torch.inf).scatter(-1, kept, scores.gather(-1, kept))


@dataclass(frozen=True, kw_only=True)
class DecayingTemperature:
    """Hot at first, for beginnings of all kinds; then cool, to follow each where the model knows it.

    Source: Carlini et al. (USENIX Security 2021), §5.1.1: from 10 to 1 over the first 20 tokens.

    Attributes:
        hot, cool: the temperature at the first token, and from token ``over`` on; linear in between.
        over: how many tokens it takes.
        k: as in :class:`TopKSampling`.
    """

    hot: float = 10.0
    cool: float = 1.0
    over: int = 20
    k: int | None = None

    def __call__(self, scores: Tensor, step: Tensor) -> Tensor:
        """See :data:`~assay.targets.language_model.Sampling`."""
        share = (step.to(scores.dtype) / self.over).clamp_max(1.0)
        temperature = self.hot + (self.cool - self.hot) * share
        return TopKSampling(k=self.k)(scores / temperature[..., None], step)
