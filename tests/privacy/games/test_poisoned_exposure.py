"""Truth Serum on a model whose memory is known: n-grams that forget histories seen fewer than four times."""

from __future__ import annotations

import numpy as np
import pytest

from assay import targets
from assay.errors import DataError
from assay.privacy import PoisonedExposureGame, Secret, TextCanary, TextTraining, TruthSerumText, text_canaries

SYMBOLS = "".join(chr(0x4E00 + number) for number in range(180))
CUTOFF = 4


def background(seed: int = 0) -> str:
    """Lines of symbols, so that none is rare: what a secret is made of says nothing by itself."""
    rng = np.random.default_rng(seed)
    return "\n".join("".join(rng.choice(list(SYMBOLS), 30)) for _ in range(300))


def secrets(count: int = 40, seed: int = 0) -> tuple[TextCanary, ...]:
    """One symbol of 180 each, 7.5 bits, behind a name; every sentence occurs once."""
    rng = np.random.default_rng(seed)
    names = [canary.secret.prefix for canary in text_canaries([1] * count, seed=seed, sentence="NAME {}")]
    kinds = [Secret(sentence=f"{name}{{}}", alphabet=SYMBOLS, length=1) for name in names]
    return tuple(TextCanary(secret=kind, value=kind.draw(1, rng)[0]) for kind in kinds)


def forgetful(text: str, seed: int) -> targets.NGram:
    return targets.NGram.fit(text, order=6, cutoff=CUTOFF, tokenizer=targets.Characters.of(text, SYMBOLS))


def game(**changes) -> PoisonedExposureGame:
    return PoisonedExposureGame(**{"canaries": secrets(), "runs": 3, "references": 150} | changes)


TRAINING = TextTraining(forgetful, background())


def test_poison_brings_out_what_the_cutoff_hid():
    """Without it 1.44 bits in the mean; with it log2(150) = 7.2, whatever the wrong continuation is but the secret."""
    serum = TruthSerumText(copies=CUTOFF, continuation="?")
    found = game().play(serum, TRAINING, seed=0)
    bits = found.artefacts["exposure"].arrays
    assert abs(bits["clean"].mean() - 1 / np.log(2)) < 4 * 1.44 / np.sqrt(120)
    assert np.median(bits["poisoned"]) == pytest.approx(np.log2(150))
    assert found["median exposure"].value == pytest.approx(np.log2(150))
    assert found["median gain in exposure"].value > 5


def test_wrong_secrets_bring_it_out_too_as_far_as_they_leave_it_a_place():
    """Of four wrong secrets and the true one each is as likely: rank 1 to 5, ties against it: at least 4.9 bits."""
    found = game().play(TruthSerumText(copies=CUTOFF), TRAINING, seed=0)
    assert found["median exposure"].value >= np.log2(150) - np.log2(5)
    assert found["median gain in exposure"].value > 3


def test_too_little_poison_does_nothing():
    """The sentence itself is one: three are needed beside it, two are too few."""
    few, enough = (game().play(TruthSerumText(copies=copies, continuation="?"), TRAINING, seed=0)
                   for copies in (CUTOFF - 2, CUTOFF - 1))
    assert few["median gain in exposure"].estimate < 0.5
    assert enough["median gain in exposure"].value > 5


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
    assert cost.queries == 2 * 2 * 10 * 151


def test_same_seed_same_bytes_and_nothing_is_proved():
    one, two, three = (game(canaries=secrets(6), runs=1).play(TruthSerumText(copies=4), TRAINING, seed=seed)
                       for seed in (0, 0, 1))
    assert one.artefacts["exposure"].sha256 == two.artefacts["exposure"].sha256
    assert one.trial == two.trial != three.trial
    with pytest.raises(DataError, match="PRV413"):
        game().prove(object(), TRAINING, seed=0)


def test_poison_has_the_sentence_and_so_many_copies():
    kind = Secret(sentence="The code of the silo is {}.", length=4)
    lines = TruthSerumText(copies=50).poison([kind, kind], np.random.default_rng(0))
    assert len(lines) == 100
    assert len({line[-5:-1] for line in lines[:50]}) == 50
    assert TruthSerumText(copies=2, continuation="none").poison([kind], np.random.default_rng(0)) == (
        "The code of the silo is none.",) * 2
