"""A training procedure under test as an audit runs it: many at once where it can, and watched where it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from assay.privacy.auditing.procedure import Alone, Models, Procedure, Watch
from assay.privacy.defenses.dpsgd import DPSGD
from assay.privacy.per_example import Gradients
from assay.privacy.private import Init
from assay.privacy.private import Procedure as Fit
from assay.targets.base import Target
from assay.targets.procedure import Training


def procedure_of(training: Training) -> Procedure:
    """What an audit runs: the procedure's own ``runs``, DP-SGD from within, or one training after another."""
    fit: object = training.fit
    if isinstance(fit, Procedure):
        return fit
    if isinstance(fit, Fit) and isinstance(fit.trainer, DPSGD):
        return WatchedDPSGD(fit.trainer, fit.init)

    def train(x: Tensor, y: Tensor, seed: int) -> Target:
        data = replace(training.data, x=x.numpy(), y=y.numpy())
        return training.train(data, seed)

    return Alone(train)


@dataclass(frozen=True, eq=False)
class WatchedDPSGD:
    """:class:`~assay.privacy.defenses.dpsgd.DPSGD`, one run after another, its releases seen and a gradient forged.

    A forged gradient is that of one further example beside the data: the last one is left out of all runs, so that its
    own gradient is in none.

    Attributes:
        trainer: how to train.
        init: where to start.
    """

    trainer: DPSGD
    init: Init

    def runs(
        self, x: Tensor, y: Tensor, keep: Tensor, seeds: Sequence[int], watch: Watch | None = None
    ) -> Models:
        """See :class:`~assay.privacy.auditing.procedure.Procedure`."""
        models = [self._run(x, y, kept, seed, run, watch) for run, (kept, seed) in enumerate(zip(keep, seeds))]

        def answer(z: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.stack([model(z) for model in models])

        return answer

    def forward(self, parameters: Tensor, x: Tensor) -> Tensor:
        """See :class:`~assay.privacy.auditing.procedure.Procedure`."""
        module = self._start()
        return torch.stack([functional_call(module, _shaped(row, _trained(module)), (x,)) for row in parameters])

    def _start(self) -> nn.Module:
        """Where every watched run starts; the promise holds for any start, and an insider knows it."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return self.init()

    def _run(self, x: Tensor, y: Tensor, kept: Tensor, seed: int, run: int, watch: Watch | None) -> nn.Module:
        if watch is None:
            return self.trainer.fit(self.init, x[kept], y[kept], seed=seed).module
        start, inside = self._start(), bool(kept[-1])
        walk = _Walk(self.trainer, _flat(_trained(start)))

        def canary(step: int, parameters: Gradients) -> Gradients:
            forged = watch.forge(step, walk.at) if inside else None
            return _shaped(torch.zeros_like(walk.at) if forged is None else forged, parameters)

        def observe(step: int, released: dict[str, Tensor]) -> None:
            watch.see(step, walk.at[None], _flat(released)[None], slice(run, run + 1))
            walk.move(_flat(released))

        if watch.forge(0, walk.at) is None:
            return self.trainer.fit(start, x[kept], y[kept], seed=seed, observe=observe).module
        others = kept.clone()
        others[-1] = False
        return self.trainer.fit(start, x[others], y[others], seed=seed, observe=observe, canary=canary).module


@dataclass(eq=False)
class _Walk:
    """Where the parameters are, as anyone can work out who sees what every step releases."""

    trainer: DPSGD
    at: Tensor
    velocity: Tensor | None = None

    def move(self, released: Tensor) -> None:
        """One step of momentum along the released sum over the expected batch."""
        step = released / self.trainer.batch
        self.velocity = step if self.velocity is None else self.trainer.momentum * self.velocity + step
        self.at = self.at - self.trainer.rate * self.velocity


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}


def _flat(parameters: Gradients) -> Tensor:
    return torch.cat([value.reshape(-1) for value in parameters.values()])


def _shaped(flat: Tensor, like: Gradients) -> dict[str, Tensor]:
    parts = torch.split_with_sizes(flat, [value.numel() for value in like.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts)}
