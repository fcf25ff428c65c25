"""Reads a torch module, by symbolic tracing, as a network of canonical operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from assay.errors import TargetError

from .layers import FUNCTIONS, METHODS, MODULES, Handler
from .network import Network
from .ops import Input
from .reading import Builder, Call, Extent, Signal


def read_network(module: nn.Module, example: Tensor) -> Network:
    """The canonical network of ``module``, a snapshot of its parameters.

    Args:
        module: in eval mode; a module that ``torch.fx`` can trace, or a traced ``GraphModule``.
        example: ``[rows, *shape]`` with at least one row; only its shape matters, and its values for the check that
            the network computes what the module does.

    Raises ``TargetError``: PRF100 for an operation without a relaxation, PRF101 where tracing fails, PRF102 for a
    layer in training mode, PRF103 where network and module disagree, PRF104 where an operation mixes rows, PRF105 for
    a setting of a layer that is not supported, PRF107 where the outputs are not ``[rows, classes]``.
    """
    dtype = next((p.dtype for p in module.parameters()), example.dtype)
    # Two rows, so that an operation that mixes them shows in its output shape.
    pair = example[:1].detach().to(dtype).repeat(2, *[1] * (example.dim() - 1))
    with torch.no_grad():
        network = _Walk(_trace(module), pair).network()
        _check(network, module, pair)
    return network


def _trace(module: nn.Module) -> fx.GraphModule:
    if isinstance(module, fx.GraphModule):
        return module
    try:
        return fx.symbolic_trace(module)
    except Exception as error:  # tracing runs the module's own code: anything can come out of it
        raise TargetError("PRF101", f"torch.fx cannot trace {type(module).__name__}: {error}") from error


class _Walk:
    """One pass over a traced graph: runs every node on the example and builds its canonical operations."""

    def __init__(self, traced: fx.GraphModule, pair: Tensor) -> None:
        self._interpreter = fx.Interpreter(traced)
        self._traced = traced
        self._pair = pair
        self._builder = Builder(pair)
        self._known: dict[fx.Node, Any] = {}
        self._values: dict[fx.Node, Any] = {}

    def network(self) -> Network:
        for node in self._traced.graph.nodes:
            if node.op == "output":
                return self._finish(self._read(node.args[0]))
            self._visit(node)
        raise TargetError("PRF101", "the traced graph has no output")

    def _visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self._known:
                raise TargetError("PRF101", f"the module takes more than one input: {node.name}")
            self._values[node] = self._pair
            self._known[node] = self._builder.add(Input(), (), tuple(self._pair.shape[1:]), "input")
            return
        self._values[node] = self._run(node)
        fed = any(isinstance(self._known[parent], Signal | Extent) for parent in node.all_input_nodes)
        self._known[node] = self._convert(node) if fed else self._values[node]

    def _run(self, node: fx.Node) -> Any:
        args, kwargs = (fx.node.map_arg(part, self._values.__getitem__) for part in (node.args, node.kwargs))
        target: Any = node.target
        return getattr(self._interpreter, node.op)(target, args, kwargs)

    def _convert(self, node: fx.Node) -> Any:
        value = self._values[node]
        if not isinstance(value, Tensor):
            return Extent(value)
        if value.dim() == 0 or len(value) != 2:
            raise TargetError("PRF104", f"{_name(node)} turns shape {tuple(self._pair.shape)} into "
                                        f"{tuple(value.shape)}", where=node.name)
        handler, layer = self._handler(node)
        args, kwargs = self._read(node.args), self._read(node.kwargs)
        return handler(self._builder, Call(node.name, _name(node), tuple(args), dict(kwargs), layer,
                                           tuple(value.shape[1:])))

    def _handler(self, node: fx.Node) -> tuple[Handler, nn.Module | None]:
        layer = self._traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        tables: dict[str, Mapping[Any, Handler]] = {
            "call_module": MODULES, "call_function": FUNCTIONS, "call_method": METHODS}
        handler = tables[node.op].get(type(layer) if layer is not None else node.target)
        if handler is None:
            raise TargetError("PRF100", f"{_name(node)} has no linear relaxation here", where=node.name)
        return handler, layer

    def _read(self, part: Any) -> Any:
        return fx.node.map_arg(part, self._known.__getitem__)

    def _finish(self, result: Any) -> Network:
        nodes = self._builder.nodes()
        if not isinstance(result, Signal) or len(nodes[result.index].shape) != 1:
            raise TargetError("PRF107", "the module's output is not one tensor of logits [rows, classes]")
        return Network(nodes[:result.index + 1], self._pair.dtype)


def _check(network: Network, module: nn.Module, pair: Tensor) -> None:
    """Compare both on the example and near it: catches in-place edits and anything else a graph does not show."""
    noise = torch.randn(pair.shape, generator=torch.Generator().manual_seed(0)).to(pair)
    for x in (pair, pair + 0.1 * noise):
        expected = module(x)
        try:
            found = network.apply(x)
        except RuntimeError as error:
            raise TargetError("PRF103", f"the network read does not run: {error}") from error
        if found.shape != expected.shape:
            raise TargetError("PRF103", f"the network read yields {tuple(found.shape)}, not {tuple(expected.shape)}")
        tolerance = 1e4 * torch.finfo(pair.dtype).eps * (1 + float(expected.abs().max()))
        worst = float((expected - found).abs().max())
        if not worst <= tolerance:
            raise TargetError("PRF103", f"the network read from {type(module).__name__} is off by {worst:.3g}")


def _name(node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target}"
    if node.op == "call_method":
        return f"method Tensor.{node.target}"
    return f"function {getattr(node.target, '__name__', node.target)}"
