"""A known defect of the field: attacks that record an iterate before they move judge everything but the last one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import evasion, targets


def linear() -> tuple[targets.TorchTarget, torch.Tensor, torch.Tensor]:
    """Two classes in 8 dimensions; in Linf a point falls exactly where its margin is below radius times ‖w‖₁."""
    torch.manual_seed(0)
    net = nn.Linear(8, 2).double()
    with torch.no_grad():
        net.bias.copy_(-net.weight.sum(1) / 2)  # the boundary passes through the middle of the box
    x = torch.rand(200, 8, dtype=torch.float64) * 0.4 + 0.3
    target = targets.torch(net, name="linear")
    return target, x, target.labels(x)


@pytest.mark.parametrize(
    "attack",
    [
        evasion.FGSM(),
        evasion.BIM(steps=1, step=1.0),
        evasion.PGD(steps=1, step=1.0, random_start=False),
        evasion.MIFGSM(steps=1),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_one_step_is_taken_and_judged(attack: object) -> None:
    target, x, y = linear()
    weight = target.model.weight.detach()
    slope = (weight[1] - weight[0]).abs().sum()
    margin = (target.scores(x)[:, 0] - target.scores(x)[:, 1]).abs()
    exact = margin < 0.05 * slope
    assert 0.1 < exact.double().mean() < 0.9
    found = evasion.EvasionGame(x, y, threat=evasion.Linf(0.05).threat()).play(attack, target, seed=0)
    broken = torch.as_tensor(found.artefacts["points"].arrays["broken_at"]) <= 0.05
    assert torch.equal(broken, exact)
    assert (found.cost.forwards, found.cost.backwards) == (400, 200)
