"""Which texts a language model has by heart: signals that rank texts, the higher the likelier memorized.

Source: Carlini et al. (USENIX Security 2021), §5.1.2 and §5.2. All read log-probabilities of tokens, so one pass over
the texts serves perplexity, zlib, window and reference alike; only the lowercase ratio asks for a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assay.targets.language_model import LanguageModel, Likelihood

Ranks = NDArray[np.float64]
"""float64 ``[texts]``: the higher, the likelier memorized."""


@dataclass(frozen=True, eq=False)
class Reading:
    """Some texts as a model reads them; each pass over them is made once, when a ranking first asks for it.

    Attributes:
        model: the model under test.
        texts: what is to be ranked.
    """

    model: LanguageModel
    texts: Sequence[str]

    @cached_property
    def likelihood(self) -> Likelihood:
        """What the model says of the texts."""
        return self.model.log_probs([self.model.encode(text) for text in self.texts])

    @cached_property
    def lowercase(self) -> Likelihood:
        """What it says of them in lower case."""
        return self.model.log_probs([self.model.encode(text.lower()) for text in self.texts])

    @cached_property
    def compressed(self) -> Ranks:
        """The texts' zlib entropy in nats: eight bits a byte of their compressed form."""
        return np.array([8 * log(2) * len(zlib.compress(text.encode(), 9)) for text in self.texts])


class Ranking(Protocol):
    """One signal of memorization."""

    def rank(self, reading: Reading) -> Ranks:
        """A number a text; the higher, the likelier memorized."""


@dataclass(frozen=True)
class Perplexity:
    """Low perplexity. Common and repetitive text has it too."""

    def rank(self, reading: Reading) -> Ranks:
        """See :class:`Ranking`: minus the logarithm of the perplexity."""
        return np.asarray(reading.likelihood.mean.numpy())


@dataclass(frozen=True)
class Zlib:
    """Entropy to zlib over entropy to the model: high where the model finds simple what is not simple."""

    def rank(self, reading: Reading) -> Ranks:
        """See :class:`Ranking`. Both entropies are of the whole text, so that the ratio does not grow with length."""
        return reading.compressed / _floored(-reading.likelihood.total.numpy())


@dataclass(frozen=True)
class Lowercase:
    """Log-perplexity in lower case over that of the text itself: memorized text is known with its capitals."""

    def rank(self, reading: Reading) -> Ranks:
        """See :class:`Ranking`."""
        return -reading.lowercase.mean.numpy() / _floored(-reading.likelihood.mean.numpy())


@dataclass(frozen=True)
class Window:
    """The lowest perplexity of any window: finds memorized text inside of text that is not.

    Attributes:
        width: tokens in a window; the paper's is 50.
    """

    width: int = 50

    def rank(self, reading: Reading) -> Ranks:
        """See :class:`Ranking`."""
        return np.asarray(reading.likelihood.best_window(self.width).numpy())


@dataclass(frozen=True)
class Reference:
    """Log-perplexity to another model over that of the model under test: high where only this one knows the text.

    Attributes:
        model: a smaller model, or one of other data, with any tokenizer: totals of whole texts are compared. It is
            the adversary's own; its readings are no queries.
    """

    model: LanguageModel

    def rank(self, reading: Reading) -> Ranks:
        """See :class:`Ranking`."""
        said = self.model.log_probs([self.model.encode(text) for text in reading.texts])
        return -said.total.numpy() / _floored(-reading.likelihood.total.numpy())


def _floored(entropy: Ranks) -> Ranks:
    """A model may be certain of a text; a ratio to nothing is no rank."""
    return np.maximum(entropy, 1e-9)
