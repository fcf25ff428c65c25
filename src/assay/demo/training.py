"""A small network for the digits, trained in about a second on one core."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from assay.demo.images import digits
from assay.games import Progress
from assay.targets.pytorch import TorchTarget, torch_target

_BATCH = 64
_RATE = 1e-2


def network(seed: int = 0) -> nn.Module:
    """An untrained network for 8 × 8 digits, ``[rows, 1, 8, 8]`` to ``[rows, 10]``: two convolutions, two dense layers.

    Small and plain (9 802 parameters; convolution, ReLU, flatten, linear), so that proofs by bound propagation
    reach far and trace without trouble. The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
        )


def train(seed: int = 0, *, epochs: int = 30, noise: float = 0.0) -> Iterator[Progress | nn.Module]:
    """Trains a fresh network on the training digits: progress after every epoch, and the network at the end.

    Args:
        seed: of the initial weights, the order of the examples and the noise; the same seed gives the same weights.
        epochs: passes over the 1297 training digits.
        noise: standard deviation of Gaussian noise added to the inputs, which is how the base of a smoothed
            classifier is trained (Cohen et al., ICML 2019, §3.3).
    """
    x, y = digits("train")
    model = network(seed)
    rng = torch.Generator().manual_seed(seed)
    per_epoch = len(y) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * per_epoch)
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(y), generator=rng)
        for step in range(per_epoch):
            rows = order[step * _BATCH : (step + 1) * _BATCH]
            batch = x[rows]
            if noise:
                batch = batch + noise * torch.randn(batch.shape, generator=rng)
            loss = F.cross_entropy(model(batch), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        yield Progress("training", epoch + 1, epochs, f"loss {total / per_epoch:.3f}")
    yield model.eval()


def target(seed: int = 0, *, noise: float = 0.0) -> TorchTarget:
    """The trained demo network as a target, right on about 98 % of the test digits.

    It is trained once a process for each seed and noise; every call gets a copy of its own.

    Example:
        >>> from assay import demo
        >>> net, (x, y) = demo.target(), demo.digits()
        >>> float((net.labels(x) == y).float().mean()) > 0.97
        True
    """
    name = f"demo digits, seed {seed}" + (f", noise {noise:g}" if noise else "")
    return torch_target(deepcopy(_trained(seed, noise)), name=name)


@cache
def _trained(seed: int, noise: float) -> nn.Module:
    *_, model = train(seed, noise=noise)
    assert isinstance(model, nn.Module)
    return model
