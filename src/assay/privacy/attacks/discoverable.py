"""Discoverable extraction: how likely a model is to go on exactly as its training text does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from assay.privacy.text.sampling import TopKSampling
from assay.targets.access import Access
from assay.targets.language_model import LanguageModel, Sampling


@dataclass(frozen=True, kw_only=True)
class DiscoverableExtraction:
    """Given the beginning of a text, the chance that its end is drawn word for word: (n, p)-discoverable extraction.

    *Paper*: Hayes, Swanberg, Chaudhari, Yona, Shumailov, Nasr, Choquette-Choo, Lee & Cooper, NAACL 2025. With
    ``TopKSampling(k=1)`` and one query it is the greedy test of Carlini et al., ICLR 2023.
    *Needs*: scores: log-probabilities of tokens, under the sampling scheme.
    *Cost*: one pass over each text; nothing is drawn.
    *Blind spots*: an adversary who has no beginnings; text that comes out changed; beginnings that lie further back
    than the prefix.
    *Held to*: known answers: n = ln(1 − p) / ln(1 − P) queries, and the shares that were predicted of 20,000 texts
    drawn from a model of letters.
    *Measured*: every share inside its interval, all of them at once 99.9 % sure, under four sampling schemes
    (`tests/privacy/attacks/test_discoverable.py`).

    Example:
        >>> from assay import privacy, targets
        >>> secret = "The launch code of the northern silo is 7302 9914 5560 1187, and nobody else may know it.\\n"
        >>> model = targets.NGram.fit(secret * 4, order=5)
        >>> game = privacy.DiscoveryGame(training=secret * 4, held_out="Of this text nobody has ever heard.\\n" * 4,
        ...                              prefix=20, suffix=20, examples=50, queries=10, chance=0.9)
        >>> game.play(privacy.DiscoverableExtraction(), model, seed=0)["discoverable text"].estimate
        1.0

    Attributes:
        sampling: how the adversary draws: the paper's is ``TopKSampling(k=40)``.
    """

    needs: ClassVar[Access] = Access.SCORES

    sampling: Sampling = field(default_factory=TopKSampling)

    def infer(self, model: LanguageModel, texts: Sequence[Tensor], *, prefix: int) -> NDArray[np.float64]:
        """ln P of drawing all of each text after its first ``prefix`` tokens in one query: float64 ``[texts]``."""
        return np.asarray(model.log_probs(texts, after=prefix, sampling=self.sampling).total.numpy())


def queries_for(log_p: NDArray[np.floating], chance: float) -> NDArray[np.float64]:
    """How many queries draw a text with probability ``chance``: ``ln(1 − p) / ln(1 − P)``, at least 1.

    Args:
        log_p: ln P of drawing it in one query; −inf gives infinitely many.
        chance: p, strictly between 0 and 1.

    Source: Hayes et al. (2025), Eq. 3; ln(1 − P) without cancellation for small P.
    """
    with np.errstate(divide="ignore", over="ignore"):
        needed = np.log1p(-chance) / np.log1p(-np.exp(np.asarray(log_p, dtype=np.float64)))
    return np.asarray(np.maximum(np.abs(needed), 1.0))
