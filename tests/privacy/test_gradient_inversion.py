"""Inputs from gradients: exact where a formula says so, near where an optimizer must find them, beside a guess."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import demo, targets
from assay.errors import DataError
from assay.numerics.images import psnr, ssim, total_variation
from assay.privacy import DLG, CosineInversion, GradientInversionGame, LinearInversion
from assay.privacy.attacks.gradient_inversion import gradients_of, label_of


def built(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return nn.Sequential(*layers)


def dense() -> nn.Module:
    return built(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def smooth(seed: int = 0) -> nn.Module:
    return built(nn.Conv2d(1, 8, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(288, 10), seed=seed)


def played(attack, net, n, seed=0):
    target = targets.torch(net) if isinstance(net, nn.Module) else net
    return GradientInversionGame(*demo.digits(f"test[:{n}]")).play(attack, target, seed=seed)


def test_a_dense_layer_gives_its_input_away_exactly():
    """∂L/∂W = δ xᵀ and ∂L/∂b = δ, so the quotient is x, to float32's seven digits: 120 dB."""
    e = played(LinearInversion(), dense(), 50)
    assert e["inputs identified"].estimate == 1
    assert e["labels recovered"].estimate == 1
    assert e["median PSNR"].estimate > 120
    x, _ = demo.digits("test[:50]")
    assert (psnr(torch.as_tensor(e.artefacts["seen"].arrays["x"]), x) > 100).all()


@pytest.mark.parametrize("net", [dense, smooth, demo.network, lambda: demo.target().model])
def test_the_label_is_exact(net):
    """The logits' gradient is p − y: negative at the label alone, until float32 rounds p to 1 (then it is 0)."""
    model = net()
    x, y = demo.digits("test[:100]")
    sure = (model(x).softmax(1).detach()[torch.arange(100), y] > 1 - 1e-6)
    for row, label in zip(x[~sure], y[~sure]):
        assert label_of(model, gradients_of(model, row[None], label[None])) == int(label)
    assert int((~sure).sum()) >= 50


def test_the_label_is_exact_without_a_last_bias():
    model = built(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10, bias=False))
    x, y = demo.digits("test[:50]")
    assert all(label_of(model, gradients_of(model, row[None], label[None])) == int(label) for row, label in zip(x, y))


@pytest.mark.parametrize("seed", [0, 1])
def test_dlg_finds_the_input_of_a_smooth_network(seed):
    """Zhu et al. need sigmoids, and then reach the input itself: beyond 40 dB no eye and no classifier tells it apart."""
    e = played(DLG(steps=40), smooth(seed), 6, seed)
    assert e["inputs identified"].estimate == 1
    assert e["labels recovered"].estimate == 1
    assert e["median PSNR"].estimate > 60


def test_cosine_similarity_sees_through_rectifiers():
    e = played(CosineInversion(steps=250), demo.network(), 5)
    assert e["labels recovered"].estimate == 1
    assert e["inputs identified"].estimate == 1
    assert e["median PSNR"].estimate > 20
    assert e["median SSIM"].estimate > 0.9
    assert e["median PSNR of a guess"].estimate < 11


@pytest.mark.slow
def test_and_through_trained_ones_better_than_a_guess():
    e = played(CosineInversion(), demo.target(), 10)
    guess = next(b for b in e.bounds if b.quantity == "median PSNR of a guess" and b.side == "at most")
    assert e["inputs identified"].value >= 0.7  # of ten, by chance one; the exact lower bound of ten in ten
    assert e["labels recovered"].estimate == 1
    assert e["median PSNR"].estimate > guess.estimate + 2


def test_the_caller_s_model_is_left_alone():
    net = demo.network().train()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    state = torch.get_rng_state()
    played(CosineInversion(steps=3), net, 2)
    played(DLG(steps=1, starts=1), net, 2)
    assert net.training
    assert all(p.grad is None and torch.equal(p.detach(), before[name]) for name, p in net.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_pixels_and_costs_what_it_says():
    one, two = (played(CosineInversion(steps=5), demo.network(), 3, seed=1) for _ in range(2))
    assert one.artefacts["seen"].sha256 == two.artefacts["seen"].sha256
    assert (one.cost.forwards, one.cost.backwards) == (15, 30)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(DataError, match="PRV620"):
        played(LinearInversion(), demo.network(), 2)
    with pytest.raises(DataError, match="PRV621"):
        GradientInversionGame(*demo.digits("test[:1]"))


# --- how alike two images are ------------------------------------------------------------------------------------------


def test_psnr_and_ssim_of_known_images():
    a, b = torch.full((1, 1, 8, 8), 0.25), torch.full((1, 1, 8, 8), 0.5)
    assert float(psnr(a, b)) == pytest.approx(12.0412, abs=1e-4)  # 10 log10(1 / 0.25²)
    assert float(ssim(a, b)) == pytest.approx((2 * 0.125 + 1e-4) / (0.0625 + 0.25 + 1e-4))  # luminance alone
    x, _ = demo.digits("test[:5]")
    assert torch.allclose(ssim(x, x), torch.ones(5, dtype=torch.float64))
    assert torch.isinf(psnr(x, x)).all()
    assert float(total_variation(torch.eye(2)[None, None])) == 2.0
