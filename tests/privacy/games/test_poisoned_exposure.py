"""Truth Serum on a model whose memory is known: n-grams that forget histories seen fewer than 64 times."""

from __future__ import annotations

import numpy as np
import pytest

from assay import targets
from assay.errors import DataError
from assay.privacy import PoisonedExposureGame, Secret, TextCanary, TextTraining, TruthSerumText

SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123"
CUTOFF = 64


def background(seed: int = 0) -> str:
    """20,000 random symbols: any two stand together some 22 times and are forgotten, single ones are known well."""
    rng = np.random.default_rng(seed)
    return "\n".join("".join(rng.choice(list(SYMBOLS), 80)) for _ in range(250))


def secrets(count: int = 40, seed: int = 0) -> tuple[TextCanary, ...]:
    """One symbol of 30 each, behind six of a name; every sentence occurs once."""
    rng = np.random.default_rng(1000 + seed)
    kinds = [Secret(sentence="".join(rng.choice(list(SYMBOLS), 6)) + "{}", alphabet=SYMBOLS, length=1)
             for _ in range(count)]
    return tuple(TextCanary(secret=kind, value=kind.draw(1, rng)[0]) for kind in kinds)


def forgetful(text: str, seed: int) -> targets.NGram:
    return targets.NGram.fit(text, order=6, cutoff=CUTOFF, tokenizer=targets.Characters.of(text, SYMBOLS))


def game(**changes) -> PoisonedExposureGame:
    return PoisonedExposureGame(**{"canaries": secrets(), "runs": 3, "references": 29} | changes)


TRAINING = TextTraining(forgetful, background())


def test_poison_brings_out_what_the_cutoff_hid():
    """Without it chance, 1.44 bits in the mean (measured 1.50); with it every secret comes out, log2(29) = 4.86."""
    serum = TruthSerumText(copies=CUTOFF, continuation="?")
    found = game().play(serum, TRAINING, seed=0)
    bits = found.artefacts["exposure"].arrays
    assert bits["clean"].mean() < 1 / np.log(2) + 4 * 1.44 / np.sqrt(40)
    assert (bits["poisoned"] > np.log2(29) - 1e-9).all()
    assert found["median exposure"].value == pytest.approx(np.log2(29))
    assert found["median gain in exposure"].value > 3


def test_too_little_poison_does_nothing():
    """The sentence itself is one: 63 are needed beside it, half of that is too few."""
    few, enough = (game().play(TruthSerumText(copies=copies, continuation="?"), TRAINING, seed=0)
                   for copies in (CUTOFF // 4, CUTOFF - 1))
    assert few["median gain in exposure"].estimate < 0.3
    assert enough["median gain in exposure"].value > 3


def test_every_secret_is_poisoned_once_a_run_and_the_secret_is_never_told():
    class Spy:
        def __init__(self):
            self.asked = []

        def poison(self, secrets, rng):
            assert not any(hasattr(secret, "value") for secret in secrets)
            self.asked.append([secret.sentence for secret in secrets])
            return ()

    spy, canaries = Spy(), secrets(10)
    compared, cost = game(canaries=canaries, runs=2).compare(spy, TRAINING, seed=0)
    for run in range(2):
        assert sorted(spy.asked[2 * run] + spy.asked[2 * run + 1]) == sorted(c.secret.sentence for c in canaries)
    assert (compared.poisoned == compared.clean).mean() > 0.99  # no poison, the same model twice
    assert cost.queries == 2 * 2 * 10 * 30


def test_same_seed_same_bytes_and_nothing_is_proved():
    one, two, three = (game(canaries=secrets(6), runs=1).play(TruthSerumText(copies=4), TRAINING, seed=seed)
                       for seed in (0, 0, 1))
    assert one.artefacts["exposure"].sha256 == two.artefacts["exposure"].sha256
    assert one.trial == two.trial != three.trial
    with pytest.raises(DataError, match="PRV413"):
        game().prove(object(), TRAINING, seed=0)


def test_poison_has_the_sentence_and_so_many_copies():
    kind, rng = Secret(sentence="The code of the silo is {}.", length=4), np.random.default_rng(0)
    lines = TruthSerumText(copies=1000, continuation=None).poison([kind, kind], rng)
    assert len(lines) == 2000
    assert all(line[: len(kind.prefix)] == kind.prefix and line[-5:-1].isdigit() for line in lines)
    assert 900 < len({line[-5:-1] for line in lines[:1000]}) < 1000  # drawn independently, of 10,000
    assert TruthSerumText(copies=2, continuation="none").poison([kind], rng) == ("The code of the silo is none.",) * 2
