"""One example's gradient, clipped: what bounds how far anybody can move a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from assay.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(outputs [rows, …], y [rows]) -> [rows]``: the loss of each example."""

Gradients = Mapping[str, Tensor]
"""A gradient, one tensor a trained parameter."""

_ACROSS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
"""Layers that may keep statistics of the data in buffers, which no noise covers."""

_PLAIN = (nn.Flatten, nn.Identity)
"""What may stand before a linear layer for its gradients to be had in closed form."""


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each example: ``[rows, classes]`` and int64 ``[rows]`` to ``[rows]``."""
    return F.cross_entropy(outputs, y, reduction="none")


class Clipped(NamedTuple):
    """A sum of gradients of which no example's is longer than the clip.

    Attributes:
        total: one tensor a trained parameter.
        norms: ``[rows]``: how long each gradient was, over all parameters together, before it was clipped.
    """

    total: dict[str, Tensor]
    norms: Tensor


@dataclass(frozen=True, eq=False)
class PerExample:
    """The clipped gradients of a module's examples, one by one, in pieces that fit in memory.

    A module that is one linear layer (flattening aside) has them in closed form: the gradient of an example is the
    outer product of ``∂loss/∂z`` and the input, so its norm is the product of theirs, and the sum is one matrix
    product. Any other module goes through ``vmap`` of ``grad``, in which an example is a batch by itself. A gradient
    that is not finite cannot be clipped: it is left out, or one example would make the sum infinite.

    Attributes:
        module: in training mode; its parameters are read, never written.
        loss: of each example.
        clip: the longest that one example's gradient may be, in L2.
        rows: how many examples at a time.
        closed: whether to use the closed form where there is one.

    Raises:
        ConfigError: PRV205 where a layer keeps statistics of the data, PRV206 where no parameter is trained.
    """

    module: nn.Module
    loss: Loss = cross_entropy
    clip: float = 1.0
    rows: int = 256
    closed: bool = True

    def __post_init__(self) -> None:
        for name, layer in self.module.named_modules():
            if isinstance(layer, _ACROSS) and (layer.track_running_stats or isinstance(layer, _ACROSS[0])):
                raise ConfigError("PRV205", f"{name or 'the module'} is {type(layer).__name__}")
        if not any(p.requires_grad for p in self.module.parameters()):
            raise ConfigError("PRV206", f"no parameter of {type(self.module).__name__} requires a gradient")

    def parameters(self) -> dict[str, Tensor]:
        """A copy of the trained parameters."""
        return {name: p.detach().clone() for name, p in self.module.named_parameters() if p.requires_grad}

    def sum(self, parameters: Gradients, x: Tensor, y: Tensor, at: Tensor | None = None) -> Clipped:
        """The sum over these examples at these parameters; of none, zeros.

        Args:
            at: int64, which of the examples; all by default. They are gathered a few at a time, which keeps them in
                the cache, and cast to the parameters' precision.
        """
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        like = next(iter(total.values()))
        norms = [like.new_zeros(0)]
        for start in range(0, len(x) if at is None else len(at), self.rows):
            rows = slice(start, start + self.rows) if at is None else at[start : start + self.rows]
            a = x[rows].to(like.dtype) if x.is_floating_point() else x[rows]
            entering = _entering(self.module, a) if self.closed else None
            clipped = (self._mapped(parameters, a, y[rows]) if entering is None
                       else self._linear(parameters, entering, y[rows]))
            norms.append(clipped.norms)
            for name, value in clipped.total.items():
                total[name] += value
        return Clipped(total, torch.cat(norms))

    def each(self, parameters: Gradients, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Every example's gradient, before clipping: ``[rows, *shape]`` a parameter, all in memory at once."""
        fixed = {name: p.detach() for name, p in self.module.named_parameters() if name not in parameters}
        fixed |= dict(self.module.named_buffers())

        def single(trained: Gradients, one: Tensor, label: Tensor) -> Tensor:
            outputs = functional_call(self.module, {**trained, **fixed}, (one[None],))
            return self.loss(outputs, label[None])[0]

        gradients: dict[str, Tensor] = vmap(grad(single), in_dims=(None, 0, 0), randomness="different")(
            dict(parameters), x, y)
        return gradients

    def _mapped(self, parameters: Gradients, x: Tensor, y: Tensor) -> Clipped:
        gradients = self.each(parameters, x, y)
        norms = norms_of(gradients.values(), len(x))
        kept = norms.isfinite()
        share = self._share(norms[kept])
        return Clipped({name: torch.tensordot(share.to(g.dtype), g if kept.all() else g[kept], 1)
                        for name, g in gradients.items()}, norms)

    def _linear(self, parameters: Gradients, x: Tensor, y: Tensor) -> Clipped:
        """Two matrix products: the outputs, and the weighted sum of outer products (Goodfellow, 2015)."""
        weight, *bias = sorted(parameters, key=lambda name: -parameters[name].ndim)
        with torch.enable_grad():
            outputs = F.linear(x, parameters[weight], *(parameters[name] for name in bias)).requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(outputs, y).sum(), outputs)
        lengths = torch.linalg.vector_norm(x, dim=1).square() + len(bias)  # a bias sees a constant input of one
        norms = torch.linalg.vector_norm(slope, dim=1) * lengths.sqrt()
        if not (kept := norms.isfinite()).all():
            x, slope = x[kept], slope[kept]
        slope = slope * self._share(norms[kept])[:, None]
        return Clipped({weight: slope.T @ x, **{name: slope.sum(0) for name in bias}}, norms)

    def _share(self, norms: Tensor) -> Tensor:
        """How much of each gradient is kept."""
        return (self.clip / norms.clamp_min(1e-30)).clamp_max(1.0)


def _entering(module: nn.Module, x: Tensor) -> Tensor | None:
    """What reaches the one linear layer that the module amounts to, ``[rows, d]``; ``None`` where it is another."""
    layers = list(module) if type(module) is nn.Sequential else [module]
    plain = all(type(layer) in _PLAIN for layer in layers[:-1]) and type(layers[-1]) is nn.Linear
    if not plain or not all(p.requires_grad for p in module.parameters()):
        return None
    for layer in layers[:-1]:
        x = layer(x)
    return x if x.ndim == 2 else None


def norms_of(gradients: Iterable[Tensor], rows: int) -> Tensor:
    """The L2 norm over all parameters together, ``[rows]``, of gradients ``[rows, *shape]``."""
    squares = [g.reshape(rows, -1).square().sum(1) for g in gradients]
    return torch.stack(squares).sum(0).sqrt()


def sensitivity(release: Callable[[Tensor, Tensor], Gradients], x: Tensor, y: Tensor) -> float:
    """The most by which leaving one of these examples out moves what is released, in L2.

    What a clipping rule must keep below the clip; a rule that divides by the batch, clips in parts or clips the mean
    does not (Tramèr et al., 2022, "Debugging Differential Privacy").
    """
    whole, left, farthest = release(x, y), torch.ones(len(x), dtype=torch.bool, device=x.device), 0.0
    for out in range(len(x)):
        left[out] = False
        less = release(x[left], y[left])
        farthest = max(farthest, float(norms_of(((whole[name] - less[name])[None] for name in whole), 1)))
        left[out] = True
    return farthest
