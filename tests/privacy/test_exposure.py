"""Exposure where its value is known: by rank, under the null, and of a curve whose tail is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from assay import targets
from assay.errors import DataError
from assay.privacy import Exposure, ExposureGame, Secret, TextCanary, planted, text_canaries
from assay.privacy.text.exposure import by_rank, extrapolated

TEXT = "\n".join(["We have seen better days, and worse.", "Let no such man be trusted."] * 20)


@pytest.mark.parametrize("bits", [1, 8, 12])
def test_the_first_of_so_many_references_has_so_many_bits(bits):
    references = -np.arange(1.0, 2**bits + 1)
    assert by_rank(0.0, references) == bits
    assert by_rank(-1.5, references) == bits - 1
    assert by_rank(-1e9, references) == 0


def test_ties_count_against_the_secret():
    assert by_rank(0.0, np.zeros(256)) == 0
    assert by_rank(0.0, np.r_[0.0, -np.ones(255)]) == 7


def test_a_secret_that_was_not_inserted_has_1_44_bits_in_the_mean():
    """Carlini et al. (2019), §4.2: 1 / ln 2. And the chance of b bits is 2^−b: 4 bits in 6.25 % of the cases."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 1024))
    bits = np.array([by_rank(row[0], row[1:]) for row in scores])
    assert abs(bits.mean() - 1 / np.log(2)) < 4 * bits.std() / np.sqrt(len(bits))
    share = (bits >= 4).mean()
    assert abs(share - 2**-4) < 4 * np.sqrt(2**-4 / len(bits))


@pytest.mark.parametrize("sigmas", [1.0, 2.0, 3.0])
def test_extrapolation_finds_the_known_tail_of_a_curve(sigmas):
    """Normal scores are skew-normal with no skew: −log2 Φ(−s) bits, 9.53 of them at s = 3."""
    rng = np.random.default_rng(1)
    known = -np.log2(norm.sf(sigmas))
    found = [extrapolated(5 + 2 * sigmas, 5 + 2 * rng.normal(size=1000), space=10**9) for _ in range(10)]
    assert np.mean([curve.bits for curve in found]) == pytest.approx(known, rel=0.1)
    assert all(curve.fit > 0.01 for curve in found)
    assert not any(curve.beyond for curve in found if curve.bits < np.log2(1000))


def test_no_more_bits_than_the_secret_has_and_beyond_the_references_is_said():
    references = np.random.default_rng(2).normal(size=200)
    found = extrapolated(30.0, references, space=10**6)
    assert found.bits == pytest.approx(np.log2(10**6))
    assert found.beyond
    assert by_rank(30.0, references) == np.log2(200)


def test_curves_that_do_not_fit_have_a_small_p_value():
    two = np.r_[np.random.default_rng(3).normal(size=500), 50 + np.random.default_rng(4).normal(size=500)]
    assert extrapolated(51.0, two, space=10**6).fit < 1e-6


def test_too_few_references_are_refused():
    with pytest.raises(DataError, match="PRV420"):
        by_rank(0.0, np.array([]))
    with pytest.raises(DataError, match="PRV420"):
        extrapolated(0.0, np.zeros(99), space=10)
    with pytest.raises(DataError, match="PRV421"):
        ExposureGame(canaries=text_canaries([1], seed=0, length=2), references=100)


# --- the game --------------------------------------------------------------------------------------------------------


def test_planting_keeps_the_text_and_puts_every_line_in():
    canaries = text_canaries([1, 4, 16], seed=0)
    lines = [canary.text for canary in canaries for _ in range(canary.repeats)]
    text = planted(TEXT, lines, seed=0)
    assert [text.split("\n").count(canary.text) for canary in canaries] == [1, 4, 16]
    rest = [line for line in text.split("\n") if line not in lines]
    assert "\n".join(rest) == TEXT
    assert planted(TEXT, lines, seed=0) == text != planted(TEXT, lines, seed=1)


def test_references_are_different_uniform_and_never_the_secret():
    secret = Secret(sentence="{}", length=2)
    drawn = secret.draw(99, np.random.default_rng(0), without="42")
    assert sorted([*drawn, "42"]) == [f"{number:02d}" for number in range(100)]
    with pytest.raises(DataError, match="PRV421"):
        secret.draw(100, np.random.default_rng(0), without="42")


def test_a_model_that_has_read_the_secrets_exposes_them_fully_and_one_that_has_not_exposes_none():
    inserted = text_canaries([4] * 40, seed=0)
    text = planted(TEXT, [canary.text for canary in inserted] * 4, seed=0)
    model = targets.NGram.fit(text, order=7)
    game = ExposureGame(canaries=inserted, references=255)
    found = game.play(Exposure(), model, seed=0)
    assert found["median exposure"].value == np.log2(255)
    assert found["secrets ranked first"].estimate == 1
    unread = ExposureGame(canaries=tuple(_other(canary) for canary in inserted), references=255)
    bits = unread.play(Exposure(), model, seed=0).artefacts["exposure"].arrays["bits"]
    assert bits.mean() < 1 / np.log(2) + 3 * 1.44 / np.sqrt(40)  # the null's standard deviation is 1.44 bits too


def _other(canary: TextCanary) -> TextCanary:
    return TextCanary(secret=canary.secret, value=canary.value[::-1][:3] + canary.value[:3], repeats=1)


def test_the_adversary_does_not_see_which_candidate_is_the_secret():
    class First:
        """Always believes in the first candidate."""

        def infer(self, model, texts):
            return -np.arange(float(len(texts)))

    game = ExposureGame(canaries=text_canaries([1] * 200, seed=0), references=63)
    bits = game.expose(First(), targets.NGram.fit(TEXT, order=2), seed=0).bits
    assert abs(bits.mean() - 1 / np.log(2)) < 4 * 1.44 / np.sqrt(200)


def test_extrapolated_exposure_is_kept_apart_and_doubted():
    canaries = text_canaries([8] * 3, seed=0)
    text = planted(TEXT, [canary.text for canary in canaries] * 8, seed=0)
    game = ExposureGame(canaries=canaries, references=127, extrapolate=True)
    found = game.play(Exposure(), targets.NGram.fit(text, order=7), seed=0)
    assert found["median exposure"].estimate == np.log2(127)
    assert (found.artefacts["exposure"].arrays["extrapolated"] > 7).all()
    assert [doubt.code for doubt in found.doubts] == ["PRV422"]


def test_same_seed_same_bytes():
    game = ExposureGame(canaries=text_canaries([1] * 3, seed=0), references=31)
    model = targets.NGram.fit(TEXT, order=3)
    one, two, three = (game.play(Exposure(), model, seed=seed) for seed in (0, 0, 1))
    assert one.artefacts["exposure"].sha256 == two.artefacts["exposure"].sha256
    assert one.trial == two.trial != three.trial
    assert one.cost.queries == 3 * 32
