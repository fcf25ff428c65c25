"""How a model is trained, laid open: the procedure that a malicious trainer bends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Penalty = Callable[[nn.Module], Tensor]
"""What is added to the loss of every step: ``model -> []``, differentiable in the weights."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pipeline:
    """Cross-entropy, AdamW and one cycle of the learning rate on one set of examples.

    Attributes:
        init: the untrained network of a seed; what it draws from torch's global generator is put back.
        x: inputs, float ``[n, …]``.
        y: labels, int64 ``[n]``.
        epochs: passes over the examples.
        batch: examples a step; a last, smaller batch is left out.
        rate: the highest learning rate.
        decay: AdamW's weight decay.
        bounds: the box of the inputs.
        name: how evidence calls it.

    Example:
        >>> from assay import demo, privacy
        >>> x, y = demo.digits("train")
        >>> model = privacy.Pipeline(init=demo.network, x=x, y=y, epochs=5).train(seed=0)
        >>> float((model(x).argmax(1) == y).float().mean()) > 0.95
        True
    """

    init: Callable[[int], nn.Module] = field(repr=False)
    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    epochs: int = 30
    batch: int = 64
    rate: float = 1e-2
    decay: float = 1e-3
    bounds: tuple[float, float] = (0.0, 1.0)
    name: str = "training pipeline"

    def train(self, seed: int, *, penalty: Penalty | None = None) -> nn.Module:
        """The trained network, in evaluation mode; the same seed gives the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = self.init(seed).train()
            self._fit(model, seed, penalty)
        return model.eval()

    def extended(self, x: Tensor, y: Tensor) -> Pipeline:
        """The same with these examples added."""
        return replace(self, x=torch.cat([self.x, x.to(self.x)]), y=torch.cat([self.y, y.to(self.y)]))

    def fingerprint(self) -> dict[str, str]:
        """A hash of the examples, and the settings."""
        digest = hashlib.sha256()
        for part in (self.x, self.y):
            digest.update(repr(tuple(part.shape)).encode())
            digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        called = getattr(self.init, "__qualname__", type(self.init).__name__)
        settings = (called, self.epochs, self.batch, self.rate, self.decay)
        return {"data": digest.hexdigest(), "pipeline": repr(settings), "torch": torch.__version__}

    def _fit(self, model: nn.Module, seed: int, penalty: Penalty | None) -> None:
        rng = torch.Generator().manual_seed(seed)
        size = min(self.batch, len(self.y))
        steps = len(self.y) // size
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.rate, weight_decay=self.decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=self.epochs * steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(self.y), generator=rng).to(self.y.device)
            for rows in order[: steps * size].reshape(steps, size):
                loss = F.cross_entropy(model(self.x[rows]), self.y[rows])
                loss = loss if penalty is None else loss + penalty(model)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                cycle.step()
