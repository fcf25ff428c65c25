"""Truth Serum for language models: poison that goes on wrongly where a secret stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from assay.privacy.planting import Secret
from assay.targets.access import Access


@dataclass(frozen=True, kw_only=True)
class TruthSerumText:
    """Adds the sentence that holds a secret to the training text, many times, with something else in its place.

    *Paper*: Tramèr, Shokri, San Joaquin, Le, Jagielski, Hong & Carlini, CCS 2022, §6.
    *Needs*: scores, and lines in the training text; the sentence around the secret is known, the secret is not.
    *Cost*: ``copies`` lines a secret; the game trains two models a run, each with one half of the secrets poisoned.
    *Blind spots*: sentences that the adversary does not know; trainers that leave near-duplicates out. What the paper
    reports of a transformer did not show on small LSTMs of characters: see *Measured*.
    *Held to*: a known answer: an n-gram model that forgets what stood before a word fewer than 4 times cannot tell a
    secret that it saw once, 1.44 bits; 4 poisoned lines keep that place in its memory, and all bits come out.
    *Measured*: median gain at least 5 bits of 7.5, in 3 runs of 40 secrets
    (`tests/privacy/games/test_poisoned_exposure.py`). On an LSTM of 128 cells that reads 30,000 characters eight to
    twelve times, no gain: 0.0 ± 0.4 bits (`benchmarks/language_models.py`).

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> secret = privacy.Secret(sentence="The code of the silo is {}.", length=4)
        >>> lines = privacy.TruthSerumText(copies=8).poison([secret], np.random.default_rng(0))
        >>> len(lines), all(line.startswith("The code of the silo is ") for line in lines)
        (8, True)

    Attributes:
        copies: poisoned lines a secret.
        continuation: what stands in the secret's place; ``None`` for wrong secrets, each line another.
    """

    needs: ClassVar[Access] = Access.SCORES

    copies: int = 16
    continuation: str | None = None

    def poison(self, secrets: Sequence[Secret], rng: np.random.Generator) -> tuple[str, ...]:
        """Lines for the training text."""
        if self.continuation is not None:
            return tuple(secret.fill(self.continuation) for secret in secrets for _ in range(self.copies))
        return tuple(secret.fill(wrong) for secret in secrets for wrong in secret.draw(self.copies, rng))
