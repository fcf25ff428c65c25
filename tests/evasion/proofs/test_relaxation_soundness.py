"""No point of a region, however found, has a margin below the certified one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from assay.evasion.proofs.relaxation import Ball, Norm, certified_margins, interval_bounds, read_network

CLASSES = 3


class Residual(nn.Module):
    """Two branches of different depth and window, a strided shortcut, and arithmetic with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 2, 1, 1))
        self.register_buffer("std", torch.rand(2, 1, 1) + 0.5)
        self.register_buffer("tilt", torch.randn(6, 6))
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 4, 3, 1, 1)
        self.shortcut = nn.Sequential(nn.Conv2d(4, 4, 1, 2, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        x = F.relu(self.tilt * self.stem(x) + self.tilt)
        out = self.conv2(self.conv1(x).relu())
        out += self.shortcut(x)
        out = torch.relu(out)
        out = 0.5 * (1 - out) + out.mul(2)
        out = F.adaptive_avg_pool2d(torch.relu(out), 1)
        return self.head(out.view(out.size(0), -1))


class OneDimensional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, 2, 2, dilation=2)
        self.norm = nn.BatchNorm1d(4)
        self.group = nn.Conv1d(4, 4, 3, padding="same", groups=2)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(torch.relu(self.norm(self.conv(x.flatten(2)))), 3, 2, 1)
        x = F.avg_pool1d(self.group(x).relu(), 3)
        return self.head(F.dropout(x.flatten(1), training=self.training))


def pools() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.AvgPool2d(2, 2, 1),
                         nn.Conv2d(4, 4, 2, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Dropout(), nn.Identity(),
                         nn.Flatten(), nn.Linear(16, CLASSES))


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(),
                         nn.Linear(12, CLASSES))


def deep() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(),
                         nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, CLASSES))


MODELS: tuple[Callable[[], nn.Module], ...] = (Residual, OneDimensional, pools, dense, deep)


def built(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = make().double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
    return model.eval()


def inside(ball: Ball, x: Tensor, step: Tensor) -> Tensor:
    """``x + step`` brought back into the ball; clipping moves toward ``x``, so it cannot leave the ball again."""
    radius = float(ball.radius)
    if ball.norm is Norm.LINF:
        step = step.clamp(-radius, radius)
    else:
        length = step.flatten(1).norm(p=2 if ball.norm is Norm.L2 else 1, dim=1).clamp_min(1e-300)
        step = step * (radius / length).clamp(max=1).view(-1, 1, 1, 1)
    return (x + step).clamp(ball.lower, ball.upper)


def steepest(norm: Norm, gradient: Tensor) -> Tensor:
    flat = gradient.flatten(1)
    if norm is Norm.LINF:
        return gradient.sign()
    if norm is Norm.L2:
        return (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-300)).view_as(gradient)
    top = flat.abs() >= flat.abs().topk(3, dim=1).values[:, -1:]
    return (flat.sign() * top / 3).view_as(gradient)


def points(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, seed: int) -> Iterator[Tensor]:
    """Random points, corners and the ends of gradient descent on each margin, for one example ``x [1, ...]``."""
    draw, radius = torch.Generator().manual_seed(seed), float(ball.radius)
    many = x.expand(64, *x.shape[1:])
    noise = torch.randn(many.shape, generator=draw, dtype=x.dtype)
    yield inside(ball, x, 2 * radius * (torch.rand(many.shape, generator=draw, dtype=x.dtype) - 0.5))
    yield inside(ball, x, 1e3 * noise)
    yield inside(ball, x, radius * steepest(ball.norm, noise))
    for other in range(CLASSES):
        at = x.clone()
        for _ in range(15):
            at.requires_grad_()
            logits = model(at)
            gradient, = torch.autograd.grad((logits[0, y] - logits[0, other]).sum(), at)
            at = inside(ball, x, at.detach() - 0.3 * radius * steepest(ball.norm, gradient) - x)
        yield at


@settings(max_examples=60, deadline=None)
@given(model=st.sampled_from(MODELS), seed=st.integers(0, 10_000), norm=st.sampled_from(list(Norm)),
       radius=st.floats(0.001, 0.5))
def test_no_point_beats_its_certificate(model: Callable[[], nn.Module], seed: int, norm: Norm, radius: float) -> None:
    network = built(model, seed)
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 6, 6, generator=draw, dtype=torch.float64).clamp(0.05, 0.95)
    y = torch.randint(CLASSES, (3,), generator=draw)
    net = read_network(network, x)
    ball = Ball(norm, radius * (1 if norm is Norm.LINF else 6))
    margins = [certified_margins(net, x, y, ball, method="ibp"),
               certified_margins(net, x, y, ball, method="crown-ibp", slopes="parallel"),
               certified_margins(net, x, y, ball, slopes="best", optimize=4), certified_margins(net, x, y, ball)]
    region = ball.around(x).interval()
    logits = interval_bounds(net, region.lower, region.upper)[-1]
    for i in range(3):
        for batch in points(network, x[i:i + 1], y[i:i + 1], ball, seed):
            out = network(batch).detach()
            assert bool((out >= logits.lower[i] - 1e-9).all())
            assert bool((out <= logits.upper[i] + 1e-9).all())
            found = out[:, y[i]][:, None] - out
            for margin in margins:
                bound = torch.where(margin[i].isinf(), 0.0, margin[i])
                assert bool((found >= bound - 1e-9).all())


@pytest.mark.parametrize("model", MODELS)
def test_float32_certificates_lie_below_float64_ones(model: Callable[[], nn.Module]) -> None:
    network = built(model, 1)
    x = torch.rand(8, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float().double()
    y, ball = network(x).argmax(1), Ball(Norm.LINF, 0.03)
    exact = certified_margins(read_network(network, x), x, y, ball)
    rounded = certified_margins(read_network(network.float(), x), x, y, ball)
    assert rounded.dtype == torch.float32
    assert bool((rounded.double() <= exact).all())
    finite = exact.isfinite()
    torch.testing.assert_close(rounded.double()[finite], exact[finite], rtol=1e-3, atol=1e-3)
