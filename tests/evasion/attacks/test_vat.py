"""VAT against functions whose curvature is known, and against its peer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import demo, evasion, targets
from assay.numerics.seeds import Stream


def test_it_finds_the_direction_of_largest_curvature() -> None:
    """Of a linear two-class model the divergence grows fastest along the difference of the weights."""
    layer = nn.Linear(12, 2).double()
    x = torch.zeros(4, 12, dtype=torch.float64)
    target = targets.torch(nn.Sequential(layer), bounds=(-9, 9))
    budget = evasion.L2(5.0)
    view = budget.threat().grant(target, 4)
    z = evasion.VAT(steps=3, xi=0.01).perturb(view, x, target.labels(x), budget, Stream.seeded(0, torch.arange(4)))
    normal = (layer.weight[0] - layer.weight[1]).detach()
    cosine = (z @ normal).abs() / (z.norm(dim=1) * normal.norm())
    assert (cosine > 0.9999).all()
    assert int(view.meter.backwards.max()) == 3


@pytest.mark.parametrize(("radius", "peer"), [(0.75, 0.41), (1.0, 0.35)])
def test_it_leaves_no_more_than_foolbox(radius: float, peer: float) -> None:
    """foolbox 3.3.4, VirtualAdversarialAttack(steps=10, xi=0.1), 100 demo digits."""
    x, y = demo.digits("test[:100]")
    game = evasion.EvasionGame(x, y, threat=evasion.L2(radius).threat())
    assert game.play(evasion.VAT(), demo.target(), seed=0)["robust accuracy"].estimate <= peer
