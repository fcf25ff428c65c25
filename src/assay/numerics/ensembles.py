"""Training many small models at once: stacked where that is faster, one after another where it is not."""

from __future__ import annotations

import copy
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from assay.errors import TargetError
from assay.numerics.seeds import Stream

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(outputs, labels) -> [rows]``: one number an example."""

Augment = Callable[[Tensor, Stream], Tensor]
"""``(inputs, one stream a row) -> inputs``: the randomness of training data, row by row."""

How = Literal["auto", "stacked", "loop"]
State = dict[str, Tensor]

WIDTHS = (4, 16)
"""The stacks that are timed: a wide one saves more overhead, a narrow one stays in the cache."""

GAIN = 0.95
"""The share of the loop's time that a stack must stay under to be chosen."""


class Labelled(Protocol):
    """Examples and their labels, as arrays or tensors."""

    @property
    def x(self) -> Any: ...
    @property
    def y(self) -> Any: ...


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each example."""
    return nn.functional.cross_entropy(outputs, labels, reduction="none")


def random_mirror(x: Tensor, rng: Stream) -> Tensor:
    """Half of the images flipped left to right."""
    flip = rng.sign()[:, None, None, None] < 0
    return torch.where(flip, x.flip(-1), x)


def mirror(x: Tensor) -> tuple[Tensor, Tensor]:
    """Images, and the same flipped left to right: two looks at each example."""
    return x, x.flip(-1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent, written down: itself a procedure ``(data, seed) -> model``.

    A model draws its members in an endless row of fresh permutations, cut into full batches: as many as ``epochs``
    passes need, rounded up. So no example is left out for being in a last, partial batch, every example is seen
    ``epochs`` times, a few once more, and models of different sizes step side by side without being cut to the
    shortest. Initial weights, batches and augmentation come from the model's own seed.

    Attributes:
        init: a fresh module, drawn from torch's global generator, which is seeded for it and put back.
        loss: ``(outputs, labels) -> [rows]``; its mean over the batch is descended.
        epochs: passes over the members.
        batch: examples a step.
        rate: the first step's learning rate.
        momentum, weight_decay: as in :class:`torch.optim.SGD`.
        schedule: ``"cosine"`` lets the rate fall to zero, ``"constant"`` keeps it.
        augment: applied to every batch; ``None`` for none.
    """

    init: Callable[[], nn.Module]
    loss: Loss = cross_entropy
    epochs: int = 10
    batch: int = 64
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    augment: Augment | None = None

    def __call__(self, data: Labelled, seed: int) -> nn.Module:
        """The module trained on all of ``data``, in evaluation mode: the same bytes as ``many`` gives by loop."""
        x, y = tensors(data.x, data.y)
        return _Single(self, x, y, Job(torch.arange(len(x), device=x.device), seed)).run().module.eval()

    def fresh(self, seed: int) -> nn.Module:
        """An untrained module; torch's global generator is left as it was."""
        with seeded(seed, torch.device("cpu")):
            return self.init()

    def many(self, x: Tensor, y: Tensor, keep: NDArray[np.bool_], seeds: Sequence[int], plan: Plan) -> State:
        """Parameters and buffers, ``[models, …]``, of a model for each row of ``keep`` and each seed.

        Args:
            x: the one resident data set, ``[examples, …]``.
            keep: bool ``[models, examples]``.
            plan: see :func:`planned`. What a model becomes does not depend on the others, nor on ``plan.width``.
        """
        jobs = jobs_of(keep, seeds, x.device)
        if plan.how == "loop":
            return _piled([_Single(self, x, y, job).run().state() for job in jobs])
        stacks = [jobs[at : at + plan.width] for at in range(0, len(jobs), plan.width)]
        return _joined([_stacked(self, x, y, stack) for stack in stacks])

    def steps(self, members: int) -> int:
        """How many steps a model with this many members takes."""
        return -(-self.epochs * members // self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step; zero once the model is finished."""
        if step >= steps:
            return 0.0
        return self.rate * ((1 + math.cos(math.pi * step / steps)) / 2 if self.schedule == "cosine" else 1.0)

    def fingerprint(self) -> str:
        """sha256 over the numbers, the functions' names and an initial module: its structure and its bytes."""
        module = self.fresh(0)
        named = [called(self.init), called(self.loss), called(self.augment), repr(module)]
        digest = hashlib.sha256(repr((named, replace(self, init=_Unnamed, loss=cross_entropy, augment=None))).encode())
        for name, tensor in sorted(_named(module).items()):
            digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Plan(NamedTuple):
    """How models are trained: one after another, or so many side by side."""

    how: Literal["stacked", "loop"]
    width: int


class Job(NamedTuple):
    """One model to train: which examples are its members, and its seed."""

    members: Tensor
    seed: int


def planned(recipe: Recipe, x: Tensor, y: Tensor, keep: NDArray[np.bool_], seeds: Sequence[int],
            how: How = "auto") -> Plan:
    """What is fastest here: a few steps of each way are timed on the first models.

    The choice depends on the machine and its load, and the two ways round differently: name ``how`` where the bytes
    must come out the same elsewhere. A stack's width is free: it does not enter the bytes.

    Raises:
        TargetError: PRV500 where ``how`` is ``"stacked"`` and the module cannot be.
    """
    if how == "loop" or (how == "auto" and unstackable(recipe.fresh(0))):
        return Plan("loop", 1)
    jobs = jobs_of(keep[: max(WIDTHS)], seeds[: max(WIDTHS)], x.device) * 2
    jobs = jobs[: max(len(jobs) // 2, 2)]  # a single model has a twin, see _stacked
    timed = {min(width, len(jobs)): 0.0 for width in WIDTHS}
    try:
        for width in timed:
            timed[width] = _seconds(_Stack(recipe, x, y, jobs[:width])) / width
    except RuntimeError as error:
        if how == "stacked":
            raise TargetError("PRV500", f"the module cannot be stacked: {error}") from error
        return Plan("loop", 1)
    best = min(timed, key=timed.__getitem__)
    if how == "auto" and timed[best] > GAIN * _seconds(_Single(recipe, x, y, jobs[0])):
        return Plan("loop", 1)
    return Plan("stacked", best)


def unstackable(module: nn.Module) -> str:
    """Why a module cannot be trained in a stack; empty where it can as far as its layers tell.

    Statistics kept while training are written in place, which a stack cannot; and the global generator that dropout
    draws from would make a model depend on its neighbors.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats:
            return f"{name} keeps running statistics"
        if isinstance(layer, _DropoutNd) and layer.p > 0:
            return f"{name} draws from the global generator"
        if isinstance(layer, nn.RNNBase):
            return f"{name} is recurrent"
    return ""


def jobs_of(keep: NDArray[np.bool_], seeds: Sequence[int], device: torch.device) -> list[Job]:
    """One job a row of ``keep``."""
    return [Job(torch.from_numpy(np.flatnonzero(row)).to(device), int(seed)) for row, seed in zip(keep, seeds)]


def tensors(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Examples and labels as tensors; the labels int64 where they are whole numbers."""
    inputs, labels = torch.as_tensor(x), torch.as_tensor(y)
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    return inputs, labels.to(inputs.device, torch.int64 if whole else labels.dtype)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded inside, and outside as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def unstacked(init: Callable[[], nn.Module], state: Mapping[str, Tensor], index: int) -> nn.Module:
    """The module of one row of a stacked state, in evaluation mode."""
    with seeded(0, torch.device("cpu")):
        module = init()
    with torch.no_grad():
        for name, tensor in _named(module).items():
            tensor.copy_(state[name][index])
    return module.eval()


def outputs_of(init: Callable[[], nn.Module], state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What every model of a stacked state makes of ``x``, in evaluation mode: ``[models, rows, …]``.

    Convolutions take their turn, since side by side they are slower; everything else is one batched product.
    """
    module = unstacked(init, state, 0).to(x.device)
    shell = copy.deepcopy(module).to("meta")
    held = {name: tensor.to(x.device) for name, tensor in state.items()}

    def outputs(one: State) -> Tensor:
        return cast(Tensor, functional_call(shell, one, (x,)))

    with torch.no_grad():
        if x.device.type == "cpu" and any(isinstance(layer, _ConvNd) for layer in module.modules()):
            rows = [{name: tensor[index] for name, tensor in held.items()} for index in range(_count(held))]
            return torch.stack([outputs(row) for row in rows])
        return vmap(outputs)(held)


def called(function: object) -> str:
    """What tells a function from another in any process: its name, what a partial has bound, a recipe's hash."""
    if isinstance(function, Recipe):
        return function.fingerprint()
    if isinstance(function, partial):
        bound = [called(function.func), repr(function.args), repr(sorted(function.keywords.items()))]
        return f"partial({', '.join(bound)})"
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else re.sub(r" at 0x[0-9a-f]+", "", repr(function))


class _Unnamed(nn.Module):
    """Stands for a module whose name is said elsewhere."""


class _Single:
    """One model, trained by itself. Convolutions run in channels-last memory, 1.5 to 2 times faster on a CPU."""

    def __init__(self, recipe: Recipe, x: Tensor, y: Tensor, job: Job) -> None:
        self.recipe, self.x, self.y, self.job = recipe, x, y, job
        self.module = recipe.fresh(job.seed).to(x.device).train()
        if x.ndim == 4 and any(isinstance(layer, nn.Conv2d) for layer in self.module.modules()):
            self.module = cast(Any, self.module).to(memory_format=torch.channels_last)
        self.steps = recipe.steps(len(job.members))
        self.order = _order(recipe, job)
        self.rows = _rows(recipe, [job])
        self.weights = [p for p in self.module.parameters() if p.requires_grad]
        self.speed = [torch.zeros_like(p) for p in self.weights]

    def run(self) -> _Single:
        """Trains to the end; what the module itself draws at random comes from its seed."""
        with seeded(self.job.seed, self.x.device):
            for step in range(self.steps):
                self.step(step)
        return self

    def step(self, step: int) -> None:
        """One batch."""
        at = self.order[step % self.steps]
        x, y = self.x[at], self.y[at]
        if self.recipe.augment is not None:
            x = self.recipe.augment(x, self.rows.fold(step))
        grads = torch.autograd.grad(self.recipe.loss(self.module(x), y).mean(), self.weights)
        rate = torch.full((), -self.recipe.rate_at(step, self.steps), dtype=x.dtype, device=x.device)
        with torch.no_grad():
            for weight, slope, speed in zip(self.weights, grads, self.speed):
                _move(self.recipe, weight, slope, speed, rate)

    def state(self) -> State:
        """Parameters and buffers."""
        return {name: tensor.detach().contiguous() for name, tensor in _named(self.module).items()}


class _Stack:
    """Many models, trained side by side: every step is one batched product a layer."""

    def __init__(self, recipe: Recipe, x: Tensor, y: Tensor, jobs: Sequence[Job]) -> None:
        self.recipe, self.x, self.y, self.jobs = recipe, x, y, jobs
        modules = [recipe.fresh(job.seed).to(x.device).train() for job in jobs]
        if reason := unstackable(modules[0]):
            raise RuntimeError(reason)
        weights, buffers = stack_module_state(modules)
        moved = {name for name, p in modules[0].named_parameters() if p.requires_grad}
        self.weights = {name: w.detach() for name, w in weights.items() if name in moved}
        self.fixed = {name: w.detach() for name, w in {**weights, **buffers}.items() if name not in moved}
        self.speed = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.lengths = [recipe.steps(len(job.members)) for job in jobs]
        self.order = nn.utils.rnn.pad_sequence([_order(recipe, job) for job in jobs])  # [steps, models, batch]
        self.rows = _rows(recipe, jobs)
        self._slopes = vmap(grad(self._loss))
        self._shell = copy.deepcopy(modules[0]).to("meta")

    def run(self) -> _Stack:
        """Trains all of them to the end."""
        for step in range(len(self.order)):
            self.step(step)
        return self

    def step(self, step: int) -> None:
        """One batch of every model; one that is finished stands still, its rate being zero."""
        at = self.order[step % len(self.order)]
        x, y = self.x[at], self.y[at]
        if self.recipe.augment is not None:
            x = self.recipe.augment(x.flatten(0, 1), self.rows.fold(step)).reshape(*at.shape, *x.shape[2:])
        slopes = self._slopes(self.weights, self.fixed, x, y)
        rates = torch.tensor([-self.recipe.rate_at(step, n) for n in self.lengths], dtype=x.dtype, device=x.device)
        for name, weight in self.weights.items():
            _move(self.recipe, weight, slopes[name], self.speed[name], rates.view(-1, *[1] * (weight.ndim - 1)))

    def state(self) -> State:
        """Parameters and buffers, ``[models, …]``."""
        return {**self.weights, **self.fixed}

    def _loss(self, weights: State, fixed: State, x: Tensor, y: Tensor) -> Tensor:
        return self.recipe.loss(functional_call(self._shell, {**weights, **fixed}, (x,)), y).mean()


def _stacked(recipe: Recipe, x: Tensor, y: Tensor, jobs: Sequence[Job]) -> State:
    """The state of these models. One alone is trained with a twin: a batch of one product is rounded differently."""
    state = _Stack(recipe, x, y, jobs if len(jobs) > 1 else [*jobs, *jobs]).run().state()
    return {name: tensor[: len(jobs)] for name, tensor in state.items()}


def _move(recipe: Recipe, weight: Tensor, slope: Tensor, speed: Tensor, rate: Tensor) -> None:
    """One step of stochastic gradient descent with momentum, in place."""
    if recipe.weight_decay:
        slope = slope.add(weight, alpha=recipe.weight_decay)
    speed.mul_(recipe.momentum).add_(slope)
    weight.addcmul_(speed, rate.to(weight.dtype))


def _order(recipe: Recipe, job: Job) -> Tensor:
    """Which examples make up each batch, int32 ``[steps, batch]``: permutations end to end, cut into batches."""
    count, needed = len(job.members), recipe.steps(len(job.members)) * recipe.batch
    rng = np.random.default_rng([job.seed % 2**63, 1])
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])[:needed]
    picked = job.members.cpu().numpy()[rows].astype(np.int32)
    return torch.from_numpy(picked.reshape(-1, recipe.batch)).to(job.members.device)


def _rows(recipe: Recipe, jobs: Sequence[Job]) -> Stream:
    """A random stream for every place in every model's batch."""
    places = torch.arange(recipe.batch, device=jobs[0].members.device)
    return Stream(torch.cat([Stream.seeded(_signed(job.seed), places).keys for job in jobs]))


def _signed(seed: int) -> int:
    return (seed + 2**63) % 2**64 - 2**63


def _named(module: nn.Module) -> State:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _piled(states: Sequence[State]) -> State:
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def _count(state: State) -> int:
    return len(next(iter(state.values())))


def _joined(states: Sequence[State]) -> State:
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def _seconds(trainer: _Single | _Stack, budget: float = 0.3) -> float:
    """The shortest of a few steps, after two to warm up. What it trains is thrown away."""
    with seeded(0, trainer.x.device):
        trainer.step(0)
        trainer.step(0)
        best, spent = math.inf, 0.0
        while spent < budget:
            start = time.perf_counter()
            trainer.step(0)
            if trainer.x.is_cuda:
                torch.cuda.synchronize(trainer.x.device)
            took = time.perf_counter() - start
            best, spent = min(best, took), spent + took
    return best
