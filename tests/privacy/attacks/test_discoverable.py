"""Discoverable extraction from a table of letters, where the chance of every text is known and can be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from assay import targets
from assay.errors import DataError
from assay.numerics.seeds import Stream
from assay.privacy import DecayingTemperature, DiscoverableExtraction, DiscoveryGame, Rate, TopKSampling
from assay.privacy.attacks.discoverable import queries_for
from assay.privacy.games.discovery import surprise
from assay.privacy.text.language import generate

TEXT = "abracadabra abracad abraxas bar cada dabra\n" * 3


@pytest.fixture(scope="module")
def model() -> targets.NGram:
    return targets.NGram.fit(TEXT, order=2, tokenizer=targets.Characters.of(TEXT))


@pytest.mark.parametrize("sampling", [TopKSampling(k=None), TopKSampling(k=3), TopKSampling(k=2, temperature=0.7),
                                      DecayingTemperature(hot=5, over=3)], ids=repr)
def test_texts_come_as_often_as_predicted(model, sampling):
    """Every two-letter text, 20,000 draws: intervals that all hold at once, 99.9 % sure (Bonferroni)."""
    prefix, count = "abra", 20_000
    alphabet = model.tokenizer.alphabet
    ends = [first + second for first in alphabet for second in alphabet]
    log_p = DiscoverableExtraction(sampling=sampling).infer(model, [model.encode(prefix + end) for end in ends], prefix=4)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    prompts = model.encode(prefix).expand(count, -1)
    drawn = generate(model, prompts, 2, sampling, Stream.seeded(0, torch.arange(count)))
    came = torch.stack(drawn) @ torch.tensor([len(alphabet), 1])
    times = torch.bincount(came, minlength=len(ends)).tolist()
    sure = 1 - 0.001 / len(ends)
    assert all(p in Rate(successes=n, n=count, confidence=sure) for p, n in zip(np.exp(log_p), times) if 0 < p < 1)
    assert all(n == 0 for p, n in zip(np.exp(log_p), times) if p == 0)


def test_queries_by_the_formula():
    """Hayes et al. (2025), Eq. 3: P = 0.5 and p = 0.9 take ln 0.1 / ln 0.5 = 3.32 queries."""
    log_p = np.log([0.5, 0.9, 0.01, 1e-20])
    expected = [3.3219, 1.0, 229.105, math.log(10) * 1e20]
    assert queries_for(log_p, 0.9).tolist() == pytest.approx(expected, rel=1e-4)
    assert queries_for(np.array([-np.inf, 0.0]), 0.9).tolist() == [math.inf, 1.0]


def test_what_is_known_by_heart_is_discovered_and_the_rest_is_not():
    secret = "The launch code of the northern silo is 7302 9914 5560 1187, and nobody else may know it.\n" * 4
    other = "While of this text here no more than its letters have been seen before: a dozen, 49 of them.\n" * 4
    model = targets.NGram.fit(secret, order=6, tokenizer=targets.Characters.of(secret, other))
    game = DiscoveryGame(training=secret, held_out=other, prefix=20, suffix=20, examples=100, queries=10)
    found = game.play(DiscoverableExtraction(), model, seed=0)
    assert found["discoverable text"].estimate == 1
    assert found["discoverable text"].value > 0.97
    assert not found.doubts
    greedy = game.play(DiscoverableExtraction(sampling=TopKSampling(k=1)), model, seed=0).artefacts["discovery"].arrays
    assert set(np.exp(greedy["log_p"]).tolist()) <= {0.0, 1.0}
    assert (greedy["drawn"] == (greedy["log_p"] == 0)).all()


def test_chances_that_draws_do_not_bear_out_are_doubted(model):
    @dataclass(frozen=True)
    class Boaster:
        sampling: TopKSampling

        def infer(self, view, texts, *, prefix):
            return np.full(len(texts), -0.1)

    game = DiscoveryGame(training=TEXT, held_out=TEXT, prefix=5, suffix=5, examples=50)
    assert {"PRV411", "PRV412"} == {doubt.code for doubt in game.play(Boaster(TopKSampling(k=None)), model, seed=0).doubts}


def test_surprise_is_the_binomials_where_all_chances_are_equal():
    from scipy.stats import binom

    for successes in (0, 3, 10, 20):
        tails = binom.cdf(successes, 20, 0.3), binom.sf(successes - 1, 20, 0.3)
        assert surprise(np.full(20, 0.3), successes) == pytest.approx(min(1, 2 * min(tails)), rel=1e-9)


def test_texts_too_short_are_refused(model):
    with pytest.raises(DataError, match="PRV414"):
        DiscoveryGame(training="abra", held_out=TEXT).play(DiscoverableExtraction(), model, seed=0)
