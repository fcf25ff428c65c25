"""Input cleansers and obfuscations around a published network: what they seem to hold, and what an attack leaves."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from assay import evasion
from assay.evasion.defenses.cleansing.jpeg import JPEG
from assay.numerics.seeds import Stream
from assay.targets.base import Protector, Target
from assay.targets.defended import Defended

pytestmark = pytest.mark.slow

BALL = evasion.Linf(8 / 255)
SHOWN = 40
"""Images that are attacked."""
FEW = 20
"""Images that are attacked many times over, for a randomized target."""

MASKED = [evasion.JPEG(), evasion.JPEG(quality=25), evasion.BitDepth(), evasion.Temperature(), evasion.RoundActivations()]
OPEN = [evasion.MedianBlur(), evasion.GaussianBlur(), evasion.Rescale(), evasion.TotalVariation(steps=10),
        evasion.KWTA()]
RANDOM = [evasion.RandomResizePad(), evasion.ActivationPruning()]


def named(value: object) -> str:
    return repr(value)


@pytest.fixture(scope="module")
def setting(zoo: ModuleType) -> tuple[Target, Tensor, Tensor]:
    pytest.importorskip("onnxruntime")
    x, y = zoo.cifar10()
    return zoo.resnet20(), torch.from_numpy(x), torch.from_numpy(y)


def left(defense: Protector, setting: tuple[Target, Tensor, Tensor], attack: evasion.PGD, knows: bool) -> float:
    """The share of the images shown that are right and stay so; a randomized target is judged by 51 looks."""
    target = defense.protect(setting[0])
    shown = FEW if target.randomized else SHOWN
    net, x, y = setting[0], setting[1][:shown], setting[2][:shown]
    assert isinstance(target, Defended)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        seen = target.adapted() if knows else target.naive()
        z = attack.perturb(BALL.threat().grant(seen, shown), x, y, BALL, Stream.seeded(0, torch.arange(shown)))
        looks = 51 if target.randomized else 1
        wrong = torch.stack([target.labels(z) != y for _ in range(looks)]).double().mean(0) > 0.5
    assert bool(BALL.contains(z, x, net.bounds).all())
    return float((~wrong).double().mean())


@pytest.mark.parametrize(
    ("defense", "clean"),
    [(evasion.JPEG(), 0.80), (evasion.BitDepth(), 0.82), (evasion.MedianBlur(), 0.86), (evasion.GaussianBlur(), 0.86),
     (evasion.TotalVariation(), 0.87), (evasion.Rescale(), 0.75), (evasion.RandomResizePad(), 0.90),
     (evasion.Temperature(), 0.93), (evasion.KWTA(), 0.83), (evasion.RoundActivations(), 0.84),
     (evasion.ActivationPruning(), 0.78)],
    ids=named,
)
def test_defenses_keep_most_of_the_clean_accuracy(
    setting: tuple[Target, Tensor, Tensor], defense: Protector, clean: float
) -> None:
    net, x, y = setting
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        right = (defense.protect(net).labels(x) == y).double().mean()
    assert float(right) >= clean


@pytest.mark.parametrize("defense", MASKED, ids=named)
def test_without_gradients_an_attack_that_does_not_know_is_stopped(
    setting: tuple[Target, Tensor, Tensor], defense: Protector
) -> None:
    assert left(defense, setting, evasion.PGD(steps=10), knows=False) >= 0.5


@pytest.mark.parametrize("defense", MASKED + OPEN, ids=named)
def test_an_attack_that_knows_leaves_nothing(setting: tuple[Target, Tensor, Tensor], defense: Protector) -> None:
    assert left(defense, setting, evasion.PGD(steps=40, loss="margin"), knows=True) <= 0.02


@pytest.mark.parametrize("defense", RANDOM, ids=named)
def test_an_attack_that_averages_over_draws_leaves_nothing(
    setting: tuple[Target, Tensor, Tensor], defense: Protector
) -> None:
    assert left(defense, setting, evasion.PGD(steps=15, loss="margin", draws=4), knows=True) <= 0.05


@pytest.mark.parametrize("quality", [50, 75, 95])
def test_the_stand_in_is_the_codec_on_photographs(setting: tuple[Target, Tensor, Tensor], quality: int) -> None:
    x, codec, rng = setting[1].double(), JPEG(quality=quality), Stream(torch.zeros(300, dtype=torch.int64))
    real = codec.real(x, rng)
    apart = float((codec.stand_in(x, rng) - real).abs().mean())
    assert apart < 1 / 255
    assert apart < 0.3 * float((x - real).abs().mean())
