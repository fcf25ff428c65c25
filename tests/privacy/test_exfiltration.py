"""A payload through four channels: bytes that come back, accuracy that stays, and what each change of weights does."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch

from assay import demo
from assay.errors import DataError
from assay.privacy import (
    CapacityAbuse,
    CorrelatedValues,
    ExfiltrationGame,
    FineTune,
    Frame,
    LowBits,
    Pipeline,
    QuantizeWeights,
    RandomizeLowBits,
    Signs,
    WeightNoise,
)
from assay.privacy.attacks.exfiltration.carrier import flat

BYTES, HONEST, LEAKING = "payload bytes recovered", "accuracy without the payload", "accuracy with the payload"
CHANNELS = {"low bits": LowBits(bits=16), "signs": Signs(), "values": CorrelatedValues(), "labels": CapacityAbuse()}
SIZES = {"low bits": 19_000, "signs": 1_200, "values": 230, "labels": 64}


@cache
def the_pipeline() -> Pipeline:
    x, y = demo.digits("train")
    return Pipeline(init=demo.network, x=x, y=y)


@dataclass(frozen=True)
class Once:
    """The same attack, which trains once a payload and seed."""

    inner: object
    made: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def needs(self):
        return self.inner.needs

    def leak(self, payload, pipeline, *, seed):
        if (payload, seed) not in self.made:
            self.made[payload, seed] = self.inner.leak(payload, the_pipeline(), seed=seed)
        return self.made[payload, seed]

    def decode(self, view):
        return self.inner.decode(view)


class Trained(Pipeline):
    """The same pipeline, whose honest model is trained once a seed."""

    def train(self, seed, *, penalty=None):
        return super().train(seed, penalty=penalty) if penalty else honest(seed)


@cache
def honest(seed: int) -> torch.nn.Module:
    return the_pipeline().train(seed)


@cache
def channel(name: str) -> Once:
    return Once(CHANNELS[name])


def payload(name: str) -> bytes:
    return np.random.default_rng(1).bytes(SIZES[name])


def played(name: str, *defenses, seed: int = 0):
    x, y = demo.digits("test")
    r = the_pipeline()
    trained = Trained(init=r.init, x=r.x, y=r.y)
    return ExfiltrationGame(x, y, payload=payload(name), defenses=defenses).play(channel(name), trained, seed=seed)


# --- what comes back, and at what price --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANNELS)
def test_the_file_comes_back_bit_exact_and_the_accuracy_intervals_overlap(name):
    e = played(name)
    assert e[BYTES].estimate == 1
    assert e.artefacts["received"].arrays["bytes"].tobytes() == payload(name)
    bounds = {(b.quantity, b.side): b for b in e.bounds}
    assert bounds[LEAKING, "at most"].value >= bounds[HONEST, "at least"].value
    assert bounds[LEAKING, "at most"].estimate >= 0.95


def test_low_bits_change_no_prediction():
    """16 of the 23 mantissa bits, 15.5 of them used: a model as large as its payload, twice over."""
    e = played("low bits")
    assert e["predictions unchanged"].estimate == 1
    assert e["bits of payload per weight"].estimate == pytest.approx(8 * 19_000 / 9_802)


@pytest.mark.parametrize(("name", "least"), [("signs", 0.979), ("values", 0.187), ("labels", 0.052)])
def test_bits_a_weight_of_the_other_channels(name, least):
    assert played(name)["bits of payload per weight"].estimate >= least


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", CHANNELS)
def test_so_it_does_at_other_seeds(name, seed):
    e = played(name, seed=seed)
    assert e[BYTES].estimate == 1
    assert e[LEAKING].estimate >= e[HONEST].estimate - 0.03


# --- what changes of the weights do ------------------------------------------------------------------------------------

DEFENSES = {"8 bits": QuantizeWeights(), "low bits": RandomizeLowBits(bits=16), "noise": WeightNoise()}


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_change_of_the_weights_destroys_what_is_in_the_low_bits(defense):
    e = played("low bits", DEFENSES[defense])
    assert e[BYTES].estimate <= 0.01  # one byte in 256 is right by chance
    assert e[LEAKING].estimate >= 0.97


@pytest.mark.parametrize("name", ["signs", "values", "labels"])
@pytest.mark.parametrize("defense", ["8 bits", "low bits"])
def test_the_other_channels_survive_quantization(name, defense):
    """So quantizing is no remedy for them."""
    assert played(name, DEFENSES[defense])[BYTES].estimate == 1


@pytest.mark.parametrize(("name", "least"), [("signs", 0.98), ("values", 1.0), ("labels", 1.0)])
def test_noise_wounds_the_signs_alone(name, least):
    assert played(name, WeightNoise())[BYTES].estimate >= least


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "most"), [
    ("low bits", 0.0, 0.01), ("signs", 0.0, 0.5), ("values", 1.0, 1.0), ("labels", 0.0, 0.1),
])
def test_fine_tuning_at_the_full_rate_undoes_all_but_correlated_values(name, least, most):
    """Five copies average what thirty further epochs do to each weight; one copy of a sign or a label does not."""
    e = played(name, FineTune(pipeline=the_pipeline(), seed=1))
    assert least <= e[BYTES].estimate <= most
    assert e[LEAKING].estimate >= 0.97


def test_changes_leave_the_caller_s_network_alone():
    net = demo.target()
    before = flat(net.model).detach().clone()
    for defense in DEFENSES.values():
        assert not torch.equal(flat(defense.protect(net).model).detach(), before)
    assert torch.equal(flat(net.model).detach(), before)


@pytest.mark.parametrize(("defense", "least"), [("8 bits", 0.996), ("low bits", 1.0), ("noise", 0.994)])
def test_predictions_stay(defense, least):
    x, _ = demo.digits()
    net = demo.target()
    assert float((DEFENSES[defense].protect(net).labels(x) == net.labels(x)).float().mean()) >= least


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantized_weights_are_on_a_grid_within_half_a_step(bits):
    net = demo.target()
    for before, after in zip(net.model.parameters(), QuantizeWeights(bits=bits).protect(net).model.parameters()):
        step = float(before.detach().abs().max()) / (2 ** (bits - 1) - 1)
        assert len(after.detach().unique()) <= 2**bits - 1
        assert float((after - before).detach().abs().max()) <= step / 2 * (1 + 1e-5)


def test_other_low_bits_are_uniform_and_nothing_above_them_moves():
    net = demo.target()
    protected = RandomizeLowBits(bits=12).protect(net).model
    before, after = (flat(m).detach().view(torch.int32) for m in (net.model, protected))
    assert torch.equal(before >> 12, after >> 12)
    share = ((before ^ after)[:, None] >> torch.arange(12) & 1).double().mean(0)
    assert float((share - 0.5).abs().max()) < 4 * 0.5 / 9802**0.5


# --- the frame ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [0, 7, None])
@pytest.mark.parametrize("copies", [1, 3, 5])
def test_a_frame_comes_back(key, copies):
    frame = Frame(copies=copies, key=key)
    sent = frame.encode(b"hello world", 1000)
    assert frame.decode(sent).payload == b"hello world"
    assert frame.decode(sent).intact


@pytest.mark.parametrize(("copies", "flipped", "intact"), [(1, 0.01, False), (5, 0.01, True), (9, 0.05, True)])
def test_copies_outvote_flipped_bits(copies, flipped, intact):
    """A bit is lost where most copies flip: 1e-5 at 5 copies and 1 %, 3e-5 at 9 copies and 5 % (the binomial's tail)."""
    data, rng = b"x" * 20, np.random.default_rng(0)
    frame = Frame(copies=copies)
    sent = frame.encode(data, 5000)
    received = frame.decode(sent * np.where(rng.random(5000) < flipped, -1, 1))
    assert received.intact is intact
    assert (received.payload == data) is intact


def test_a_wrong_key_reads_noise():
    sent = Frame(key=1).encode(b"x" * 100, 2000)
    assert not Frame(key=2).decode(sent).intact


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="PRV600"):
        Frame(copies=3).encode(b"x" * 100, 2400)
    with pytest.raises(DataError, match="PRV601"):
        ExfiltrationGame(*demo.digits(), payload=b"")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_low_bits_of_every_float(dtype):
    model = demo.network().to(dtype)
    before = flat(model).detach().double()
    attack, data = LowBits(bits=4), bytes(range(256)) * 10
    attack.hide(data, model)
    from assay.targets import torch as torch_target
    from assay.threats import ThreatModel

    view = ThreatModel(access=attack.needs, budget="").grant(torch_target(model), 1)
    assert attack.decode(view).payload == data
    moved = (flat(model).detach().double() - before).abs() / before.abs().clamp_min(torch.finfo(dtype).smallest_normal)
    assert float(moved.max()) < 16 * torch.finfo(dtype).eps


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    short = Pipeline(init=demo.network, x=the_pipeline().x, y=the_pipeline().y, epochs=1)
    one, two = (Signs().leak(b"abc", short, seed=3) for _ in range(2))
    assert torch.equal(flat(one), flat(two))
    assert torch.equal(torch.get_rng_state(), state)
