"""Training many small models at once: stacked where that is faster, one after another where it is not."""

from __future__ import annotations

import copy
import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from assay.errors import TargetError
from assay.numerics.seeds import Stream
from assay.numerics.stacks import State, convolves, joined, piled, seeded, state_of, tensors, unstackable

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(outputs, labels) -> [rows]``: one number an example."""

Augment = Callable[[Tensor, Stream], Tensor]
"""``(inputs, one stream a row) -> inputs``: the randomness of training data, row by row."""

How = Literal["auto", "stacked", "loop"]

Slopes = Callable[[State, State, Tensor, Tensor], State]
"""``(weights, fixed, x, y) -> gradients`` of every model's loss on its own batch, ``[models, …]`` each."""

WIDTHS = (4, 16)
"""The stacks that are timed: a wide one saves more overhead, a narrow one stays in the cache."""

GAIN = 0.95
"""The share of the loop's time that a stack must stay under to be chosen."""

TRACED = 300
"""Steps below which tracing a stack's gradients costs more than it saves."""

WORTH = 4.0
"""Seconds of work by loop below which timing anything else costs more than it can save."""


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


@dataclass(frozen=True, kw_only=True, repr=False)
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

    def __repr__(self) -> str:
        """The same in every process: functions by their names, not their addresses."""
        numbers = (f"{name}={getattr(self, name)!r}" for name in
                   ("epochs", "batch", "rate", "momentum", "weight_decay", "schedule"))
        functions = (f"{name}={called(getattr(self, name))}" for name in ("init", "loss", "augment"))
        return f"Recipe({', '.join([*functions, *numbers])})"

    def fingerprint(self) -> str:
        """sha256 over the numbers, the functions' names and an initial module: its structure and its bytes."""
        module = self.fresh(0)
        digest = hashlib.sha256(f"{self!r} {module!r}".encode())
        for name, tensor in sorted(state_of(module).items()):
            digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

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
            return piled([_Single(self, x, y, job).run().state() for job in jobs])
        states: list[State] = []
        slopes: Slopes | None = None
        for at in range(0, len(jobs), plan.width):
            some = jobs[at : at + plan.width]
            stack = _Stack(self, x, y, some if len(some) > 1 else some * 2)  # one alone would be rounded differently
            if slopes is None or len(some) < plan.width:
                slopes = stack.traced() if len(stack.order) * (len(jobs) - at) >= TRACED * plan.width else stack.slopes
            state = stack.run(slopes).state()
            states.append({name: tensor[: len(some)] for name, tensor in state.items()})
        return joined(states)

    def steps(self, members: int) -> int:
        """How many steps a model with this many members takes."""
        return -(-self.epochs * members // self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step; zero once the model is finished."""
        if step >= steps:
            return 0.0
        return self.rate * ((1 + math.cos(math.pi * step / steps)) / 2 if self.schedule == "cosine" else 1.0)


class Plan(NamedTuple):
    """How models are trained: one after another, or so many side by side."""

    how: Literal["stacked", "loop"]
    width: int


class Job(NamedTuple):
    """One model to train: which examples are its members, and its seed."""

    members: Tensor
    seed: int


LOOP = Plan("loop", 1)
"""One after another."""


def planned(recipe: Recipe, x: Tensor, y: Tensor, keep: NDArray[np.bool_], seeds: Sequence[int],
            how: How = "auto") -> Plan:
    """What is fastest here: a few steps of each way are timed on the first models, where there is enough to save.

    The choice depends on the machine and its load, and the two ways round differently: name ``how`` where the bytes
    must come out the same elsewhere. A stack's width is free: it does not enter the bytes.

    Raises:
        TargetError: PRV500 where ``how`` is ``"stacked"`` and the module cannot be.
    """
    reason = unstackable(recipe.fresh(0))
    if reason and how == "stacked":
        raise TargetError("PRV500", reason)
    if how == "loop" or reason:
        return LOOP
    jobs = jobs_of(keep, seeds, x.device)
    steps = sum(recipe.steps(len(job.members)) for job in jobs)
    turn = _alone(recipe, x, y, jobs[0]) if how == "auto" else math.inf
    if turn * steps < WORTH:
        return LOOP
    try:
        timed = {width: _abreast(recipe, x, y, (jobs * width)[:width], steps) for width in WIDTHS}
    except RuntimeError as error:
        if how == "stacked":
            raise TargetError("PRV500", str(error)) from error
        return LOOP
    best = min(timed, key=timed.__getitem__)
    return Plan("stacked", best) if timed[best] < GAIN * turn else LOOP


def jobs_of(keep: NDArray[np.bool_], seeds: Sequence[int], device: torch.device) -> list[Job]:
    """One job a row of ``keep``."""
    return [Job(torch.from_numpy(np.flatnonzero(row)).to(device), int(seed)) for row, seed in zip(keep, seeds)]


def called(function: object) -> str:
    """What tells a function from another in any process: its name, and what a partial has bound."""
    if isinstance(function, partial):
        bound = [called(function.func), repr(function.args), repr(sorted(function.keywords.items()))]
        return f"partial({', '.join(bound)})"
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else re.sub(r" at 0x[0-9a-f]+", "", repr(function))


class _Single:
    """One model, trained by itself. Convolutions run in channels-last memory, 1.5 to 2 times faster on a CPU."""

    def __init__(self, recipe: Recipe, x: Tensor, y: Tensor, job: Job) -> None:
        self.recipe, self.x, self.y, self.job = recipe, x, y, job
        self.module = recipe.fresh(job.seed).to(x.device).train()
        if x.ndim == 4 and convolves(self.module):
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
        at = self.order[step]
        x, y = self.x.index_select(0, at), self.y.index_select(0, at)
        if self.recipe.augment is not None:
            x = self.recipe.augment(x, self.rows.fold(step))
        slopes = torch.autograd.grad(self.recipe.loss(self.module(x), y).mean(), self.weights)
        rate = torch.full((), -self.recipe.rate_at(step, self.steps), dtype=torch.float64, device=x.device)
        with torch.no_grad():
            for weight, slope, speed in zip(self.weights, slopes, self.speed):
                _move(self.recipe, weight, slope, speed, rate)

    def state(self) -> State:
        """Parameters and buffers."""
        return {name: tensor.detach().contiguous() for name, tensor in state_of(self.module).items()}


class _Stack:
    """Many models, trained side by side: every step is one batched product a layer."""

    def __init__(self, recipe: Recipe, x: Tensor, y: Tensor, jobs: Sequence[Job]) -> None:
        self.recipe, self.x, self.y = recipe, x, y
        modules = [recipe.fresh(job.seed).to(x.device).train() for job in jobs]
        weights, buffers = stack_module_state(modules)
        moved = {name for name, p in modules[0].named_parameters() if p.requires_grad}
        self.weights = {name: w.detach() for name, w in weights.items() if name in moved}
        self.fixed = {name: w.detach() for name, w in {**weights, **buffers}.items() if name not in moved}
        self.speed = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.lengths = [recipe.steps(len(job.members)) for job in jobs]
        self.order = nn.utils.rnn.pad_sequence([_order(recipe, job) for job in jobs])  # [steps, models, batch]
        self.rows = _rows(recipe, jobs)
        self._shell = copy.deepcopy(modules[0]).to("meta")

    def slopes(self, weights: State, fixed: State, x: Tensor, y: Tensor) -> State:
        """The gradient of every model's mean loss on its own batch."""

        def loss(weights: State, fixed: State, x: Tensor, y: Tensor) -> Tensor:
            return self.recipe.loss(functional_call(self._shell, {**weights, **fixed}, (x,)), y).mean()

        return cast(State, vmap(grad(loss))(weights, fixed, x, y))

    def traced(self) -> Slopes:
        """The same, traced into plain operations: the same bits at half of vmap's overhead a step."""
        from torch.fx.experimental.proxy_tensor import make_fx  # a second to import, for those who train long

        def unbound(weights: State, fixed: State, x: Tensor, y: Tensor) -> State:
            return self.slopes(weights, fixed, x, y)

        return cast(Slopes, make_fx(unbound)(self.weights, self.fixed, *self._batch(0)))

    def run(self, slopes: Slopes) -> _Stack:
        """Trains all of them to the end."""
        for step in range(len(self.order)):
            self.step(slopes, step)
        return self

    def step(self, slopes: Slopes, step: int) -> None:
        """One batch of every model; one that is finished stands still, its rate being zero."""
        found = slopes(self.weights, self.fixed, *self._batch(step))
        rates = [-self.recipe.rate_at(step, length) for length in self.lengths]
        rate = torch.tensor(rates, dtype=torch.float64, device=self.x.device)
        for name, weight in self.weights.items():
            _move(self.recipe, weight, found[name], self.speed[name], rate.view(-1, *[1] * (weight.ndim - 1)))

    def state(self) -> State:
        """Parameters and buffers, ``[models, …]``."""
        return {**self.weights, **self.fixed}

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        at = self.order[step]
        x = self.x.index_select(0, at.flatten()).reshape(*at.shape, *self.x.shape[1:])
        if self.recipe.augment is not None:
            x = self.recipe.augment(x.flatten(0, 1), self.rows.fold(step)).reshape(x.shape)
        return x, self.y[at]


def _alone(recipe: Recipe, x: Tensor, y: Tensor, job: Job) -> float:
    """Seconds of a step of one model."""
    model = _Single(recipe, x, y, job)
    return _seconds(model.step, model.steps)


def _abreast(recipe: Recipe, x: Tensor, y: Tensor, jobs: Sequence[Job], steps: int) -> float:
    """Seconds of a step, for each model of a stack."""
    stack = _Stack(recipe, x, y, jobs)
    if steps < TRACED * len(jobs):
        return _seconds(partial(stack.step, stack.slopes), len(stack.order), budget=0) / len(jobs)
    return _seconds(partial(stack.step, stack.traced()), len(stack.order)) / len(jobs)


def _move(recipe: Recipe, weight: Tensor, slope: Tensor, speed: Tensor, rate: Tensor) -> None:
    """One step of stochastic gradient descent with momentum, in place."""
    torch.add(slope, speed, alpha=recipe.momentum, out=speed)
    if recipe.weight_decay:
        speed.add_(weight, alpha=recipe.weight_decay)
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


def _seconds(step: Callable[[int], None], steps: int, budget: float = 0.2) -> float:
    """The median of the first steps, after one to warm up. What they train is thrown away.

    On a CPU the thread's own time is taken: beside other work the wall's would count against the longer step.
    """
    clock = _synchronized if torch.cuda.is_available() else time.thread_time
    taken: list[float] = []
    with seeded(0, torch.device("cpu")):
        step(0)
        while not taken or (sum(taken) < budget and len(taken) < steps):
            start = clock()
            step(len(taken))
            taken.append(clock() - start)
    return float(np.median(taken))


def _synchronized() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
