from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from assay import demo, evasion
from assay.errors import ConfigError
from assay.evasion.attacks.spatial import variation
from assay.evasion.budgets import parse_budget
from assay.targets.base import Bounds

UNIT = Bounds(0.0, 1.0)
FAMILIES = [evasion.Rotation(), evasion.Flow(), evasion.Semantic()]


def images(rows: int = 4, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, channels, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def game(budget: object, access: str = "gradients", queries: int | None = None) -> evasion.EvasionGame:
    x, y = demo.digits("test[:100]")
    return evasion.EvasionGame(x, y, threat=budget.threat(access=access, queries=queries))


# --- families --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.kind)
def test_no_parameters_are_no_change_and_have_a_gradient(family) -> None:
    x = images()
    start = family.start(x).requires_grad_()
    same = family.apply(x, start, UNIT)
    assert torch.equal(same, x)
    weight = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((same * weight).sum(), start)
    assert (gradient.flatten(1).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.kind)
def test_gradients_are_those_of_finite_differences_and_rows_are_independent(family) -> None:
    x = images(3).clamp(0.2, 0.8)
    theta = torch.rand(family.start(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.1
    assert torch.autograd.gradcheck(lambda t: family.apply(x, t, UNIT), theta.requires_grad_(), atol=1e-6)
    together = family.apply(x, theta, UNIT)
    assert torch.allclose(family.apply(x[1:2], theta[1:2], UNIT), together[1:2], atol=1e-12)


def test_a_quarter_turn_and_whole_pixels_are_exact() -> None:
    x = images(2)[..., :9]
    turned = evasion.Rotation(rotation=90, translation=0).apply(x, torch.tensor([[1.0, 0, 0]] * 2).double(), UNIT)
    assert torch.allclose(turned, torch.rot90(x, 1, (2, 3)), atol=1e-12)
    moved = evasion.Rotation(rotation=0, translation=2).apply(x, torch.tensor([[0, 1.0, 0.5]] * 2).double(), UNIT)
    assert torch.allclose(moved[:, :, 1:, 2:], x[:, :, :-1, :-2], atol=1e-12)
    assert float(moved[:, :, :1].abs().max()) == 0


def test_any_angle_is_scipys_rotation_inside() -> None:
    x = torch.tensor(ndimage.gaussian_filter(np.random.default_rng(0).random((21, 33)), 2))[None, None]
    ours = evasion.Rotation(rotation=20, translation=0).apply(x, torch.tensor([[1.0, 0, 0]]).double(), UNIT)
    theirs = ndimage.rotate(x[0, 0].numpy(), 20, reshape=False, order=1)
    assert np.abs(ours[0, 0].numpy() - theirs)[5:-5, 10:-10].max() < 1e-9


def test_a_constant_flow_is_a_translation() -> None:
    x = images(1)
    flow = torch.zeros(1, 2, 9, 12, dtype=x.dtype)
    flow[:, 0] = -1.0
    moved = evasion.Flow(flow=2).apply(x, flow, UNIT)
    assert torch.allclose(moved[..., 2:], x[..., :-2], atol=1e-12)


def test_color_contrast_brightness_and_blur_are_what_they_say() -> None:
    x = images(1) * 0.5 + 0.25
    theta = torch.zeros(1, 5, dtype=x.dtype)
    full = evasion.Semantic(hue=1, saturation=1, contrast=0.5, brightness=0.1, blur=1.5)

    def changed(place: int, value: float = 1.0) -> torch.Tensor:
        moved = theta.clone()
        moved[0, place] = value
        return full.apply(x, moved, Bounds(-9, 9))

    assert torch.allclose(changed(0), x, atol=1e-6)  # once round the color circle
    gray = (x * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)
    assert torch.allclose(changed(1, -1.0), gray.expand_as(x), atol=1e-6)  # no saturation is luma
    assert float(changed(2).std()) == pytest.approx(1.5 * float(x.std()))
    assert torch.allclose(changed(3), x + 18 * 0.1, atol=1e-9)  # a share of the box from −9 to 9
    smooth = ndimage.gaussian_filter(x[0, 0].numpy(), math.sqrt(1.5**2 + 1e-4), mode="nearest", radius=5)
    assert np.abs(changed(4)[0, 0].numpy() - smooth).max() < 1e-9


def test_budgets_are_read_from_words_and_printed_as_such() -> None:
    for text in ("rotation 30 translation 3", "flow 1.5", "hue 0.1 contrast 0.3", "linf 0.1", "l2 inf"):
        assert str(parse_budget(text)) == text
    assert str(parse_budget("rotation 30 translation 3").at(0.5)) == "rotation 15 translation 1.5"
    for text in ("rotation", "rotation 30 hue 1", "rotation 30 rotation 20", "flow -1", "flow 1 px"):
        with pytest.raises(ConfigError) as caught:
            parse_budget(text)
        assert caught.value.code == "THR104"


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_the_grid_finds_what_foolbox_finds_and_few_places_find_most() -> None:
    """foolbox 3.3.4, SpatialAttack(max_translation=1, max_rotation=30, num_translations=5, num_rotations=31)."""
    budget = evasion.Rotation(rotation=30, translation=1)
    grid = game(budget, "labels").play(evasion.SpatialSearch(), demo.target(), seed=0)
    assert grid["robust accuracy"].estimate <= 0.02
    assert grid.cost.queries <= 100 * 775
    few = game(budget, "labels", queries=10).play(evasion.SpatialSearch(mode="worst-of-k"), demo.target(), seed=0)
    assert few["robust accuracy"].estimate <= 0.25  # 15 % when first measured
    assert few.cost.queries <= 100 * 10


def test_stadv_breaks_what_pgd_breaks_with_a_smoother_flow() -> None:
    found = [game(evasion.Flow(flow=1)).play(attack, demo.target(), seed=0) for attack in (evasion.StAdv(), evasion.PGD())]
    assert [each["robust accuracy"].estimate for each in found] == [0.0, 0.0]
    smooth, rough = (variation(torch.tensor(each.artefacts["adversarial"].arrays["parameters"]))[0].median()
                     for each in found)
    assert float(smooth) <= 0.25 * float(rough)


def test_any_attack_moves_parameters_and_what_it_found_is_judged_again() -> None:
    net = demo.target()
    plan = game(evasion.Semantic(contrast=0.5, brightness=0.2, blur=1))
    found = plan.play(evasion.PGD(), net, seed=0)
    assert found["robust accuracy"].estimate <= 0.65  # 60 % when first measured
    replayed = plan.replay(found, net)
    assert replayed.held == replayed.total > 30
    searched = game(evasion.Rotation(rotation=30, translation=1), "scores").play(evasion.Square(queries=200), net, seed=0)
    assert searched["robust accuracy"].estimate <= 0.05


def test_parameters_outside_the_budget_do_not_count() -> None:
    class Far(evasion.SpatialSearch):
        def perturb(self, view, x, y, budget, rng):
            return super().perturb(view, x, y, budget.at(1.0), rng)

    small = evasion.Rotation(rotation=30, translation=1).at(0.1)
    found = game(small, "labels").play(Far(), demo.target(), seed=0)
    assert "DBT107" in [doubt.code for doubt in found.doubts]
    fair = game(small, "labels").play(evasion.SpatialSearch(), demo.target(), seed=0)
    assert found["robust accuracy"].estimate >= fair["robust accuracy"].estimate - 0.02


def test_methods_made_for_other_budgets_are_refused() -> None:
    net = demo.target()
    for budget, method in ((evasion.Linf(0.1), evasion.StAdv()), (evasion.Flow(), evasion.SpatialSearch()),
                           (evasion.Flow(), evasion.FAB(steps=2))):
        found = game(budget).play(method, net, seed=0)
        if isinstance(method, evasion.FAB):
            assert found.kind == "played"
        else:
            assert found.error.startswith("THR105")
    assert game(evasion.Rotation()).prove(evasion.IBP(), net, seed=0).error.startswith("THR105")
