"""What texts have in common word for word, against a search through all of it."""

from __future__ import annotations

import random

import pytest

from assay.privacy import Corpus


def by_search(corpus: str, text: str) -> int:
    lengths = (end - begin for begin in range(len(text)) for end in range(begin + 1, len(text) + 1)
               if text[begin:end] in corpus)
    return max(lengths, default=0)


@pytest.mark.parametrize("seed", range(200))
def test_the_longest_match_is_the_longest_and_is_where_it_is_said_to_be(seed):
    rng = random.Random(seed)
    corpus = "".join(rng.choice("ab€") for _ in range(rng.randrange(40)))
    text = "".join(rng.choice("abc€") for _ in range(rng.randrange(25)))
    found = Corpus(corpus).longest(text)
    assert found.length == by_search(corpus, text)
    assert corpus[found.place : found.place + found.length] == text[found.at : found.at + found.length]
    assert Corpus(corpus).longest_shared(text) == found.length


def test_a_long_text_is_found_whole():
    rng = random.Random(0)
    corpus = "".join(rng.choice("abcdefgh") for _ in range(20_000))
    assert Corpus(corpus).longest("x" + corpus[7000:9000] + "y").length >= 512
    assert Corpus(corpus).longest("x" + corpus[7000:7500] + "y") == (500, 1, 7000)
    assert Corpus(corpus).longest_shared("x" + corpus[7000:9000] + "y") == 2000
