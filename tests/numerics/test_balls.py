"""Projections and plane steps against solvers that know nothing of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from assay.evasion import Linf
from assay.numerics.balls import (
    PROJECTIONS,
    distance,
    hyperplane_step,
    project_l1,
    project_linf,
    random_delta,
    steepest,
)
from assay.numerics.seeds import Stream
from assay.targets.base import Bounds

INF = float("inf")


def cases(rows: int, d: int, *, seed: int = 0, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    x0 = torch.rand(rows, d, generator=gen, dtype=torch.float64)
    x0[:, 0], x0[:, 1] = 0.0, 1.0  # coordinates without room on one side
    return x0, x0 + spread * torch.randn(rows, d, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize("radius", [0.05, 0.7, 3.0, 50.0])
def test_project_l1_is_the_nearest_point(radius):
    x0, z = cases(6, 5)
    found = project_l1(z, x0, torch.full((6,), radius, dtype=torch.float64), 0.0, 1.0)
    for i in range(6):
        # δ = p − n with p, n ≥ 0 makes the absolute value smooth
        d = (z - x0)[i].numpy()
        bounds = [(0, 1 - v) for v in x0[i].numpy()] + [(0, v) for v in x0[i].numpy()]
        best = minimize(
            lambda v, d=d: ((v[:5] - v[5:] - d) ** 2).sum(),
            np.zeros(10),
            jac=lambda v, d=d: np.concatenate([2 * (v[:5] - v[5:] - d), -2 * (v[:5] - v[5:] - d)]),
            bounds=bounds,
            constraints={"type": "ineq", "fun": lambda v: radius - v.sum(), "jac": lambda v: -np.ones(10)},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose((found - x0)[i].numpy(), best.x[:5] - best.x[5:], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [INF, 2, 1, 0])
def test_projections_stay_in_ball_and_box(norm, dtype):
    x0, z = (t.to(dtype) for t in cases(40, 300, spread=3.0))
    radius = torch.linspace(0, 10, 40, dtype=dtype)
    found = PROJECTIONS[norm](z, x0, radius, 0.0, 1.0)
    assert ((found >= 0) & (found <= 1)).all()
    assert (distance(found - x0, norm) <= radius * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("norm", [INF, 2, 1, 0])
def test_points_inside_stay_where_they_are(norm):
    x0, _ = cases(10, 20)
    z = (x0 + 1e-3 * torch.randn(10, 20, dtype=torch.float64)).clamp(0, 1)
    found = PROJECTIONS[norm](z, x0, torch.full((10,), 20.0, dtype=torch.float64), 0.0, 1.0)
    torch.testing.assert_close(found, z, rtol=0, atol=1e-12)


def test_project_linf_is_exact_at_a_radius_a_row():
    x0, z = cases(3, 4)
    radius = torch.tensor([0.0, 0.1, 5.0], dtype=torch.float64)
    expected = torch.stack([torch.clamp(z[i], x0[i] - radius[i], x0[i] + radius[i]).clamp(0, 1) for i in range(3)])
    torch.testing.assert_close(project_linf(z, x0, radius, 0.0, 1.0), expected)


def test_project_l1_far_outside_in_float32_ends():
    x0, z = (t.float() for t in cases(8, 3000, spread=1e4))
    found = project_l1(z, x0, torch.full((8,), 2.0), 0.0, 1.0)
    assert (distance(found - x0, 1) <= 2.0 * (1 + 1e-3)).all()


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_hyperplane_step_is_the_smallest(norm):
    gen = torch.Generator().manual_seed(3)
    w = torch.randn(30, 4, generator=gen, dtype=torch.float64)
    w[::5, 1] = 0.0
    lower = -torch.rand(30, 4, generator=gen, dtype=torch.float64)
    upper = torch.rand(30, 4, generator=gen, dtype=torch.float64)
    upper[::3, 0] = 0.0
    lower[1::3, 2] = 0.0
    most = torch.where(w > 0, w * upper, w * lower).sum(1)
    c = most * torch.linspace(0.05, 0.99, 30, dtype=torch.float64)
    step = hyperplane_step(w, c, lower, upper, norm)
    torch.testing.assert_close((w * step).sum(1), c, rtol=1e-9, atol=1e-12)
    assert ((step >= lower - 1e-12) & (step <= upper + 1e-12)).all()
    best = [_least(w[i].numpy(), float(c[i]), lower[i].numpy(), upper[i].numpy(), norm) for i in range(30)]
    np.testing.assert_allclose(distance(step, norm).numpy(), best, rtol=1e-4, atol=1e-6)


def _least(w: np.ndarray, c: float, lower: np.ndarray, upper: np.ndarray, norm: float) -> float:
    """The smallest norm by a linear program (L1, Linf) or sequential quadratic programming (L2)."""
    d, eye = len(w), np.eye(len(w))
    if norm == 2:
        start = np.where(w > 0, upper, lower)
        start = start * c / (w @ start)
        result = minimize(lambda v: v @ v, start, jac=lambda v: 2 * v, bounds=list(zip(lower, upper)), method="SLSQP",
                          constraints={"type": "eq", "fun": lambda v: w @ v - c, "jac": lambda v: w},
                          options={"ftol": 1e-15, "maxiter": 500})
        return float(np.sqrt(result.fun))
    # variables δ and s with |δᵢ| ≤ s (one s for Linf, one a coordinate for L1)
    cap = np.ones((d, 1)) if norm == INF else eye
    width = cap.shape[1]
    rows = np.block([[eye, -cap], [-eye, -cap]])
    result = linprog(np.r_[np.zeros(d), np.ones(width)], A_ub=rows, b_ub=np.zeros(2 * d), A_eq=[np.r_[w, np.zeros(width)]],
                     b_eq=[c], bounds=[*zip(lower, upper), *[(0, None)] * width])
    return float(result.fun)


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_hyperplane_step_out_of_reach_goes_as_far_as_the_box(norm):
    w = torch.tensor([[1.0, -2.0, 0.0], [1.0, -2.0, 0.0]])
    lower, upper = torch.full((2, 3), -0.5), torch.full((2, 3), 0.25)
    step = hyperplane_step(w, torch.tensor([100.0, -100.0]), lower, upper, norm)
    assert torch.equal(step, torch.tensor([[0.25, -0.5, 0.0], [-0.5, 0.25, 0.0]]))


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_hyperplane_step_without_gradient_room_or_need_is_zero(norm):
    w = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]])
    lower = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [-1.0, -1.0]])
    step = hyperplane_step(w, torch.tensor([1.0, 1.0, 0.0]), lower, -lower, norm)
    assert torch.equal(step.abs(), torch.zeros(3, 2))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
def test_hyperplane_step_at_any_scale_of_gradients(norm, scale):
    gen = torch.Generator().manual_seed(0)
    w = torch.randn(8, 500, generator=gen)
    lower, upper = -torch.rand(8, 500, generator=gen), torch.rand(8, 500, generator=gen)
    c = torch.linspace(0.1, 40, 8)
    plain = hyperplane_step(w, c, lower, upper, norm)
    scaled = hyperplane_step(w * scale, c * scale, lower, upper, norm)
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("norm", [INF, 2, 1])
def test_steepest_has_unit_norm_and_gains_most(norm):
    gradient = torch.randn(5, 40, dtype=torch.float64)
    step = steepest(gradient, norm, density=1 / 40)
    torch.testing.assert_close(distance(step, norm), torch.ones(5, dtype=torch.float64))
    dual = {INF: 1, 2: 2, 1: INF}[norm]
    torch.testing.assert_close((step * gradient).sum(1), distance(gradient, dual))
    assert torch.equal(steepest(torch.zeros(2, 3), norm), torch.zeros(2, 3))


@pytest.mark.parametrize("norm", [INF, 2])
def test_random_deltas_have_the_radius(norm):
    x0 = torch.zeros(6, 3, 5, dtype=torch.float64)
    radius = torch.linspace(0.5, 3, 6, dtype=torch.float64)
    length = distance(random_delta(x0, radius, norm, 1.0, Stream.seeded(0, torch.arange(6))), norm)
    if norm == INF:
        assert (length <= radius).all()
        assert (length > radius / 2).all()
    else:
        torch.testing.assert_close(length, radius)


def test_random_starts_in_l1_are_sparse_and_differ():
    """Noise scaled into the ball would be all but zero everywhere, and every restart the same search."""
    x0 = torch.full((50, 400), 0.5, dtype=torch.float64)
    radius = torch.full((50,), 4.0, dtype=torch.float64)
    streams = Stream.seeded(0, torch.arange(50))
    first, second = (
        project_l1(x0 + random_delta(x0, radius, 1, 1.0, streams.fold(r)), x0, radius, 0.0, 1.0) - x0 for r in (0, 1)
    )
    torch.testing.assert_close(first.abs().sum(1), radius)
    assert (distance(first, 0) < 40).all()
    overlap = ((first != 0) & (second != 0)).sum(1) / (first != 0).sum(1)
    assert float(overlap.mean()) < 0.2


def test_a_cube_without_end_lands_on_the_lattice():
    z, x0 = torch.tensor([[0.1234, 0.8, 0.0]]), torch.zeros(1, 3)
    landed = Linf(float("inf"), lattice=255).land(z, x0, Bounds(0.0, 1.0))
    torch.testing.assert_close(landed * 255, torch.tensor([[31.0, 204.0, 0.0]]))
