"""Language models as targets: how likely every token of a text is, and what may come next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay.errors import DataError, TargetError
from assay.targets.access import Access
from assay.targets.tokenizers import Tokenizer

Sampling = Callable[[Tensor, Tensor], Tensor]
"""A sampling scheme: ``(scores [..., vocabulary], step int64 [...]) -> scores``, −inf where nothing is drawn.

The step counts from 0 at the first token that is drawn.
"""


class Likelihood(NamedTuple):
    """What a model says of some texts, token by token; rows are as long as the longest.

    Attributes:
        log_probs: float64 ``[texts, time]``, natural; 0 where nothing is counted.
        counted: bool ``[texts, time]``: false in the padding, for tokens that were given, and for a first token that
            nothing stands before.
    """

    log_probs: Tensor
    counted: Tensor

    @property
    def total(self) -> Tensor:
        """The log-probability of each text: float64 ``[texts]``."""
        return self.log_probs.sum(1)

    @property
    def mean(self) -> Tensor:
        """The log-probability a token: float64 ``[texts]``. Raises ``DataError`` (PRV402) where none is counted."""
        tokens = self.counted.sum(1)
        if bool((tokens == 0).any()):
            raise DataError("PRV402", f"{int((tokens == 0).sum())} of {len(tokens)} texts have no token to score")
        return self.total / tokens

    @property
    def perplexity(self) -> Tensor:
        """``exp(−mean)``: float64 ``[texts]``."""
        return (-self.mean).exp()

    def best_window(self, width: int) -> Tensor:
        """The highest mean of any ``width`` tokens in a row: float64 ``[texts]``; of a shorter text, of all of it."""
        order = (~self.counted).to(torch.int8).argsort(dim=1, stable=True)  # the counted tokens first, in their order
        sums = torch.cat([self.total.new_zeros(len(self.total), 1), self.log_probs.gather(1, order).cumsum(1)], 1)
        tokens = self.counted.sum(1)
        if not bool((tokens >= width).any()):
            return self.mean
        means = (sums[:, width:] - sums[:, :-width]) / width
        starts = torch.arange(means.shape[1], device=means.device)
        best = means.masked_fill(starts > tokens[:, None] - width, -torch.inf).amax(1)
        return torch.where(tokens >= width, best, self.mean)


@runtime_checkable
class LanguageModel(Protocol):
    """A language model under test.

    Attributes:
        name: how evidence calls it.
        offers: the most it can reveal; scores where it says how likely a token is.
        vocabulary: how many tokens there are.
        start: what stands before every text, and is never scored.
        end: the token that ends a text, or ``None``.
    """

    @property
    def name(self) -> str: ...
    @property
    def offers(self) -> Access: ...
    @property
    def vocabulary(self) -> int: ...
    @property
    def start(self) -> tuple[int, ...]: ...
    @property
    def end(self) -> int | None: ...

    def encode(self, text: str) -> Tensor:
        """The text's tokens, int64 ``[time]``, without start and end."""

    def decode(self, tokens: Tensor) -> str:
        """The text of these tokens."""

    def log_probs(self, texts: Sequence[Tensor], *, after: int = 0, sampling: Sampling | None = None) -> Likelihood:
        """How likely each token of each text is.

        Args:
            texts: tokens, int64 ``[time]`` each, of any lengths.
            after: so many tokens at the beginning of each text are given, and not counted.
            sampling: under this scheme instead of the model's own distribution; its step 0 is the token ``after``.
        """

    def following(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        """Scores of the token that comes after ``tokens``, int64 ``[rows, time]``: float ``[rows, vocabulary]``.

        Also what to hand in with the tokens that come next, in order not to read these again.
        """

    def fingerprint(self) -> dict[str, str]:
        """What identifies the model in evidence."""


class _Piece(NamedTuple):
    """A stretch of a text as the model reads it: ``tokens[begin:stop]``, of whose predictions ``skip`` are known."""

    row: int
    begin: int
    stop: int
    skip: int


@dataclass(frozen=True, eq=False, repr=False)
class TorchLanguage:
    """A torch module that models language; build it with :func:`assay.targets.language`."""

    model: nn.Module
    tokenizer: Tokenizer
    vocabulary: int
    name: str
    start: tuple[int, ...]
    end: int | None
    context: int | None
    recurrent: bool
    batch: int

    def __repr__(self) -> str:
        return f"{self.name}({self.fingerprint()['model'][:12]})"

    @property
    def offers(self) -> Access:
        """Everything: the weights are at hand."""
        return Access.WEIGHTS

    @property
    def device(self) -> torch.device:
        """The first parameter's, else the CPU."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def encode(self, text: str) -> Tensor:
        """See :class:`LanguageModel`."""
        return torch.tensor(list(self.tokenizer.encode(text)), dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """See :class:`LanguageModel`."""
        return self.tokenizer.decode(tokens.tolist())

    def log_probs(self, texts: Sequence[Tensor], *, after: int = 0, sampling: Sampling | None = None) -> Likelihood:
        """See :class:`LanguageModel`. Texts beyond the context are read in pieces that overlap by half of it."""
        head = torch.tensor(self.start, dtype=torch.int64)
        rows = [torch.cat([head, text.cpu()]) for text in texts]
        width = max((len(text) for text in texts), default=0)
        found = Likelihood(torch.zeros(len(rows), width, dtype=torch.float64),
                           torch.zeros(len(rows), width, dtype=torch.bool))
        for pieces in self._batches(rows):
            scores = self._read(_padded([rows[p.row][p.begin : p.stop - 1] for p in pieces]).to(self.device))
            self._enter(found, rows, pieces, scores, after, sampling)
        return found

    def following(self, tokens: Tensor, state: object = None) -> tuple[Tensor, object]:
        """See :class:`LanguageModel`. A module that keeps no state reads the whole text again."""
        tokens = tokens.to(self.device)
        with torch.inference_mode():
            if self.recurrent:
                scores, state = self.model(tokens, state)
                return scores[:, -1].to(torch.float64), state
            known = tokens if state is None else torch.cat([state, tokens], 1)  # type: ignore[list-item]
            known = known if self.context is None else known[:, -self.context :]
            return self.model(known)[:, -1].to(torch.float64), known

    def fingerprint(self) -> dict[str, str]:
        """A hash of every parameter and buffer, and how the module reads text."""
        digest = hashlib.sha256(repr(self.model).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        reads = f"{self.tokenizer!r}, start {self.start}, end {self.end}, context {self.context}"
        return {"model": digest.hexdigest(), "reads": reads, "torch": torch.__version__}

    def check(self) -> None:
        """Shape and causality, tried on two short texts. Raises ``TargetError`` (PRV403–PRV405)."""
        if self.model.training:
            raise TargetError("PRV403", f"{self.name} is in training mode")
        length = 8 if self.context is None else max(min(8, self.context), 2)
        tokens = torch.arange(2 * length, device=self.device).reshape(2, length) % self.vocabulary
        tokens[1, :-1] = tokens[0, :-1]
        tokens[1, -1] = (tokens[0, -1] + 1) % self.vocabulary
        try:
            scores = self._read(tokens)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise TargetError("PRV404", f"{self.name} failed on tokens of shape (2, {length}): {error}") from error
        if scores.shape != (2, length, self.vocabulary):
            said = f"{self.name} returned shape {tuple(scores.shape)} for tokens of shape (2, {length})"
            raise TargetError("PRV404", f"{said}; expected (2, {length}, {self.vocabulary})")
        if not torch.allclose(scores[0, :-1], scores[1, :-1], rtol=1e-3, atol=1e-3):
            raise TargetError("PRV405", f"another last token changes what {self.name} says of those before it")

    def _read(self, tokens: Tensor) -> Tensor:
        """Scores at every position, ``[rows, time, vocabulary]``."""
        with torch.inference_mode():
            out = self.model(tokens, None)[0] if self.recurrent else self.model(tokens)
        if not isinstance(out, Tensor):
            raise TargetError("PRV404", f"{self.name} returned {type(out).__name__}, not a tensor of scores")
        return out

    def _batches(self, rows: Sequence[Tensor]) -> Iterator[list[_Piece]]:
        """Every prediction of every text in exactly one piece, pieces of like length together."""
        pieces = [piece for row, tokens in enumerate(rows) for piece in self._pieces(row, len(tokens))]
        pieces.sort(key=lambda piece: piece.stop - piece.begin)
        for first in range(0, len(pieces), self.batch):
            yield pieces[first : first + self.batch]

    def _pieces(self, row: int, length: int) -> Iterator[_Piece]:
        """A piece of n + 1 tokens makes n predictions; from the second on, the first half of them are known."""
        most = length - 1 if self.context is None else self.context
        stride = max(most // 2, 1)
        begin, known = 0, 0  # predictions known so far
        while known < length - 1:
            stop = min(begin + most, length - 1)
            yield _Piece(row, begin, stop + 1, known - begin)
            known, begin = stop, begin + stride

    def _enter(self, found: Likelihood, rows: Sequence[Tensor], pieces: Sequence[_Piece], scores: Tensor, after: int,
               sampling: Sampling | None) -> None:
        """Writes what a batch of pieces says into its places."""
        head = len(self.start)
        scores = scores.to(torch.float64)
        targets = _padded([rows[p.row][p.begin + 1 : p.stop] for p in pieces]).to(scores.device)
        at = torch.tensor([p.begin + 1 - head for p in pieces], device=scores.device)[:, None]
        at = at + torch.arange(scores.shape[1], device=scores.device)  # each prediction's place in its text
        if sampling is not None:
            scores = sampling(scores, (at - after).clamp_min(0))
        said = scores.log_softmax(-1).gather(-1, targets[..., None])[..., 0].cpu()
        for piece, values in zip(pieces, said):
            skip = max(piece.skip, after + head - piece.begin - 1, head - piece.begin - 1)
            size = piece.stop - piece.begin - 1
            place = slice(piece.begin + 1 - head + skip, piece.begin + 1 - head + size)
            if skip < size:
                found.log_probs[piece.row, place] = values[skip:size]
                found.counted[piece.row, place] = True


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Rows of any lengths as one block, filled up behind their ends, where a causal model cannot see it."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def language_target(
    model: nn.Module,
    *,
    tokenizer: Tokenizer,
    vocabulary: int,
    start: str | Sequence[int] = "",
    end: int | None = None,
    context: int | None = None,
    recurrent: bool = False,
    name: str = "",
    batch: int = 128,
) -> TorchLanguage:
    """A torch module as a language model.

    The module stays as it is; it must be in evaluation mode.

    Args:
        model: ``[rows, time] -> [rows, time, vocabulary]``, the scores at a position being those of the next token.
            Where it is ``recurrent``: ``(tokens, state) -> (scores, state)``, with ``None`` for the first state.
        tokenizer: anything with ``encode(text) -> tokens`` and ``decode(tokens) -> text``.
        vocabulary: how many tokens there are.
        start: text or tokens before every text, such as a newline or a begin-of-sequence token. Without it the first
            token of a text cannot be scored, and is not counted.
        end: the token that ends a text: sampling stops there. It is scored only where a text contains it.
        context: the most tokens that the model can read at once; longer texts are read in overlapping pieces, each
            token counted once with at least half of the context before it.
        name: how evidence calls it; the class name by default.
        batch: the most rows in one forward.

    Raises:
        TargetError: PRV403 in training mode, PRV404 for a wrong shape, PRV405 for a model that sees what comes later.
    """
    head = tokenizer.encode(start) if isinstance(start, str) else start
    target = TorchLanguage(model=model, tokenizer=tokenizer, vocabulary=vocabulary, name=name or type(model).__name__,
                           start=tuple(int(token) for token in head), end=end, context=context, recurrent=recurrent,
                           batch=batch)
    target.check()
    return target
