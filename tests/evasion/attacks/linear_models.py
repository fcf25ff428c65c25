"""Linear models: of each point the exact distance to the boundary is known in every norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay import targets
from assay.evasion import L1, L2, Linf
from assay.numerics.seeds import Stream
from assay.targets.pytorch import TorchTarget

BUDGETS = {float("inf"): Linf, 2.0: L2, 1.0: L1}


@dataclass(frozen=True)
class Linear:
    """A linear classifier in float64 and points far from the box, with their exact distances."""

    target: TorchTarget
    x: Tensor
    y: Tensor
    weight: Tensor

    def exact(self, norm: float) -> Tensor:
        """``min_j (z_y − z_j) / ‖w_j − w_y‖_q``, q the dual norm; right while the box is not met."""
        scores = self.target.scores(self.x)
        dual = {float("inf"): 1.0, 2.0: 2.0, 1.0: float("inf")}[norm]
        gap = scores.gather(1, self.y[:, None]) - scores
        length = torch.linalg.vector_norm(self.weight[None] - self.weight[self.y][:, None], ord=dual, dim=2)
        return (gap / length.clamp_min(1e-12)).scatter(1, self.y[:, None], torch.inf).min(1).values

    def perturb(self, attack, radius: float, norm: float, *, points=slice(None), queries=None, goal="misclassify", y=None):
        """What an attack finds, and the view it had."""
        budget = BUDGETS[norm](radius)
        index = torch.arange(len(self.x))[points]
        view = budget.threat(goal=goal, queries=queries).grant(self.target, len(index))
        rng = Stream.seeded(7, index)
        label = self.y if y is None else y
        return attack.perturb(view, self.x[index], label[index], budget, rng), view


def linear(shape: tuple[int, ...], *, points: int = 16, classes: int = 4, box: float = 100.0, seed: int = 0) -> Linear:
    """A random linear model on inputs of this shape."""
    gen = torch.Generator().manual_seed(seed)
    size = int(torch.tensor(shape).prod())
    layer = nn.Linear(size, classes).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, size, generator=gen, dtype=torch.float64))
        layer.bias.zero_()
    target = targets.torch(nn.Sequential(nn.Flatten(), layer), bounds=(-box, box), name="linear")
    x = torch.randn(points, *shape, generator=gen, dtype=torch.float64)
    return Linear(target, x, target.labels(x), layer.weight.detach())
