"""Rankings of memorized text, against their definitions and on models that are known exactly."""

from __future__ import annotations

import zlib
from math import log

import numpy as np
import pytest

from assay import targets
from assay.privacy import Lowercase, Perplexity, Reading, Reference, Scores, Window, Zlib, planted, text_canaries

ENGLISH = "\n".join(f"{who} {did} the {what} of {whom}." for who in ("Who", "A king", "My lord", "No man", "The fool")
                    for did in ("saw", "has", "took", "left", "knew") for what in ("crown", "hand", "word", "house")
                    for whom in ("Rome", "France", "my sister", "thine own"))
TEXTS = ["A king saw the crown of Rome.", "The fool has the word of thine own", "zzzz", "My lord, my lord, my lord!"]


@pytest.fixture(scope="module")
def model() -> targets.NGram:
    return targets.NGram.fit(ENGLISH, order=4)


def entropies(model, texts) -> np.ndarray:
    """In nats a text, straight from the tokens."""
    return np.array([-float(model.log_probs([model.encode(text)]).total[0]) for text in texts])


def test_rankings_are_what_the_paper_defines(model):
    reading = Reading(model, TEXTS)
    nats, size = entropies(model, TEXTS), np.array([len(text) for text in TEXTS])
    packed = np.array([8 * log(2) * len(zlib.compress(text.encode(), 9)) for text in TEXTS])
    other = targets.NGram.fit("Call me Ishmael.", order=1)
    assert Perplexity().rank(reading).tolist() == pytest.approx((-nats / size).tolist(), rel=1e-9)
    assert Zlib().rank(reading).tolist() == pytest.approx((packed / nats).tolist(), rel=1e-9)
    lower = entropies(model, [text.lower() for text in TEXTS])
    assert Lowercase().rank(reading).tolist() == pytest.approx((lower / nats).tolist(), rel=1e-9)
    ratio = entropies(other, TEXTS) / nats
    assert Reference(other).rank(reading).tolist() == pytest.approx(ratio.tolist(), rel=1e-9)


def test_texts_are_read_once_for_all_rankings_but_lowercase(model):
    from assay.privacy import Questioned

    view = Questioned(model=model)
    reading = Reading(view, TEXTS)
    for ranking in (Perplexity(), Zlib(), Window(5), Reference(model)):
        ranking.rank(reading)
    assert view.cost(0).queries == len(TEXTS)
    Lowercase().rank(reading)
    assert view.cost(0).queries == 2 * len(TEXTS)


def inserted():
    """A model that has read 60 secrets among much English, and the same sentences with other secrets."""
    canaries = text_canaries([2] * 60, seed=0)
    text = planted(ENGLISH, [canary.text for canary in canaries] * 2, seed=0)
    rng = np.random.default_rng(1)
    fillers = [canary.secret.fill(canary.secret.draw(1, rng, without=canary.value)[0]) for canary in canaries]
    return targets.NGram.fit(text, order=6), [canary.text for canary in canaries], fillers


def test_zlib_and_ratio_tell_inserted_canaries_from_fillers():
    model, members, others = inserted()
    reading, truth = Reading(model, [*members, *others]), np.repeat([True, False], 60)
    for ranking in (Perplexity(), Zlib(), Reference(targets.NGram.fit(ENGLISH, order=6))):
        scores = Scores(ranking.rank(reading), truth)
        assert scores.auc() > 0.9
        assert scores.tpr(fpr=0.1).tpr.lower > 0.5


def test_the_ratio_ranks_secrets_before_common_text_where_perplexity_does_not():
    """Secrets inserted once, and 60 sayings that everybody knows: in the model's text and the reference's 40 times."""
    rng = np.random.default_rng(3)
    common = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz "), 30)) for _ in range(60)]
    canaries = text_canaries([1] * 60, seed=0)
    model, reference = (targets.NGram.fit(planted(ENGLISH, [*common * 40, *own], seed=0), order=6)
                        for own in ([canary.text for canary in canaries], []))
    reading, truth = Reading(model, [*(canary.text for canary in canaries), *common]), np.repeat([True, False], 60)
    assert Scores(Reference(reference).rank(reading), truth).auc() > 0.99
    assert Scores(Perplexity().rank(reading), truth).auc() < 0.2


def test_the_window_finds_a_canary_inside_of_noise_that_full_perplexity_misses():
    """A canary of some 30 characters inside of 300 random ones, beside text that is a little less random all over."""
    model, members, _ = inserted()
    rng = np.random.default_rng(2)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))

    def noise(size: int) -> str:
        return "".join(rng.choice(letters, size))

    hidden = [noise(150) + canary + noise(150) for canary in members]
    words = ENGLISH.replace("\n", " ").split()
    plain = ["".join(f"{rng.choice(words)} {noise(8)} " for _ in range(20)) for _ in members]
    reading, truth = Reading(model, [*hidden, *plain]), np.repeat([True, False], 60)
    assert Scores(Window(20).rank(reading), truth).auc() > 0.99
    assert Scores(Perplexity().rank(reading), truth).auc() < 0.5
