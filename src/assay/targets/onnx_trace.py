"""The values an ONNX import passes between operators, and the torch.fx graph that it grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from assay.errors import TargetError

Array: TypeAlias = npt.NDArray[Any]

# Every shape is followed at two batch sizes: what differs between them is the batch, whatever its value.
# Neither is 1, which would let a batch hide among the dimensions of size 1.
PROBES = (2, 3)


@dataclass(frozen=True, eq=False)
class Known:
    """A value that does not depend on the examples, only perhaps on how many there are.

    Attributes:
        at: the value at each of the ``PROBES`` batch sizes; the same object twice when it is a plain constant.
    """

    at: tuple[Array, Array]

    @classmethod
    def constant(cls, array: Array) -> Known:
        """A value that is the same at any batch size."""
        return cls((array, array))

    def common(self) -> Array | None:
        """The value at any batch size, with equal rows collapsed to one; ``None`` when it depends on the batch."""
        first, second = self.at
        if first is second or np.array_equal(first, second):
            return first
        if first.ndim != second.ndim:
            return None
        axes = [axis for axis, (a, b) in enumerate(zip(first.shape, second.shape)) if a != b]
        if len(axes) != 1:
            return None
        row = first.take([0], axes[0])
        return row if bool((first == row).all() and (second == row).all()) else None


@dataclass(frozen=True, eq=False)
class Traced:
    """A value computed from the examples: a node of the graph and what it gives at each of the ``PROBES``.

    Attributes:
        node: the node of the growing graph.
        probes: meta tensors (or tuples of them), one a probe.
    """

    node: fx.Node
    probes: tuple[Any, Any]

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape at each probe."""
        return tuple(self.probes[0].shape), tuple(self.probes[1].shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape at the first probe: read only dimensions that are not the batch from it."""
        return self.shapes[0]

    @property
    def rank(self) -> int:
        """How many dimensions."""
        return len(self.sizes)

    @property
    def batch_axes(self) -> tuple[int, ...]:
        """The dimensions that grow with the batch."""
        first, second = self.shapes
        return tuple(axis for axis, (a, b) in enumerate(zip(first, second)) if a != b)


Value: TypeAlias = Known | Traced
Operand: TypeAlias = Traced | Tensor | float


def tensor_of(array: Array) -> Tensor:
    """A torch copy of a constant: every floating kind becomes float32, integers int64, Booleans stay."""
    if array.dtype.kind == "b":
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(np.array(array, dtype=np.int64 if array.dtype.kind in "iu" else np.float32))


class Builder:
    """Grows the graph, following the shape of every node at the probe batch sizes.

    Args:
        row_shape: the shape of one example.
        fixed: the batch size that the file was exported with.
    """

    def __init__(self, row_shape: tuple[int, ...], fixed: int) -> None:
        self.fixed = fixed
        self.root = nn.Module()
        self.graph = fx.Graph()
        self._counts: dict[str, int] = {}
        node = self.graph.placeholder("input")
        first, second = (torch.empty(rows, *row_shape, device="meta") for rows in PROBES)
        self.input = Traced(node, (first, second))

    def finish(self, value: Traced) -> fx.GraphModule:
        """The graph that returns this value, in eval mode."""
        self.graph.output(value.node)
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph, "ImportedOnnx").eval()

    def module(self, name: str, module: nn.Module, value: Traced) -> Traced:
        """Adds a module under a fresh name and calls it on one value."""
        module.eval()
        meta = {key: part.to("meta") for key, part in module.state_dict(keep_vars=True).items()}
        first, second = (torch.func.functional_call(module, meta, (probe,)) for probe in value.probes)
        fresh = self._fresh(name)
        self.root.add_module(fresh, module)
        return Traced(self.graph.call_module(fresh, (value.node,)), (first, second))

    def function(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Traced:
        """Calls a function; tensors among the arguments become parameters or buffers of the module."""
        first, second = (function(*_at(args, probe)) for probe in (0, 1))
        return Traced(self.graph.call_function(function, self._nodes(args, name)), (first, second))

    def expand(self, name: str, value: Operand, rows: tuple[int, ...], sizes: tuple[int, ...]) -> Traced:
        """Broadcasts to these sizes, with the batch size at the axes in ``rows``."""
        batch = self.graph.call_method("size", (self.input.node, 0))
        wanted = [batch if axis in rows else size for axis, size in enumerate(sizes)]
        node = self.graph.call_method("expand", (self._nodes(value, name), *wanted))
        shapes = [[count if axis in rows else size for axis, size in enumerate(sizes)] for count in PROBES]
        first, second = (_at(value, probe).expand(*shapes[probe]) for probe in (0, 1))
        return Traced(node, (first, second))

    def _nodes(self, value: Any, name: str) -> Any:
        if isinstance(value, Traced):
            return value.node
        if isinstance(value, Tensor):
            return self._attribute(value, name)
        if isinstance(value, tuple | list):
            return type(value)(self._nodes(part, name) for part in value)
        return value

    def _attribute(self, value: Tensor, name: str) -> fx.Node:
        fresh = self._fresh(f"{name}_constant")
        if value.is_floating_point():
            self.root.register_parameter(fresh, nn.Parameter(value))
        else:
            self.root.register_buffer(fresh, value)
        return self.graph.get_attr(fresh)

    def _fresh(self, name: str) -> str:
        count = self._counts[name] = self._counts.get(name, -1) + 1
        return f"{name}_{count}"


def _at(value: Any, probe: int) -> Any:
    """The arguments of a call at one probe, as meta tensors."""
    if isinstance(value, Traced):
        return value.probes[probe]
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, tuple | list):
        return type(value)(_at(part, probe) for part in value)
    return value


@dataclass(frozen=True, eq=False)
class Step:
    """One ONNX node on its way into the graph: what it reads, its attributes, and how to emit torch for it.

    Attributes:
        operator: the ONNX operator.
        where: file and node, for errors.
        opset: version of the default operator set.
        inputs: its inputs in order; ``None`` for one left out.
        attributes: its attributes as Python and numpy values.
        outputs: how many outputs it names.
        fusable: for each input, whether it is a product that only this node reads.
        builder: the graph under construction.
    """

    operator: str
    where: str
    opset: int
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    outputs: int
    fusable: tuple[bool, ...]
    builder: Builder

    def refuse(self, what: str) -> NoReturn:
        """Raises TGT202: the operator is known, this form of it is not."""
        raise TargetError("TGT202", f"{self.operator} {what}", where=self.where)

    def mixes(self, what: str) -> NoReturn:
        """Raises TGT207: rows of the batch would no longer be independent."""
        raise TargetError("TGT207", f"{self.operator} {what}", where=self.where)

    def value(self, index: int) -> Value | None:
        """An input, or ``None`` when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def traced(self, index: int = 0) -> Traced:
        """An input that is computed from the examples. Raises TGT202 for a constant."""
        value = self.value(index)
        if isinstance(value, Traced):
            return value
        self.refuse(f"with input {index} constant or missing while others vary is not supported")

    def pair(self, index: int) -> tuple[Array, Array] | None:
        """A constant input at each probe, ``None`` when left out. Raises TGT202 when it depends on the examples."""
        value = self.value(index)
        if isinstance(value, Traced):
            self.refuse(f"with input {index} computed from the examples is not supported")
        return value.at if value is not None else None

    def array(self, index: int) -> Array | None:
        """A constant input, ``None`` when left out. Raises TGT207 when it depends on the batch size."""
        value = self.value(index)
        if self.pair(index) is None or not isinstance(value, Known):
            return None
        common = value.common()
        if common is None:
            self.mixes(f"reads a number that depends on how many rows there are (input {index})")
        return common

    def tensor(self, index: int) -> Tensor:
        """A constant input that must be there, as torch."""
        found = self.optional(index)
        if found is None:
            self.refuse(f"without input {index} is not supported")
        return found

    def optional(self, index: int) -> Tensor | None:
        """A constant input as torch, ``None`` when left out."""
        array = self.array(index)
        return None if array is None else tensor_of(array)

    def scalar(self, index: int) -> float | None:
        """A constant input of one element, ``None`` when left out."""
        array = self.array(index)
        if array is not None and array.size != 1:
            self.refuse(f"with {array.size} values where one is expected (input {index}) is not supported")
        return None if array is None else float(array.reshape(-1)[0])

    def integers(self, name: str, index: int | None = None) -> tuple[int, ...] | None:
        """A list of integers from an attribute, or in later opsets from an input; ``None`` when in neither."""
        if name in self.attributes:
            return tuple(int(part) for part in self.attributes[name])
        array = None if index is None else self.array(index)
        return None if array is None else tuple(int(part) for part in array.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A floating-point attribute."""
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)

    def axis(self, default: int, rank: int) -> int:
        """The ``axis`` attribute, counted from the front."""
        return self.integer("axis", default) % rank

    def module(self, module: nn.Module, value: Traced) -> Traced:
        """Emits a module."""
        return self.builder.module(self.operator.lower(), module, value)

    def function(self, function: Callable[..., Any], *args: Any) -> Traced:
        """Emits a function call."""
        return self.builder.function(self.operator.lower(), function, args)

    def operand(self, index: int, rank: int) -> Operand:
        """An input of an elementwise operator; a one-element constant that cannot raise ``rank`` is a number."""
        value = self.value(index)
        if isinstance(value, Traced):
            return value
        array = self.array(index)
        if array is None:
            self.refuse(f"without input {index} is not supported")
        return float(array.reshape(-1)[0]) if array.size == 1 and array.ndim <= rank else tensor_of(array)

    def operands(self) -> list[Operand]:
        """All inputs of an elementwise operator."""
        rank = max(value.rank for value in self.inputs if isinstance(value, Traced))
        return [self.operand(index, rank) for index in range(len(self.inputs))]


def loaded(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A module built on the meta device, given its weights: no random initialization is drawn or wasted."""
    module.load_state_dict(dict(state), assign=True)
    return module
