"""What an adversary gets of a language model: no more than is granted, every text and token counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.errors import Denied
from assay.evidence.record import Cost
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.language_model import LanguageModel, Likelihood, Sampling


@dataclass
class _Spent:
    texts: int = 0
    tokens: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Questioned:
    """A language model as its users see it: it continues texts and says how likely they are, and keeps count.

    It guards against self-deception, not against hostile code.

    Attributes:
        model: the model behind it.
        queries: how many texts may be submitted; ``None`` for no limit. Denied beyond (THR103).
    """

    model: LanguageModel
    queries: int | None = None
    _spent: _Spent = field(default_factory=_Spent, repr=False)

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def offers(self) -> Access:
        """Scores."""
        return Access.SCORES

    @property
    def vocabulary(self) -> int:
        """The model's."""
        return self.model.vocabulary

    @property
    def start(self) -> tuple[int, ...]:
        """The model's."""
        return self.model.start

    @property
    def end(self) -> int | None:
        """The model's."""
        return self.model.end

    def encode(self, text: str) -> Tensor:
        """As the model does; no query."""
        return self.model.encode(text)

    def decode(self, tokens: Tensor) -> str:
        """As the model does; no query."""
        return self.model.decode(tokens)

    def log_probs(self, texts: Sequence[Tensor], *, after: int = 0, sampling: Sampling | None = None) -> Likelihood:
        """As the model does: one query a text."""
        self._charge(len(texts), sum(map(len, texts)))
        return self.model.log_probs(texts, after=after, sampling=sampling)

    def following(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        """As the model does: one query a text that is begun."""
        self._charge(len(tokens) if state is None else 0, tokens.numel())
        return self.model.following(tokens, state)

    def fingerprint(self) -> dict[str, str]:
        """The model's."""
        return self.model.fingerprint()

    def cost(self, seconds: float) -> Cost:
        """What was spent: a forward is one token read."""
        return Cost(forwards=self._spent.tokens, queries=self._spent.texts, seconds=seconds)

    def _charge(self, texts: int, tokens: int) -> None:
        if self.queries is not None and self._spent.texts + texts > self.queries:
            raise Denied("THR103", f"{self._spent.texts + texts} texts submitted of {self.queries} that are granted")
        self._spent.texts += texts
        self._spent.tokens += tokens


def generate(model: LanguageModel, prompts: Tensor, length: int, sampling: Sampling, rng: Stream) -> list[Tensor]:
    """What the model writes after each prompt: at most ``length`` tokens, fewer where it ends the text.

    Args:
        prompts: int64 ``[rows, time]``, behind the model's start; time may be 0 where the model has a start.
        rng: one stream a row.
    """
    rows = len(prompts)
    head = torch.tensor(model.start, dtype=torch.int64).expand(rows, -1)
    written = torch.empty(rows, length, dtype=torch.int64)
    tokens, state = torch.cat([head, prompts], 1), None
    for step in range(length):
        scores, state = model.following(tokens, state)
        p = sampling(scores.cpu(), torch.full((rows,), step)).softmax(-1)
        written[:, step] = _drawn(p, rng.fold(step).uniform(1, dtype=torch.float64))
        tokens = written[:, step : step + 1]
    return [_ended(row, model.end) for row in written]


def _drawn(p: Tensor, u: Tensor) -> Tensor:
    """One token a row, by inverting the distribution function; a token of probability 0 is never drawn."""
    edges = p.cumsum(-1)
    token = torch.searchsorted(edges, u * edges[:, -1:], right=True)[:, 0]
    last = p.shape[1] - 1 - (p > 0).flip(1).to(torch.int8).argmax(1)  # where rounding ran beyond every edge
    return torch.minimum(token, last)


def _ended(row: Tensor, end: int | None) -> Tensor:
    """The tokens before the first end."""
    if end is None or not bool((row == end).any()):
        return row
    return row[: int((row == end).nonzero()[0, 0])]
