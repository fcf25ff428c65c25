"""A network as the prover sees it: canonical operations in an order in which each reads only earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

import torch
from torch import Tensor

from assay.errors import DataError

from .ops import Op


@final
@dataclass(frozen=True)
class Node:
    """One operation: what it does, which nodes it reads, its per-example output shape and its name in the module.

    Maps are held as ``[C, H, W]``; a one-dimensional map ``[C, L]`` as ``[C, 1, L]``.
    """

    op: Op
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    name: str


@final
@dataclass(frozen=True)
class Network:
    """The nodes in topological order: the first is the input, the last the logits ``[classes]``.

    Attributes:
        nodes: the operations.
        dtype: of the parameters; inputs are cast to it.
    """

    nodes: tuple[Node, ...]
    dtype: torch.dtype

    @property
    def classes(self) -> int:
        """How many logits there are."""
        return self.nodes[-1].shape[0]

    def apply(self, x: Tensor) -> Tensor:
        """The logits ``[rows, classes]`` of ``x [rows, *shape]``."""
        values: list[Tensor] = []
        for node in self.nodes:
            read = [values[i] for i in node.inputs] or [self.shaped(x)]
            values.append(node.op.apply(*read))
        return values[-1]

    def shaped(self, x: Tensor) -> Tensor:
        """``x`` in the dtype and map layout of the input node. Raises ``DataError`` PRF108 where it does not fit."""
        if x.dim() < 2 or prod(x.shape[1:]) != prod(self.nodes[0].shape):
            raise DataError("PRF108", f"examples of shape {tuple(x.shape[1:])} do not fit {self.nodes[0].shape}")
        return x.to(self.dtype).reshape(len(x), *self.nodes[0].shape)
