"""Bound propagation against closed forms, hand-computed nets and linear programs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import DataError, TargetError
from assay.evasion.proofs.relaxation import Ball, Norm, certified_margins, certify, interval_bounds, read_network
from assay.evasion.proofs.relaxation.forms import Form

NORMS = list(Norm)
DUAL = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: float("inf")}
OPEN = {"lower": -100.0, "upper": 100.0}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def mlp(seed: int, *sizes: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double().eval()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_a_linear_model_has_its_closed_form(norm: Norm, method: str) -> None:
    model = mlp(0, 7, 4)
    x = torch.rand(5, 7, dtype=torch.float64, generator=generator(1))
    y, radius = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0.0, 0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    net = read_network(model, x)
    margins = certified_margins(net, x, y, Ball(norm, radius, **OPEN), method=method)
    weight = model[0].weight[y][:, None] - model[0].weight[None]
    logits = model(x)
    expected = logits.gather(1, y[:, None]) - logits - radius[:, None] * weight.norm(p=DUAL[norm], dim=2)
    expected = expected.detach().scatter(1, y[:, None], torch.inf)
    torch.testing.assert_close(margins, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_l1_inside_the_box_is_the_linear_program(seed: int) -> None:
    draw = generator(seed)
    x = torch.rand(1, 6, dtype=torch.float64, generator=draw)
    slope = torch.randn(1, 6, dtype=torch.float64, generator=draw)
    radius = 0.3 + seed * 0.3
    found = Ball(Norm.L1, radius).around(x).minimize(Form(slope, torch.tensor([0]), (6,)))
    # x' = x + p - q with p, q >= 0 and sum p + q <= radius.
    cost = torch.cat([slope[0], -slope[0]])
    bounds = [(0, float(1 - v)) for v in x[0]] + [(0, float(v)) for v in x[0]]
    answer = linprog(cost.numpy(), A_ub=[[1] * 12], b_ub=[radius], bounds=bounds)
    assert float(found) == pytest.approx(float(slope[0] @ x[0]) + answer.fun, abs=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_l2_inside_the_box_is_attained_by_a_point(seed: int) -> None:
    draw = generator(seed)
    x = torch.rand(1, 6, dtype=torch.float64, generator=draw)
    slope = torch.randn(1, 6, dtype=torch.float64, generator=draw)
    radius = 0.2 + seed * 0.25
    region = Ball(Norm.L2, radius).around(x)
    found = float(region.minimize(Form(slope, torch.tensor([0]), (6,))))
    # By the KKT conditions the minimizer is clip(x - t slope); bisect t for the sphere.
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        inside = ((x - t * slope).clamp(0, 1) - x).norm() <= radius
        low, high = (t, high) if inside else (low, t)
    assert found == pytest.approx(float(slope[0] @ (x - low * slope).clamp(0, 1)[0]), abs=1e-9)
    box = region.interval()
    corner = torch.where(slope > 0, box.lower, box.upper)
    assert found >= float(slope[0] @ corner[0]) - 1e-12


def diamond() -> nn.Sequential:
    """logits (3.5, relu(x1 + x2) + relu(x1 - x2)); the second is at most 2 on [-1, 1]^2."""
    return nn.Sequential(linear([[1, 1], [1, -1]], [0, 0]), nn.ReLU(), linear([[0, 0], [1, 1]], [3.5, 0])).eval()


def test_a_hand_computed_interval() -> None:
    net = read_network(diamond(), torch.zeros(1, 2))
    boxes = interval_bounds(net, torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.5]]))
    expected = [([-1, 0], [1, 0.5]), ([-1, -1.5], [1.5, 1]), ([0, 0], [1.5, 1]), ([3.5, 0], [3.5, 2.5])]
    for box, (lower, upper) in zip(boxes, expected, strict=True):
        torch.testing.assert_close(box.lower[0], torch.tensor(lower, dtype=torch.float64))
        torch.testing.assert_close(box.upper[0], torch.tensor(upper, dtype=torch.float64))


@pytest.mark.parametrize(("method", "expected"), [("ibp", -0.5), ("crown-ibp", 0.5), ("crown", 0.5)])
def test_a_hand_computed_crown(method: str, expected: float) -> None:
    """Chords 0.5 z + 1 above both ReLUs add up to x1 + 2 <= 3; intervals give 4; the truth is 2."""
    net = read_network(diamond(), torch.zeros(1, 2))
    margins = certified_margins(net, torch.zeros(1, 2), torch.tensor([0]), Ball(Norm.LINF, 1.0, -1, 1), method=method)
    assert float(margins[0, 1]) == pytest.approx(expected, abs=1e-12)
    assert float(margins[0, 0]) == float("inf")


def triangle_program(model: nn.Sequential, x: Tensor, eps: float, difference: Tensor) -> float:
    """The least of ``difference . logits`` over the triangle relaxation of a net with one hidden layer."""
    w, b = model[0].weight.detach(), model[0].bias.detach()
    v, c = difference @ model[2].weight.detach(), difference @ model[2].bias.detach()
    z = w @ x + b
    reach = eps * w.abs().sum(1)
    n, h = len(x), len(b)
    rows, limits = [], []
    for i in range(h):
        low, high = float(z[i] - reach[i]), float(z[i] + reach[i])
        unit = torch.zeros(h, dtype=x.dtype)
        unit[i] = 1
        if low >= 0 or high <= 0:
            active = w[i] if low >= 0 else torch.zeros(n, dtype=x.dtype)
            offset = float(b[i]) if low >= 0 else 0.0
            rows += [torch.cat([active, -unit]), torch.cat([-active, unit])]
            limits += [-offset, offset]
            continue
        s = high / (high - low)
        rows += [torch.cat([w[i], -unit]), torch.cat([0 * w[i], -unit]), torch.cat([-s * w[i], unit])]
        limits += [-float(b[i]), 0.0, s * (float(b[i]) - low)]
    bounds = [(float(a) - eps, float(a) + eps) for a in x] + [(None, None)] * h
    answer = linprog(torch.cat([torch.zeros(n), v]).numpy(), A_ub=torch.stack(rows).numpy(), b_ub=limits, bounds=bounds)
    return float(answer.fun + c)


@pytest.mark.parametrize("seed", range(8))
def test_crown_stays_below_the_triangle_program_and_its_slopes_reach_it(seed: int) -> None:
    """For one hidden layer the best slopes are the dual optimum of the triangle program (Salman et al., 2019)."""
    model = mlp(seed, 3, 6, 3)
    x = torch.randn(1, 3, dtype=torch.float64, generator=generator(seed))
    y, eps = torch.tensor([0]), 0.6
    net, ball = read_network(model, x), Ball(Norm.LINF, eps, **OPEN)
    plain = certified_margins(net, x, y, ball)
    slow = certified_margins(net, x, y, ball, slopes="best", optimize=400)
    for j in (1, 2):
        difference = torch.zeros(3, dtype=torch.float64)
        difference[0], difference[j] = 1, -1
        best = triangle_program(model, x[0], eps, difference)
        assert float(plain[0, j]) <= best + 1e-9
        assert float(slow[0, j]) <= best + 1e-9
        if float(slow[0, j]) <= 0:  # only undecided pairs are optimized
            assert float(slow[0, j]) >= best - 5e-3


def convnet() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 4)).double().eval()


@pytest.mark.parametrize("norm", NORMS)
def test_rows_are_independent(norm: Norm) -> None:
    model = convnet()
    x = torch.rand(64, 2, 8, 8, dtype=torch.float64, generator=generator(0))
    y = torch.randint(4, (64,), generator=generator(1))
    radius = torch.linspace(0, 0.1, 64, dtype=torch.float64)
    net = read_network(model, x)
    together = certified_margins(net, x, y, Ball(norm, radius), optimize=3)
    for i in range(0, 64, 9):
        alone = certified_margins(net, x[i:i + 1], y[i:i + 1], Ball(norm, radius[i:i + 1]), optimize=3)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_methods_are_ordered_and_certify_agrees(norm: Norm) -> None:
    model = convnet()
    x = torch.rand(40, 2, 8, 8, dtype=torch.float64, generator=generator(0))
    net, y = read_network(model, x), model(x).argmax(1)
    ball = Ball(norm, torch.linspace(0, {Norm.LINF: 0.4, Norm.L2: 2.5, Norm.L1: 6.0}[norm], 40, dtype=torch.float64))
    ibp, half, full = (certified_margins(net, x, y, ball, method=m) for m in ("ibp", "crown-ibp", "crown"))
    ascended = certified_margins(net, x, y, ball, optimize=5)
    for weaker, stronger in ((ibp, half), (half, full), (full, ascended)):
        assert bool((stronger >= weaker - 1e-9).all())
    proved = (full > 0).all(1)
    assert 0 < int(proved.sum()) < 40
    assert torch.equal(certify(net, x, y, ball), proved)
    best = (certified_margins(net, x, y, ball, slopes="best", optimize=5) > 0).all(1)
    assert torch.equal(certify(net, x, y, ball, slopes="best", optimize=5), proved | best)


def test_a_wider_ball_never_has_a_wider_margin() -> None:
    model = mlp(5, 6, 20, 20, 4)
    x = torch.rand(10, 6, dtype=torch.float64, generator=generator(2))
    net, y = read_network(model, x), model(x).argmax(1)
    for norm in NORMS:
        kept = [certify(net, x, y, Ball(norm, r)) for r in (0.0, 0.05, 0.2, 0.8)]
        assert bool(kept[0].all())
        assert all(bool((small | ~large).all()) for small, large in pairwise(kept))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Computed(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "sigmoid":
            return torch.sigmoid(x)
        if self.kind == "rows":
            return x.reshape(-1, 2)
        if self.kind == "inplace":
            return F.relu(x, inplace=True) + x
        return x * x


@pytest.mark.parametrize(("model", "code", "said"), [
    (Computed("sigmoid"), "PRF100", "sigmoid"), (nn.Sequential(nn.Linear(4, 4), nn.GELU()), "PRF100", "layer 1"),
    (Computed("square"), "PRF100", "mul"), (Branching(), "PRF101", "Branching"),
    (nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train(), "PRF102", "layer 1"),
    (nn.Sequential(nn.BatchNorm1d(4)).train(), "PRF102", "layer 0"), (Computed("rows"), "PRF104", "reshape"),
    (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2, ceil_mode=True)), "PRF105", "ceil_mode"),
    (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.ReLU()), "PRF107", "logits"),
])
def test_what_cannot_be_bounded_is_refused_by_name(model: nn.Module, code: str, said: str) -> None:
    model.train(code == "PRF102")
    with pytest.raises(TargetError, match=said) as caught:
        read_network(model, torch.rand(1, 4))
    assert caught.value.code == code


def test_a_network_that_differs_from_its_graph_is_refused() -> None:
    with pytest.raises(TargetError) as caught:
        read_network(nn.Sequential(nn.Linear(4, 4), Computed("inplace")).eval(), torch.rand(1, 4))
    assert caught.value.code == "PRF103"


def test_invalid_regions_and_labels_are_refused() -> None:
    net = read_network(mlp(0, 3, 2), torch.rand(1, 3))
    x, y = torch.full((1, 3), 0.5), torch.tensor([0])
    for bad in (Ball(Norm.L2, torch.ones(2)), Ball(Norm.L2, -1.0), Ball(Norm.L2, float("nan")), Ball(Norm.L2, 1.0, 0.6, 1.0)):
        with pytest.raises(DataError) as caught:
            certified_margins(net, x, y, bad)
        assert caught.value.code == "PRF106"
    with pytest.raises(DataError) as caught:
        certified_margins(net, x, torch.tensor([2]), Ball(Norm.L2, 1.0))
    assert caught.value.code == "PRF107"
    with pytest.raises(DataError) as caught:
        certified_margins(net, torch.rand(1, 4), y, Ball(Norm.L2, 1.0))
    assert caught.value.code == "PRF108"


def test_a_layer_on_unbatched_maps_is_refused() -> None:
    """A two-dimensional pooling of ``[rows, H, W]`` takes rows for channels."""
    with pytest.raises(TargetError) as caught:
        read_network(nn.Sequential(nn.Unflatten(1, (2, 2)), nn.MaxPool2d(2), nn.Flatten(1)).eval(), torch.rand(1, 4))
    assert caught.value.code == "PRF103"


def test_no_rows_give_no_margins() -> None:
    net = read_network(mlp(0, 3, 2), torch.rand(1, 3))
    assert certified_margins(net, torch.rand(0, 3), torch.zeros(0, dtype=torch.long), Ball(Norm.L2, 1.0)).shape == (0, 2)
