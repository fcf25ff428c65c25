"""Exposure: the true secret among all that could have been, by likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from assay.privacy.text.ranking import Perplexity, Ranking, Ranks, Reading
from assay.targets.access import Access
from assay.targets.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Ranks every secret that could have been by how well the model knows its sentence.

    *Paper*: Carlini, Liu, Erlingsson, Kos & Song, USENIX Security 2019.
    *Needs*: scores: log-probabilities of tokens.
    *Cost*: one pass over each candidate's sentence.
    *Blind spots*: secrets whose format the adversary does not know; a model that hides what it knows.
    *Held to*: known answers: rank 1 of 2^k references is k bits, and secrets that were not inserted have
    1 / ln 2 = 1.44 bits in the mean.
    *Measured*: both (`tests/privacy/test_exposure.py`). An LSTM that has read 250,000 characters three times exposes
    secrets planted 0, 1, 4 and 16 times by 1.2, 4.9, 9.7 and 10 bits of 10 in the mean
    (`tests/privacy/games/test_language_models.py`).

    Example:
        >>> from assay import privacy, targets
        >>> canaries = privacy.text_canaries([4] * 6, seed=0)
        >>> text = privacy.planted("\\n".join(["nothing to see here"] * 50), [c.text for c in canaries] * 4, seed=0)
        >>> game = privacy.ExposureGame(canaries=canaries, references=255)
        >>> found = game.play(privacy.Exposure(), targets.NGram.fit(text, order=7), seed=0)
        >>> found["median exposure"].estimate > 7.9
        True

    Attributes:
        by: the ranking of candidates; the paper's is perplexity.
    """

    needs: ClassVar[Access] = Access.SCORES

    by: Ranking = field(default_factory=Perplexity)

    def infer(self, model: LanguageModel, texts: Sequence[str]) -> Ranks:
        """A score a candidate, float64 ``[texts]``: the higher, the likelier it was trained on."""
        return self.by.rank(Reading(model, texts))
