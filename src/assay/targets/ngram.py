"""A language model that counts: no training, exact log-probabilities; a baseline, and a reference for larger models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import printable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from assay.errors import TargetError
from assay.targets.access import Access
from assay.targets.language_model import Likelihood, Sampling
from assay.targets.tokenizers import Characters, Tokenizer

_PATTERNS = 2**62
"""Stretches of tokens are numbered in base vocabulary + 1; beyond this the numbers would overflow."""

_ROWS = 4096
"""Predictions that are made at once."""

Counts = tuple[Tensor, Tensor]
"""Numbers of stretches, int64, ascending; and how often each occurs, float64."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class NGram:
    """How often each character followed the last few, interpolated with what followed fewer of them.

    ``p(c | h) = (N(hc) + T(h) p(c | h')) / (N(h) + T(h))``, with N the counts, T(h) the number of different tokens seen
    after h and h' one token shorter; below all orders lies the uniform distribution. A high order knows its text by
    heart.

    Source: Witten & Bell (IEEE Trans. Information Theory 37, 1991), method C.

    Attributes:
        tokens: the text counted, int64 ``[time]``.
        tokenizer, vocabulary: what they mean, and how many there are.
        order: the most tokens that a prediction looks back on.
        cutoff: longer histories than none that occur less often are forgotten, as in large n-gram models.

    Raises:
        TargetError: PRV406 where a stretch of ``order + 1`` tokens cannot be numbered in 62 bits.
    """

    tokens: Tensor
    tokenizer: Tokenizer
    vocabulary: int
    order: int = 5
    cutoff: int = 1
    name: str = "NGram"
    start: tuple[int, ...] = ()
    end: int | None = None

    def __post_init__(self) -> None:
        if (self.vocabulary + 1) ** (self.order + 1) > _PATTERNS:
            raise TargetError("PRV406", f"order {self.order} over {self.vocabulary} tokens")

    def __repr__(self) -> str:
        return f"{self.name}({self.order}, {self.fingerprint()['model'][:12]})"

    @classmethod
    def fit(
        cls, text: str, *, order: int = 5, cutoff: int = 1, tokenizer: Characters | None = None, start: str = "\n"
    ) -> Self:
        """A model of characters that has read this text, once.

        Args:
            tokenizer: its alphabet; by default printable ASCII, and what else the text has.
        """
        tokenizer = tokenizer or Characters.of(text, start, printable)
        return cls(tokens=torch.tensor(tokenizer.encode(text), dtype=torch.int64), tokenizer=tokenizer, order=order,
                   cutoff=cutoff, vocabulary=len(tokenizer), start=tuple(tokenizer.encode(start)))

    @property
    def offers(self) -> Access:
        """Scores."""
        return Access.SCORES

    def encode(self, text: str) -> Tensor:
        """See :class:`~assay.targets.language_model.LanguageModel`."""
        return torch.tensor(list(self.tokenizer.encode(text)), dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """See :class:`~assay.targets.language_model.LanguageModel`."""
        return self.tokenizer.decode(tokens.tolist())

    def log_probs(self, texts: Sequence[Tensor], *, after: int = 0, sampling: Sampling | None = None) -> Likelihood:
        """See :class:`~assay.targets.language_model.LanguageModel`."""
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        places = torch.arange(int(lengths.max()) if len(texts) else 0)
        counted = (places >= max(after, 0 if self.start else 1)) & (places < lengths[:, None])
        log_probs = torch.zeros(counted.shape, dtype=torch.float64)
        head = torch.tensor(self.start, dtype=torch.int64)
        rows = torch.full((len(texts), self.order + len(self.start) + len(places)), self.vocabulary)
        for row, text in zip(rows, texts):  # before the beginning stands a token that occurs nowhere
            row[self.order :][: len(head) + len(text)] = torch.cat([head, text])
        stretches = rows.unfold(1, self.order + 1, 1)[:, len(self.start) :][counted]
        steps = (places - after).expand_as(counted)[counted]
        parts = zip(torch.split(stretches, _ROWS), torch.split(steps, _ROWS))
        log_probs[counted] = torch.cat([self._said(part, step, sampling) for part, step in parts])
        return Likelihood(log_probs, counted)

    def following(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        """See :class:`~assay.targets.language_model.LanguageModel`."""
        known = tokens if state is None else torch.cat([state, tokens], 1)  # type: ignore[list-item]
        known = known[:, -max(self.order, 1) :]
        blank = torch.full((len(known), max(self.order - known.shape[1], 0)), self.vocabulary)
        histories = torch.cat([blank, known], 1)[:, -self.order :] if self.order else known[:, :0]
        return self._next(histories).log(), known

    def fingerprint(self) -> dict[str, str]:
        """A hash of the text counted, and the order."""
        digest = hashlib.sha256(self.tokens.numpy().tobytes())
        digest.update(repr((self.tokenizer, self.order, self.cutoff, self.start)).encode())
        return {"model": digest.hexdigest(), "order": str(self.order)}

    @cached_property
    def _counts(self) -> tuple[tuple[Counts, Counts, Counts], ...]:
        """For each order: stretches with the next token; histories and how often; histories and after how many."""
        tables = []
        for order in range(self.order + 1):
            stretches = self.tokens.unfold(0, order + 1, 1) if len(self.tokens) > order else self.tokens.new_zeros(0, 1)
            grams, times = _tallied(self._number(stretches))
            before = grams // (self.vocabulary + 1)
            histories, different = _tallied(before)
            total = torch.zeros(len(histories), dtype=torch.float64)
            total.index_add_(0, torch.searchsorted(histories, before), times)
            total = torch.where(total < self.cutoff, 0.0, total) if order else total
            tables.append(((grams, times), (histories, total), (histories, different)))
        return tuple(tables)

    def _number(self, stretches: Tensor) -> Tensor:
        """One number a stretch, ``[n, length] -> [n]``; its last token is the lowest digit."""
        number = torch.zeros(len(stretches), dtype=torch.int64)
        for column in stretches.T:
            number = number * (self.vocabulary + 1) + column
        return number

    def _said(self, stretches: Tensor, steps: Tensor, sampling: Sampling | None) -> Tensor:
        """The log-probability of the last token of each stretch."""
        histories, last = stretches[:, :-1], stretches[:, -1:]
        if sampling is None:
            return self._next(histories, last)[:, 0].log()
        return sampling(self._next(histories).log(), steps).log_softmax(-1).gather(1, last)[:, 0]

    def _next(self, histories: Tensor, asked: Tensor | None = None) -> Tensor:
        """How likely these tokens are after each history, or all of them: float64 ``[n, tokens]``."""
        tokens = torch.arange(self.vocabulary)[None] if asked is None else asked
        p = torch.full((len(histories), tokens.shape[1]), 1 / self.vocabulary, dtype=torch.float64)
        for order, (grams, totals, different) in enumerate(self._counts):
            history = self._number(histories[:, histories.shape[1] - order :])[:, None]
            seen = _looked_up(grams, history * (self.vocabulary + 1) + tokens)
            n, t = _looked_up(totals, history), _looked_up(different, history)
            p = torch.where(n > 0, (seen + t * p) / (n + t).clamp_min(1), p)
        return p


def _tallied(numbers: Tensor) -> Counts:
    """Each number once, and how often it is there."""
    keys, counts = np.unique(numbers.numpy(), return_counts=True)
    return torch.from_numpy(keys), torch.from_numpy(counts).to(torch.float64)


def _looked_up(table: Counts, numbers: Tensor) -> Tensor:
    """The count of each number, 0 where it is not in the table."""
    keys, values = table
    if not len(keys):
        return torch.zeros(numbers.shape, dtype=torch.float64)
    at = torch.searchsorted(keys, numbers).clamp_max(len(keys) - 1)
    return torch.where(keys[at] == numbers, values[at], 0.0)
