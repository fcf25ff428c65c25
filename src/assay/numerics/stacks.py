"""Networks of one kind as one stack of parameters: put together, taken apart, asked all at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

State = dict[str, Tensor]
"""Parameters and buffers by their names; of many networks, ``[models, …]`` each."""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded inside, and outside as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def tensors(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Examples and labels as tensors; the labels int64 where they are whole numbers."""
    inputs, labels = torch.as_tensor(x), torch.as_tensor(y)
    whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
    return inputs, labels.to(inputs.device, torch.int64 if whole else labels.dtype)


def state_of(module: nn.Module) -> State:
    """A network's parameters and buffers themselves, not copies."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def piled(states: Sequence[State]) -> State:
    """Single states as one stack."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def joined(states: Sequence[State]) -> State:
    """Stacks as one, in their order."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def unstacked(init: Callable[[], nn.Module], state: Mapping[str, Tensor], index: int) -> nn.Module:
    """The module of one row of a stacked state, in evaluation mode."""
    with seeded(0, torch.device("cpu")):
        module = init()
    with torch.no_grad():
        for name, tensor in state_of(module).items():
            tensor.copy_(state[name][index])
    return module.eval()


def outputs_of(init: Callable[[], nn.Module], state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What every network of a stack makes of ``x``, in evaluation mode: ``[models, rows, …]``.

    On a CPU convolutions take their turn, since side by side they are slower; all else is one batched product.
    """
    module = unstacked(init, state, 0).to(x.device)
    shell = copy.deepcopy(module).to("meta")
    held = {name: tensor.to(x.device) for name, tensor in state.items()}

    def outputs(one: State) -> Tensor:
        return cast(Tensor, functional_call(shell, one, (x,)))

    with torch.no_grad():
        if x.device.type == "cpu" and convolves(module):
            return torch.stack([outputs({name: tensor[at] for name, tensor in held.items()}) for at in rows_of(held)])
        return vmap(outputs)(held)


def rows_of(state: Mapping[str, Tensor]) -> range:
    """The numbers of a stack's networks."""
    return range(len(next(iter(state.values()))))


def convolves(module: nn.Module) -> bool:
    """Whether any layer is a convolution."""
    return any(isinstance(layer, _ConvNd) for layer in module.modules())


def unstackable(module: nn.Module) -> str:
    """Why a network cannot be trained in a stack; empty where it can as far as its layers tell.

    Statistics kept while training are written in place, which a stack cannot; and the global generator that dropout
    draws from would make a network depend on its neighbors.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats:
            return f"layer {name!r} keeps running statistics"
        if isinstance(layer, _DropoutNd) and layer.p > 0:
            return f"layer {name!r} draws from the global generator"
        if isinstance(layer, nn.RNNBase):
            return f"layer {name!r} is recurrent"
    return ""
