"""Training-data extraction: let the model write, and pick out what it has by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from assay.numerics.seeds import Stream
from assay.privacy.text.language import generate
from assay.privacy.text.ranking import Ranking, Reading, Zlib
from assay.privacy.text.sampling import TopKSampling
from assay.targets.access import Access
from assay.targets.language_model import LanguageModel, Sampling


class Extracted(NamedTuple):
    """What an extraction attack hands to the referee.

    Attributes:
        samples: every text the model wrote, drawn independently.
        guesses: places in ``samples``, the likeliest training text first, near-duplicates left out.
    """

    samples: tuple[str, ...]
    guesses: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Prompts:
    """Stretches of a text that the adversary has, such as pages of the same kind from the web.

    Attributes:
        text: where they are taken from.
        length: tokens in each; the paper's are 5 to 10 words.
    """

    text: str = ""
    length: int = 40

    def __repr__(self) -> str:
        return f"Prompts({self.length} of {len(self.text)}, {sha256(self.text.encode()).hexdigest()[:8]})"

    def drawn(self, model: LanguageModel, rows: int, rng: Stream) -> Tensor:
        """One stretch a row from anywhere in the text: int64 ``[rows, length]``; of no text, no tokens."""
        known = model.encode(self.text)
        width = min(self.length, len(known))
        at = rng.integers(len(known) - width + 1, rows)[0]
        return known[at[:, None] + torch.arange(width)] if width else torch.empty(rows, 0, dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Draws many texts from a language model and ranks them by how much better it knows them than it should.

    *Paper*: Carlini et al., USENIX Security 2021.
    *Needs*: scores: continuations and log-probabilities of tokens.
    *Cost*: ``samples × length`` tokens written and as many read again for the ranking (twice with
    :class:`~assay.privacy.text.ranking.Lowercase`).
    *Blind spots*: text that is memorized but not reached from these prompts (``privacy.discoverable`` begins from the
    training text itself); paraphrase: only word for word counts.
    *Held to*: a 5-gram model that has one continuation everywhere writes its text, 100 % verbatim; zlib and reference
    ratio rank planted secrets above others with AUC above 0.9.
    *Measured*: 100 % (`tests/privacy/attacks/test_extraction.py`). An LSTM that has learned 12,000 characters of
    Shakespeare by heart writes 50 of them in a row in 51 % of 300 samples and 78 % of the first 100 guesses, and no
    held-out text; planted secrets are ranked with AUC 0.974 and 0.967 (`tests/privacy/games/test_language_models.py`).

    Example:
        >>> from assay import privacy, targets
        >>> secret = "The launch code of the northern silo is 7302 9914 5560 1187, and nobody else may know it.\\n"
        >>> model = targets.NGram.fit(secret * 3, order=5)
        >>> game = privacy.ExtractionGame(training=secret, held_out="Nothing of the kind was ever written here.\\n")
        >>> found = game.play(privacy.Extraction(samples=20, length=80), model, seed=0)
        >>> found["verbatim samples"].estimate > 0.5
        True

    Attributes:
        samples: texts drawn.
        length: tokens in each, its prompt not counted.
        sampling: how they are drawn: :class:`~assay.privacy.text.sampling.TopKSampling` or
            :class:`~assay.privacy.text.sampling.DecayingTemperature`.
        prompts: text to go on from; ``None`` to begin from the model's start.
        ranking: which samples are guessed first.
        batch: rows written at once.
    """

    needs: ClassVar[Access] = Access.SCORES

    samples: int = 1000
    length: int = 256
    sampling: Sampling = field(default_factory=TopKSampling)
    prompts: Prompts | None = None
    ranking: Ranking = field(default_factory=Zlib)
    batch: int = 256

    def infer(self, model: LanguageModel, rng: Stream) -> Extracted:
        """Samples, and which of them to guess first.

        Args:
            model: as the game lets the adversary see it.
            rng: a single stream.
        """
        prompts = (self.prompts or Prompts()).drawn(model, self.samples, rng.fold("prompts"))
        streams = rng.select(torch.zeros(self.samples, dtype=torch.int64)).fold(torch.arange(self.samples))
        samples: list[str] = []
        for first in range(0, self.samples, self.batch):
            rows = torch.arange(first, min(first + self.batch, self.samples))
            written = generate(model, prompts[rows], self.length, self.sampling, streams.select(rows))
            samples += [model.decode(text) for text in written]
        return Extracted(tuple(samples), self._guesses(model, samples))

    def _guesses(self, model: LanguageModel, samples: Sequence[str]) -> tuple[int, ...]:
        """The samples in the order of the ranking, each unlike those before it; empty ones are no guesses."""
        said = [place for place, text in enumerate(samples) if len(model.encode(text)) > 1]
        if not said:
            return ()
        ranks = self.ranking.rank(Reading(model, [samples[place] for place in said]))
        order = (-ranks).argsort(kind="stable")
        return tuple(said[order[kept]] for kept in distinct([samples[said[place]] for place in order]))


def distinct(texts: Sequence[str], *, share: float = 0.5) -> list[int]:
    """Places of the texts that repeat none before them: fewer than ``share`` of their trigrams of words.

    Source: Carlini et al. (USENIX Security 2021), §5.2 and appendix: multisets of trigrams. A text of fewer than three
    words is compared as a whole.
    """
    kept: list[int] = []
    holders: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for place, text in enumerate(texts):
        grams = _trigrams(text)
        shared: Counter[int] = Counter()
        for gram, times in grams.items():
            for holder, theirs in holders.get(gram, ()):
                shared[holder] += min(times, theirs)
        if shared and max(shared.values()) >= share * grams.total():
            continue
        kept.append(place)
        for gram, times in grams.items():
            holders.setdefault(gram, []).append((place, times))
    return kept


def _trigrams(text: str) -> Counter[tuple[str, ...]]:
    words = text.split()
    if len(words) < 3:
        return Counter([tuple(words)])
    return Counter(zip(words, words[1:], words[2:]))
