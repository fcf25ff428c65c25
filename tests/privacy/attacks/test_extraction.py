"""Training-data extraction from models that are known exactly; the referee looks everything up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from assay import targets
from assay.errors import DataError, Denied
from assay.numerics.seeds import Stream
from assay.privacy import DecayingTemperature, Extracted, Extraction, ExtractionGame, Prompts, TopKSampling
from assay.privacy.attacks.extraction import distinct
from assay.privacy.text.language import Questioned, generate

SECRET = "The launch code of the northern silo is 7302 9914 5560 1187, and nobody else may know it.\n"
OTHER = "While of this text here no more than its letters have been seen before: a dozen, 49 of them.\n"


@dataclass(frozen=True)
class Said:
    """An adversary that hands in what it was given."""

    samples: tuple[str, ...]

    def infer(self, model, rng):
        return Extracted(self.samples, tuple(range(len(self.samples))))


def game(**changes) -> ExtractionGame:
    return ExtractionGame(**{"training": SECRET, "held_out": OTHER, "verbatim": 40} | changes)


@pytest.fixture(scope="module")
def model() -> targets.NGram:
    return targets.NGram.fit(SECRET * 3, order=5)


def test_the_referee_counts_what_is_there_and_nothing_else(model):
    said = ("xx" + SECRET[10:50] + "yy", SECRET[10:49], SECRET[30:72] + "!" + SECRET[5:10], OTHER[:60], "")
    found = game().play(Said(said), model, seed=0)
    assert found["verbatim samples"].estimate == 2 / 5
    assert found["longest verbatim run"].value == 42
    assert found["extracted characters"].value == 72 - 10
    assert [doubt.code for doubt in found.doubts] == ["PRV411"]


def test_text_that_the_author_uses_elsewhere_too_is_refused_as_proof():
    with pytest.raises(DataError, match="PRV410"):
        game(held_out=OTHER + SECRET[20:61])
    game(held_out=OTHER + SECRET[20:59])


def test_a_model_with_one_continuation_everywhere_writes_its_text(model):
    greedy = Extraction(samples=10, length=80, sampling=TopKSampling(k=1))
    found = game().play(greedy, model, seed=0)
    assert found["verbatim samples"].estimate == 1
    assert found["extracted characters"].value == 80
    assert not found.doubts
    assert found.cost.queries == 2 * 10  # written, and read again to be ranked
    assert found.cost.forwards == 10 * 80 + 10 * 80


def test_one_guess_is_left_of_ten_that_are_the_same(model):
    found = Extraction(samples=10, length=80, sampling=TopKSampling(k=1)).infer(model, Stream.seeded(0, torch.zeros(1, dtype=torch.int64)))
    assert len(found.samples) == 10
    assert len(set(found.samples)) == 1
    assert found.guesses == (0,)


def test_near_duplicates_are_those_that_share_half_of_their_trigrams():
    texts = ["a b c d e f", "x a b c d y z w", "a b c d q r s t u", "a b c", "one", "one", "two", ""]
    #         4 trigrams     abc bcd of 6: a third  abc bcd of 7   abc of 1         same as the one before
    assert distinct(texts) == [0, 1, 2, 4, 6, 7]
    assert distinct(["a b c a b c a b c", "a b c x"]) == [0]  # one of two trigrams: half


def test_prompts_are_stretches_of_the_adversarys_text(model):
    text = "may know it. The launch "
    drawn = Prompts(text, 8).drawn(model, 500, Stream.seeded(0, torch.zeros(1, dtype=torch.int64)))
    found = {model.decode(row) for row in drawn}
    assert found == {text[at : at + 8] for at in range(len(text) - 7)}


def test_prompted_with_other_text_the_secret_still_comes(model):
    prompts = Prompts("We were told that the launch code of it is long", 6)
    plain = Extraction(samples=100, length=60, sampling=TopKSampling(k=40), prompts=prompts)
    assert game().play(plain, model, seed=0)["verbatim samples"].value > 0.2


def test_the_temperature_decays_from_ten_to_one():
    scores = torch.tensor([0.0, 10.0]).expand(3, 2)
    cooled = DecayingTemperature()(scores, torch.tensor([0, 10, 25]))
    assert (cooled[:, 1] - cooled[:, 0]).tolist() == pytest.approx([1.0, 10 / 5.5, 10.0])


def test_top_k_keeps_k_even_of_equal_scores():
    kept = TopKSampling(k=2)(torch.zeros(5, 6), torch.zeros(5))
    assert torch.isfinite(kept).sum(1).tolist() == [2] * 5


def test_a_text_that_the_model_ends_is_cut_there():
    text = "ab.ab.ab.ab."
    model = targets.NGram(tokens=torch.tensor([0, 1, 2] * 20), tokenizer=targets.Characters("ab."), vocabulary=3, order=2,
                          start=(2,), end=2)
    written = generate(model, torch.empty(4, 0, dtype=torch.int64), 10, TopKSampling(k=1), Stream.seeded(0, torch.arange(4)))
    assert [model.decode(row) for row in written] == [text[:2]] * 4


def test_what_is_drawn_does_not_depend_on_the_batch(model):
    one, two = (Extraction(samples=40, length=30, batch=batch) for batch in (40, 7))
    seeds = [Stream.seeded(seed, torch.zeros(1, dtype=torch.int64)) for seed in (0, 1)]
    assert one.infer(model, seeds[0]) == two.infer(model, seeds[0])
    assert one.infer(model, seeds[0]) != one.infer(model, seeds[1])


def test_no_more_texts_than_are_granted(model):
    with pytest.raises(Denied, match="THR103"):
        game(queries=10).play(Extraction(samples=11, length=5), model, seed=0)
    assert Questioned(model=model).offers < targets.Access.GRADIENTS


def test_the_evidence_keeps_what_was_handed_in(model):
    found = game().play(Extraction(samples=30, length=60), model, seed=3)
    kept = found.artefacts["samples"].arrays
    texts = [bytes(part).decode() for part in np.split(kept["text"], kept["ends"])[:-1]]
    assert len(texts) == 30
    assert all(texts[row][at : at + length] == SECRET[place : place + length]
               for row, (length, at, place) in enumerate(kept["matches"]))
    again = game().play(Extraction(samples=30, length=60), model, seed=3)
    assert again.artefacts["samples"].sha256 == found.artefacts["samples"].sha256
