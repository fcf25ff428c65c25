"""What a network computes on the way to its scores: activations of named layers, from one forward, differentiably.

A layer is named as in ``named_modules``: ``"relu_3"`` is what it puts out, ``"fc:input"`` what it is given. A module
that is called several times in one forward is numbered from its second call on: ``"relu#2"``. Steps that are no modules
of their own, such as ``F.relu``, cannot be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from assay.errors import TargetError, nearest
from assay.targets.base import Graded

INPUT = ":input"
"""Ends the name of what a layer is given."""

FeatureLoss = Callable[..., Tensor]
"""A per-row objective: ``(features: tuple of [rows, …], *labels [rows, …]) -> [rows]``."""

_NONLINEAR = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
              nn.Hardswish, nn.Softplus, nn.Sigmoid, nn.Tanh)
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Activations(NamedTuple):
    """What one forward gave.

    Attributes:
        scores: what the network puts out, ``[rows, classes]``.
        layers: the activations asked for, in the order of their names, ``[rows, …]`` each.
    """

    scores: Tensor
    layers: tuple[Tensor, ...]


def read(module: nn.Module, names: tuple[str, ...], x: Tensor) -> Activations:
    """One forward, and what these layers computed in it.

    Gradients reach ``x`` where they are enabled, never a weight; running statistics stay as they are.

    Raises:
        TargetError: PRF141 where a layer was not called.
    """
    seen: dict[str, Tensor] = {}
    wanted = {name.partition(":")[0].partition("#")[0] for name in names}

    def note(name: str, layer: nn.Module, given: object, out: object) -> None:
        for key, value in ((name + INPUT, given), (name, out)):
            if key in names and isinstance(value, Tensor):
                seen[key] = value.clone()  # the next layer may work in place

    state = {name: p.detach() for name, p in module.named_parameters()}
    state.update({name: b.clone() for name, b in module.named_buffers()})
    with _listening(module, note, wanted):
        scores = functional_call(module, state, (x,))
    for name in names:
        if name not in seen:
            said = f"no layer called {name!r} took part in a forward{nearest(name, layers(module))}"
            raise TargetError("PRF141", said)
    return Activations(scores, tuple(seen[name] for name in names))


def graded(
    module: nn.Module, names: tuple[str, ...], x: Tensor, loss: FeatureLoss, *labels: Tensor, batch: int = 512
) -> Graded:
    """Scores, a loss of the features of these layers, and its input gradient: one forward and one backward a row."""
    parts = []
    with torch.enable_grad():
        for start in range(0, max(len(x), 1), batch):
            rows = slice(start, start + batch)
            leaf = x[rows].detach().requires_grad_()
            scores, features = read(module, names, leaf)
            values = loss(features, *(label[rows] for label in labels))
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
            parts.append(Graded(scores.detach(), values.detach(), gradient))
    return Graded(*(torch.cat(column) for column in zip(*parts)))


def layers(module: nn.Module) -> list[str]:
    """The names of all layers that have none below them."""
    return [name for name, layer in module.named_modules() if not any(layer.children())]


def chosen(module: nn.Module, x: Tensor, count: int) -> tuple[str, ...]:
    """``count`` layers of use, from the input to the output: the penultimate one and others evenly before it.

    The penultimate layer is what the last linear one is given; the others are nonlinearities, or, where there are
    too few, layers with weights.

    Args:
        x: an example to try the network on, ``[rows ≥ 1, …]``.

    Raises:
        TargetError: PRF141 for a network without a layer that could be named.
    """
    calls: list[tuple[str, nn.Module]] = []
    with torch.no_grad(), _listening(module, lambda name, layer, given, out: calls.append((name, layer))):
        functional_call(module, {name: b.clone() for name, b in module.named_buffers()}, (x[:2],))
    linear = [name for name, layer in calls if isinstance(layer, nn.Linear)]
    inner = [name for name, layer in calls if isinstance(layer, _NONLINEAR)]
    if len(inner) < count:
        useful = (*_NONLINEAR, *_WEIGHTED)
        inner = [name for name, layer in calls if isinstance(layer, useful) and name not in linear[-1:]]
    last = linear[-1] + INPUT if linear else inner.pop() if inner else ""
    if not last:
        raise TargetError("PRF141", "the network has no layer that can be named")
    before = inner[:-1] if linear else inner  # what the last nonlinearity puts out is what the last layer is given
    apart = len(before) / max(count - 1, 1)
    picked = [before[round((i + 0.5) * apart - 0.5)] for i in range(count - 1)] if before else []
    return (*dict.fromkeys(picked), last)


def pooled(activation: Tensor) -> Tensor:
    """``[rows, channels]``: averaged over all places of an activation ``[rows, channels, …]`` (Lee et al., 2018)."""
    return activation.flatten(2).mean(2) if activation.dim() > 2 else activation


@contextmanager
def _listening(
    module: nn.Module, note: Callable[[str, nn.Module, object, object], None], names: set[str] | None = None
) -> Iterator[None]:
    """While the block runs, ``note(name, layer, input, output)`` is called after each layer (of these names)."""
    calls: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def called(layer: nn.Module, given: tuple[object, ...], out: object) -> None:
            calls[name] += 1
            numbered = name if calls[name] == 1 else f"{name}#{calls[name]}"
            note(numbered, layer, given[0] if given else None, out)

        return called

    listened = layers(module) if names is None else [name for name, _ in module.named_modules() if name in names]
    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in listened]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
