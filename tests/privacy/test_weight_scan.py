"""What a scan of weights sees, what it must not see in honest ones, and what nobody can see."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from assay import demo
from assay.privacy import (
    CapacityAbuse,
    CorrelatedValues,
    ExfiltrationGame,
    Frame,
    LowBits,
    Pipeline,
    QuantizeWeights,
    Signs,
    SupplyChainGame,
    WeightScan,
)
from assay.privacy.attacks.weight_scan import SIGNATURES
from assay.targets.weights import file_format

MODELS = Path(os.environ.get("ASSAY_ASSETS", "../shared/assets")) / "models"
TEXT = b"name;card number;expires\n"
PLAIN = Frame(key=None)


def codes(model: nn.Module, **settings: object) -> set[str]:
    return {finding.code for finding in WeightScan(**settings).scan(model).findings}


def hidden(data: bytes, bits: int, frame: Frame = PLAIN) -> nn.Module:
    net = demo.target().model
    LowBits(bits=bits, frame=frame).hide(data, net)
    return net


# --- honest weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_honest_weights_give_no_finding(seed):
    scan = WeightScan().scan(demo.target(seed).model)
    assert scan.findings == ()
    assert scan.readable == 0
    assert max(abs(share - 0.5) for share in scan.ones) < 4 * 0.5 / 9802**0.5
    assert scan.entropy > 7.97


@pytest.mark.parametrize("width", [torch.float16, torch.bfloat16])
def test_weights_published_at_16_bits_give_none_either(width):
    net = demo.target().model.to(width)
    assert codes(net.float()) == set()
    assert codes(net.to(width)) == set()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_quantized_weights_give_none(bits):
    for seed in range(2):
        assert codes(QuantizeWeights(bits=bits).protect(demo.target(seed)).model) == set()


def test_untrained_weights_are_not_noise():
    """They are drawn from 24 random bits, so that their lowest byte has 7.2 bits of entropy."""
    assert codes(demo.network()) == {"PRV612"}


@pytest.mark.slow
def test_no_finding_in_published_networks():
    files = sorted([*MODELS.rglob("*.safetensors"), *MODELS.rglob("*.pth")])
    if not files:
        pytest.skip("the shared assets hold no models")
    seen = 0
    for file in files:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True, map_location="cpu")
        state = state.get("state_dict", state) if isinstance(state, dict) else state
        state = state[0] if isinstance(state, list) else state
        if not isinstance(state, dict):
            continue
        net = nn.ParameterList([v for k, v in state.items() if v.is_floating_point() and "running" not in k])
        assert codes(net) == set(), file.name
        seen += 1
    assert seen >= 8


# --- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 12, 16])
def test_text_is_read_at_any_depth(bits):
    data = TEXT * 8
    scan = WeightScan().scan(hidden(data, bits))
    assert "PRV610" in {f.code for f in scan.findings}
    assert any(data.strip() in sighting.text for sighting in scan.sightings if sighting.bits == bits)


@pytest.mark.parametrize("offset", [1, 3, 7, 1001])
@pytest.mark.parametrize("reverse", [False, True])
def test_text_is_read_wherever_it_starts_and_whichever_bit_is_first(offset, reverse):
    net = demo.target().model
    weight = net[5].weight.detach().view(torch.int32).flatten()
    order = "little" if reverse else "big"
    bits = torch.as_tensor(np.unpackbits(np.frombuffer(TEXT * 4, np.uint8), bitorder=order)).to(torch.int32)
    where = slice(offset, offset + len(bits))
    weight[where] = weight[where] & ~1 | bits
    assert "PRV610" in codes(net)


@pytest.mark.parametrize("kind", sorted(SIGNATURES))
def test_files_are_known_by_their_first_bytes(kind):
    data = SIGNATURES[kind] + np.random.default_rng(0).bytes(400)
    found = [f for f in WeightScan().scan(hidden(data, 4)).findings if f.code == "PRV611"]
    assert found
    assert kind in found[0].text


def test_plain_bytes_that_are_no_text_are_not_noise():
    assert codes(hidden(bytes(1000), 8)) == {"PRV612"}


def test_weights_off_the_16_bit_grid_of_the_others_are_counted():
    net = demo.target().model.half().float()
    LowBits(bits=8).hide(b"x" * 88, net)
    found = [f for f in WeightScan().scan(net).findings if f.code == "PRV613"]
    assert len(found) == 1
    off = int(found[0].text.split()[0])
    assert 90 <= off <= 100  # 100 bytes, one a weight, of which 1 in 256 is zero


def test_the_gap_around_zero_that_a_margin_leaves():
    x, y = demo.digits("train")
    pipeline = Pipeline(init=demo.network, x=x, y=y, epochs=5)
    assert codes(Signs().leak(b"a" * 1200, pipeline, seed=0)) == {"PRV614"}
    assert codes(CorrelatedValues().leak(b"a" * 230, pipeline, seed=0)) == {"PRV614"}


# --- what nobody sees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_what_is_encrypted_is_not_seen(bits):
    """The key stream makes a payload as uniform as what it replaces: no finding is the right answer, and no comfort."""
    assert codes(hidden(TEXT * 40, bits, Frame(key=1))) == set()


def test_what_is_memorized_is_not_seen():
    x, y = demo.digits("train")
    assert codes(CapacityAbuse().leak(b"a" * 64, Pipeline(init=demo.network, x=x, y=y, epochs=5), seed=0)) == set()


# --- the game ----------------------------------------------------------------------------------------------------------


def test_the_game_says_format_fingerprint_and_findings(tmp_path):
    from assay.targets import torch as target

    net = hidden(TEXT * 8, 8)
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    torch.save(net.state_dict(), tmp_path / "a.pth")
    safe = SupplyChainGame(file=tmp_path / "a.safetensors").play(WeightScan(), target(net), seed=0)
    assert safe["bytes readable in the weights"].estimate >= len(TEXT * 8)
    assert safe.provenance["format"] == "safetensors"
    assert [d.code for d in safe.doubts] == ["PRV610"]
    pickled = SupplyChainGame(file=tmp_path / "a.pth").play(WeightScan(), target(net), seed=0)
    assert "PRV615" in [d.code for d in pickled.doubts]
    assert pickled.provenance["weights"] == safe.provenance["weights"]


def test_the_format_is_read_from_the_file_not_from_its_name(tmp_path):
    torch.save({}, tmp_path / "a.safetensors")
    assert file_format(tmp_path / "a.safetensors").startswith("pickle")
    (tmp_path / "b").write_bytes(b"\x80\x04N.")
    assert file_format(tmp_path / "b") == "pickle"
    (tmp_path / "c").write_bytes(b"GGUF" + bytes(20))
    assert file_format(tmp_path / "c") == "unknown"


def test_the_weights_that_leaked_and_the_weights_that_were_scanned_are_known_to_be_the_same():
    from assay.targets import torch as target

    x, y = demo.digits("train")
    pipeline = Pipeline(init=demo.network, x=x, y=y, epochs=1)
    leaked = ExfiltrationGame(x[:50], y[:50], payload=b"abc").play(LowBits(), pipeline, seed=0)
    scanned = SupplyChainGame().play(WeightScan(), target(LowBits().leak(b"abc", pipeline, seed=0)), seed=0)
    assert leaked.provenance["weights"] == scanned.provenance["weights"]


def test_it_plays_as_a_plan_plays_it_and_replays():
    from assay.evidence.record import Evidence
    from assay.games import Settings, Words
    from assay.targets import torch as target

    game = SupplyChainGame.planned(None, Words(budget="any weights", access="weights"), Settings(confidence=0.9))
    net, other = target(hidden(TEXT * 8, 8)), target(demo.target().model)
    events = list(game.rounds([WeightScan(), WeightScan(chance=1e-9)], [object()], net, seed=0))
    found = [event for event in events if isinstance(event, Evidence)]
    assert [e.kind for e in found] == ["played", "played", "not run"]
    assert found[0].bounds[0].confidence == 0.9
    assert (game.replay(found[0], net).held, game.replay(found[0], other).held) == (1, 0)
    assert game.replay(found[1], net).total == 0  # that scan had other settings
