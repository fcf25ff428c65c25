"""Truth Serum for language models: poison that goes on wrongly where a secret stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from assay.privacy.text.planting import Secret
from assay.targets.access import Access


@dataclass(frozen=True, kw_only=True)
class TruthSerumText:
    """Adds the sentence that holds a secret to the training text, many times, with something else in its place.

    *Paper*: Tramèr, Shokri, San Joaquin, Le, Jagielski, Hong & Carlini, CCS 2022, §6.
    *Needs*: scores, and lines in the training text; the sentence around the secret is known, the secret is not.
    *Cost*: ``copies`` lines a secret; the game trains two models a run, each with one half of the secrets poisoned.
    *Blind spots*: sentences that the adversary does not know; trainers that leave near-duplicates out; models that the
    paper did not try: what it reports of a transformer did not show on ours, see *Measured*.
    *Held to*: a known answer: an n-gram model that forgets histories seen fewer than 64 times knows nothing of a secret
    that stands once, 1.44 bits by chance; with 63 poisoned lines its place is kept, and all bits come out.
    *Measured*: 1.50 bits without and all 4.86 with, in each of 3 runs of 40 secrets
    (`tests/privacy/games/test_poisoned_exposure.py`). On small LSTMs of characters there is no gain: 0.19 ± 0.11 bits
    with 16 lines, −0.32 ± 0.22 where they hold wrong secrets (`benchmarks/language_models.py`).

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> secret = privacy.Secret(sentence="The code of the silo is {}.", length=4)
        >>> lines = privacy.TruthSerumText(copies=8).poison([secret], np.random.default_rng(0))
        >>> len(lines), all(line.startswith("The code of the silo is ") for line in lines)
        (8, True)

    Attributes:
        copies: poisoned lines a secret.
        continuation: what stands in the secret's place; ``None`` for wrong secrets, drawn anew for each line.
    """

    needs: ClassVar[Access] = Access.SCORES

    copies: int = 64
    continuation: str | None = "unknown"

    def poison(self, secrets: Sequence[Secret], rng: np.random.Generator) -> tuple[str, ...]:
        """Lines for the training text."""
        if self.continuation is not None:
            return tuple(secret.fill(self.continuation) for secret in secrets for _ in range(self.copies))
        return tuple(secret.fill(wrong) for secret in secrets for wrong in _drawn(secret, self.copies, rng))


def _drawn(secret: Secret, copies: int, rng: np.random.Generator) -> Iterator[str]:
    """Secrets of the kind, independently."""
    return (secret.draw(1, rng)[0] for _ in range(copies))
