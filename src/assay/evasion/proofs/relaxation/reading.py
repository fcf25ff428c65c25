"""What reading a graph passes around: signals, extents, one call to convert, and the growing list of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from assay.errors import TargetError

from .network import Node
from .ops import Op


@final
@dataclass(frozen=True)
class Signal:
    """A tensor computed from the input: the node that yields it, and its per-example shape in the module."""

    index: int
    shape: tuple[int, ...]


@final
@dataclass(frozen=True)
class Extent:
    """A value that is not a tensor but was read off one that depends on the input: a size, a shape."""

    value: Any


@final
@dataclass(frozen=True)
class Call:
    """One call in the traced graph.

    Attributes:
        node: its name in the graph.
        name: what a person calls it.
        args, kwargs: with :class:`Signal` and :class:`Extent` for what depends on the input, constants as they are.
        layer: the module called, if one is.
        shape: the per-example shape of the result.
    """

    node: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: nn.Module | None
    shape: tuple[int, ...]

    def signal(self) -> Signal:
        """The first argument, which must depend on the input."""
        first = self.args[0] if self.args else self.kwargs.get("input")
        if isinstance(first, Signal):
            return first
        raise self.refuse("its first argument does not depend on the input")

    def argument(self, position: int, name: str, default: Any) -> Any:
        """An argument by position or name, which must be a constant."""
        value = self.args[position] if len(self.args) > position else self.kwargs.get(name, default)
        if isinstance(value, Signal | Extent):
            raise self.refuse(f"{name} depends on the input")
        return value

    def refuse(self, why: str) -> TargetError:
        """The error for a setting that is not supported."""
        return TargetError("PRF105", f"{self.name}: {why}", where=self.node)


@final
class Builder:
    """The nodes read so far; constants made on the way take the dtype and device of ``like``."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self._nodes: list[Node] = []

    def add(self, op: Op, inputs: tuple[Signal, ...], shape: tuple[int, ...], name: str) -> Signal:
        """Append an operation with outputs of per-example ``shape`` in the module's layout."""
        self._nodes.append(Node(op, tuple(signal.index for signal in inputs), map_shape(shape), name))
        return Signal(len(self._nodes) - 1, shape)

    def nodes(self) -> tuple[Node, ...]:
        """All of them, in order."""
        return tuple(self._nodes)


def map_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The layout a per-example shape is held in: ``[C, L]`` becomes ``[C, 1, L]``, others stay."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def map_constant(value: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """A constant that broadcasts against ``[rows, *shape]`` in the layout of :func:`map_shape`; None if it does not."""
    rank = len(shape) + 1
    padded = value.reshape((1,) * (rank - value.dim()) + tuple(value.shape)) if value.dim() <= rank else None
    if padded is None or any(have not in (1, want) for have, want in zip(padded.shape, (1, *shape))):
        return None
    inner = padded[0].detach().clone()
    return inner.unsqueeze(1) if len(shape) == 2 else inner
