"""Language models whose log-probabilities are known exactly: tables, and n-grams counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from assay import targets
from assay.errors import DataError, TargetError
from assay.privacy import TopKSampling

LETTERS = targets.Characters("abcd")


class Table(nn.Module):
    """The next token depends on the last ``depth`` tokens alone, by a table of logits; no more than ``most`` are read."""

    def __init__(self, depth: int = 1, most: int = 10**6, size: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(*[size + 1] * depth, size, generator=generator))
        self.depth, self.most, self.size = depth, most, size

    def forward(self, tokens: Tensor) -> Tensor:
        assert tokens.shape[1] <= self.most
        padded = nn.functional.pad(tokens, (self.depth - 1, 0), value=self.size)
        return self.table[tuple(padded[:, i : i + tokens.shape[1]] for i in range(self.depth))]

    def exact(self, text: str) -> list[float]:
        """The log-probability of every character but the first, one by one."""
        tokens, p = [self.size] * (self.depth - 1) + LETTERS.encode(text), self.table.detach().double().log_softmax(-1)
        return [float(p[tuple(tokens[i : i + self.depth])][tokens[i + self.depth]]) for i in range(len(text) - 1)]


def table(**settings) -> targets.TorchLanguage:
    start = settings.pop("start", "")
    context = settings.get("most")
    return targets.language(Table(**settings).eval(), tokenizer=LETTERS, vocabulary=4, start=start, context=context)


TEXTS = ["abcd", "d", "ba", "aaaaabbbbcccddabcdab", "cab"]


def read(model, texts, **how):
    return model.log_probs([model.encode(text) for text in texts], **how)


def test_every_token_is_scored_once_whatever_the_padding():
    model = table()
    said = read(model, TEXTS)
    for text, row, counted in zip(TEXTS, *said):
        assert counted.tolist() == [0 < place < len(text) for place in range(said.counted.shape[1])]
        assert row[counted].tolist() == pytest.approx(model.model.exact(text), abs=1e-6)
        assert not row[~counted].any()


def test_a_start_token_is_read_but_not_scored():
    model = table(start="b")
    said = read(model, TEXTS)
    for text, row, counted in zip(TEXTS, *said):
        assert counted.tolist() == [place < len(text) for place in range(said.counted.shape[1])]
        assert row[counted].tolist() == pytest.approx(model.model.exact("b" + text), abs=1e-6)


def test_tokens_that_are_given_are_not_counted():
    said = read(table(start="b"), TEXTS, after=2)
    assert said.counted.sum(1).tolist() == [max(len(text) - 2, 0) for text in TEXTS]


@pytest.mark.parametrize(("most", "start"), [(4, ""), (5, ""), (6, "a"), (7, "a")])
def test_texts_beyond_the_context_lose_no_token_and_count_none_twice(most, start):
    """The tokens depend on the last two, and pieces that overlap by half leave every token at least two before it."""
    text = "abcdabbaccddbacdbdacbbbaadcab"
    whole, pieces = (read(table(depth=2, most=m, start=start), [text, text[:9]]) for m in (10**6, most))
    assert torch.equal(whole.counted, pieces.counted)
    torch.testing.assert_close(whole.log_probs, pieces.log_probs, atol=1e-6, rtol=0)


def test_the_uniform_model_has_the_perplexity_of_its_vocabulary():
    model = table()
    nn.init.zeros_(model.model.table)
    assert read(model, ["ab", "abcdabcd"]).perplexity.tolist() == pytest.approx([4, 4], abs=1e-9)


@pytest.mark.parametrize("width", [1, 3, 7, 50])
def test_the_best_window_is_the_best_of_all_windows(width):
    model = table(start="b")
    for text, best in zip(TEXTS, read(model, TEXTS).best_window(width)):
        values = model.model.exact("b" + text)
        size = min(width, len(values))
        windows = [sum(values[i : i + size]) / size for i in range(len(values) - size + 1)]
        assert float(best) == pytest.approx(max(windows), abs=1e-6)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(4, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, tokens, state=None):
        seen, state = self.cell(self.embed(tokens), state)
        return self.head(seen), state


class Stateless(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens):
        return self.inner(tokens)[0]


def recurrent():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Recurrent().eval()


@pytest.mark.parametrize("stateful", [True, False])
def test_what_follows_agrees_with_what_is_scored(stateful):
    module = recurrent()
    model = targets.language(module if stateful else Stateless(module).eval(), tokenizer=LETTERS, vocabulary=4,
                             start="a", recurrent=stateful)
    text = model.encode("abcdbadc")
    scores, state = model.following(torch.tensor([model.start]))
    for place, token in enumerate(text):
        said = float(scores[0].log_softmax(-1)[token])
        assert said == pytest.approx(float(model.log_probs([text]).log_probs[0, place]), abs=1e-5)
        scores, state = model.following(token[None, None], state)


def test_reading_leaves_model_gradients_and_generators_as_they_were():
    module = recurrent()
    model = targets.language(module, tokenizer=LETTERS, vocabulary=4, start="a", recurrent=True)
    before, state = model.fingerprint(), torch.get_rng_state()
    read(model, TEXTS, sampling=TopKSampling(k=2))
    scores, _ = model.following(torch.tensor([[0, 1]]))
    assert model.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not module.training
    assert not scores.requires_grad


def test_a_sampling_scheme_renormalizes_what_it_leaves():
    model = table(start="a")
    greedy = read(model, ["abcd"], sampling=TopKSampling(k=1)).log_probs[0]
    best = model.model.table[LETTERS.encode("aabc")].argmax(1).tolist()
    assert greedy.tolist() == [0.0 if token == right else -math.inf for token, right in zip(best, LETTERS.encode("abcd"))]


def test_a_model_that_looks_ahead_is_refused():
    class Ahead(Table):
        def forward(self, tokens):
            return super().forward(tokens.roll(-1, 1))

    with pytest.raises(TargetError, match="PRV405"):
        targets.language(Ahead().eval(), tokenizer=LETTERS, vocabulary=4)


def test_training_mode_and_wrong_shapes_are_refused():
    with pytest.raises(TargetError, match="PRV403"):
        targets.language(Table().train(), tokenizer=LETTERS, vocabulary=4)
    with pytest.raises(TargetError, match="PRV404"):
        targets.language(Table().eval(), tokenizer=LETTERS, vocabulary=3)
    with pytest.raises(TargetError, match="PRV404"):
        targets.language(recurrent(), tokenizer=LETTERS, vocabulary=4)
    with pytest.raises(TargetError, match="PRV404"):
        targets.language(Table().eval(), tokenizer=LETTERS, vocabulary=4, recurrent=True)
    with pytest.raises(TargetError, match="PRV404"):
        targets.language(Table().eval(), tokenizer=LETTERS, vocabulary=9)


def test_no_texts_are_no_likelihoods():
    for model in (table(start="a"), targets.NGram.fit("abcd", order=2)):
        assert model.log_probs([]).log_probs.shape == (0, 0)


def test_strange_characters_are_refused_or_replaced():
    with pytest.raises(DataError, match="PRV401"):
        LETTERS.encode("abx")
    assert targets.Characters("abcd", unknown="d").encode("abx") == [0, 1, 3]


def test_bytes_come_back():
    assert targets.Bytes().decode(targets.Bytes().encode("naïve €")) == "naïve €"


def test_a_text_without_a_token_to_score_has_no_mean():
    with pytest.raises(DataError, match="PRV402"):
        read(table(), ["ab", "a"]).mean  # noqa: B018


def by_hand(text: str, history: str, token: str, alphabet: str) -> float:
    """Witten & Bell, straight from the definition."""
    p = 1 / len(alphabet)
    for order in range(len(history) + 1):
        h = history[len(history) - order :]
        after = [text[i + order] for i in range(len(text) - order) if text[i : i + order] == h]
        if after:
            different = len(set(after))
            p = (after.count(token) + different * p) / (len(after) + different)
    return p


def test_ngrams_are_counted_as_by_hand():
    text = "abracadabra abracad"
    model = targets.NGram.fit(text, order=3, start=" ")
    alphabet = model.tokenizer.alphabet
    said = read(model, ["bracadcb", "a"])
    for row, asked in zip(said.log_probs, ["bracadcb", "a"]):
        for place, token in enumerate(asked):
            history = (" " + asked[:place])[-3:]
            assert float(row[place]) == pytest.approx(math.log(by_hand(text, history, token, alphabet)), abs=1e-12)


def test_ngrams_follow_as_they_score():
    model = targets.NGram.fit("abracadabra abracad", order=3, start=" ")
    text = model.encode("abr dab")
    scores, state = model.following(torch.tensor([model.start]))
    for place, token in enumerate(text):
        assert float(scores.exp().sum()) == pytest.approx(1, abs=1e-12)
        assert float(scores[0, token]) == pytest.approx(float(model.log_probs([text]).log_probs[0, place]), abs=1e-12)
        scores, state = model.following(token[None, None], state)


def test_histories_below_the_cutoff_are_forgotten():
    """After "ab" came "c" twice, after "xb" once: of "xb" a cutoff of 2 leaves what came after "b"."""
    text = "abcabcxbd"
    exact, forgetful = (targets.NGram.fit(text, order=2, cutoff=cutoff) for cutoff in (1, 2))

    def chance(model, history, token):
        scores, _ = model.following(model.encode(history)[None])
        return float(scores[0, model.encode(token)[0]].exp())

    assert chance(forgetful, "ab", "c") == pytest.approx(chance(exact, "ab", "c"), abs=1e-12)
    assert chance(forgetful, "xb", "d") == pytest.approx(chance(forgetful, "zb", "d"), abs=1e-12)
    assert chance(forgetful, "xb", "d") < chance(exact, "xb", "d")


def test_orders_that_cannot_be_numbered_are_refused():
    with pytest.raises(TargetError, match="PRV406"):
        targets.NGram.fit("abcdefghijklmnopqrstuvwxyz", order=20)
