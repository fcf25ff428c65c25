from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from assay import demo, evasion, targets
from assay.errors import ConfigError
from assay.evasion.attacks.transfer import smoothed
from assay.numerics.seeds import Stream

ASSETS = Path(os.environ.get("ASSAY_ASSETS", Path(__file__).resolve().parents[4] / "shared" / "assets"))


def digits(radius: float) -> evasion.EvasionGame:
    x, y = demo.digits("test[:200]")
    return evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat(access="labels", queries=1))


def test_a_surrogate_that_is_the_target_is_nearly_as_good_as_the_gradients() -> None:
    net = demo.target()
    own = digits(0.2).play(evasion.Transfer(surrogates=(net,), diversity=0.0), net, seed=0)
    assert own["robust accuracy"].estimate <= 0.035  # 3 % when first measured; PGD on the target's own gradients: 0 %
    assert own.cost.queries <= 200


def test_four_surrogates_transfer_further_than_one() -> None:
    others = tuple(demo.target(seed) for seed in (1, 2, 3, 4))
    one, four = (digits(0.2).play(evasion.Transfer(surrogates=held, diversity=0.0), demo.target(), seed=0)
                 for held in (others[:1], others))
    # 9.5 % and 4.5 % when first measured; the target's own gradients leave 0 %.
    assert four["robust accuracy"].estimate <= one["robust accuracy"].estimate - 0.02
    assert four["robust accuracy"].estimate <= 0.06


def test_smoothing_a_gradient_is_averaging_over_translations() -> None:
    impulse = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    impulse[0, 1, 4, 4] = 1.0
    spread = smoothed(impulse, 5)
    assert spread[0, 0].abs().max() == 0  # channels do not mix
    assert float(spread.sum()) == pytest.approx(1.0)
    assert torch.allclose(spread[0, 1], spread[0, 1].T)
    assert int((spread[0, 1] > 0).sum()) == 25


def test_diverse_inputs_are_drawn_for_each_row_alone() -> None:
    attack = evasion.Transfer(surrogates=(demo.target(),), diversity=1.0)
    x = demo.digits("test[:6]")[0]
    rng = Stream.seeded(0, torch.arange(6))
    together = attack._diverse(x, rng)
    alone = attack._diverse(x[4:5], rng.select(torch.tensor([4])))
    assert torch.allclose(together[4:5], alone)
    assert not torch.allclose(together, x)
    assert 0.55 < float(together.sum() / x.sum()) <= 1.001  # shrunk to between 0.64 and all of the area, nothing cut off


def test_without_a_surrogate_it_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        evasion.Transfer(surrogates=())
    assert caught.value.code == "ATK165"


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="the published ResNets lie in ../shared/assets, which is absent")
@pytest.mark.parametrize(("diversity", "peer"), [(0.0, 0.75), (0.5, 0.7167)])
def test_it_fools_another_resnet_as_often_as_torchattacks(diversity: float, peer: float) -> None:
    """torchattacks 3.5.1, MIFGSM and DIFGSM(resize_rate=0.9): eps = 4/255, alpha = eps/8, 10 steps, these 60 images."""
    held = np.load(ASSETS / "datasets/cifar10_lossless/cifar10_lossless_subset.npz")
    x, y = torch.tensor(held["x_test"]).permute(0, 3, 1, 2).float() / 255, torch.tensor(held["y_test"]).long()
    victim, surrogate = (targets.onnx(str(ASSETS / f"models/cifar_resnet_akamaster/{name}.onnx"), bounds=(0, 1),
                                      normalize="imagenet") for name in ("resnet20", "resnet56"))
    right = (victim.labels(x) == y).nonzero()[:60, 0]
    game = evasion.EvasionGame(x[right], y[right], threat=evasion.Linf(4 / 255).threat(access="labels"))
    found = game.play(evasion.Transfer(surrogates=(surrogate,), steps=10, diversity=diversity), victim, seed=0)
    # Inputs are drawn at random: 70 % and 75 % under two seeds, 60 images; one standard deviation is 6 %.
    assert 1 - found["robust accuracy"].estimate >= peer - (0.03 if diversity else 1e-3)
