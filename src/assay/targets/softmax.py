"""Probabilities told from logits, and the final softmax taken off: attacks need logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_SOFTMAX_FUNCTIONS = (F.softmax, torch.softmax, F.log_softmax, torch.log_softmax)
_SOFTMAX_METHODS = ("softmax", "log_softmax")
_SATURATION = 1e-6


def looks_like_probabilities(scores: Tensor) -> bool:
    """Whether every row is a distribution: within [0, 1] and summing to 1."""
    if not len(scores) or not bool(torch.isfinite(scores).all()):
        return False
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    return inside and bool(((scores.sum(1) - 1).abs() < 1e-3).all())


def saturated(probabilities: Tensor) -> float:
    """The share of rows whose top probability has rounded to 1, where gradients are dead."""
    return float((probabilities.max(1).values >= 1 - _SATURATION).double().mean())


def without_softmax(model: nn.Module) -> fx.GraphModule | None:
    """The module with its final softmax taken off, sharing its parameters; ``None`` where none can be found."""
    try:
        traced = model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
    except Exception:  # tracing runs the user's code: whatever it raises means "cannot be traced"
        return None
    graph = fx.Graph()
    result = graph.graph_copy(traced.graph, {})
    if not isinstance(result, fx.Node) or not _is_softmax(result, traced):
        return None
    source = result.args[0] if result.args else result.kwargs["input"]
    graph.output(source)
    graph.erase_node(result)
    core = fx.GraphModule(traced, graph)
    core.training = model.training
    return core


def _is_softmax(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), (nn.Softmax, nn.LogSoftmax, nn.Softmax2d))
    if node.op == "call_function":
        return node.target in _SOFTMAX_FUNCTIONS
    return node.op == "call_method" and node.target in _SOFTMAX_METHODS
