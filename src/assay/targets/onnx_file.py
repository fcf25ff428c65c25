"""ONNX files read and refused: whole, with one input, one output of scores, and their weights at hand."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from assay.errors import TargetError, missing_extra, nearest

Source: TypeAlias = str | os.PathLike[str] | bytes

# TensorProto's FLOAT, FLOAT16, DOUBLE and BFLOAT16.
_FLOATING = (1, 10, 11, 16)


def extra(name: str) -> ModuleType:
    """``onnx``, ``onnxruntime`` or a part of them. Raises CFG110 when the extra is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_extra("onnx and onnxruntime", "onnx") from None


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A whole ONNX model with one input and one output chosen.

    Attributes:
        model: the ``onnx.ModelProto``, weights included.
        label: the file's name, or ``"the ONNX bytes"``, for errors.
        input_name: the input.
        input_shape: its shape, the batch first; ``None`` where the file leaves a size free.
        output_name: the output that holds the scores.
    """

    model: Any
    label: str
    input_name: str
    input_shape: tuple[int | None, ...]
    output_name: str

    @property
    def fixed(self) -> int | None:
        """The batch size that the file was exported with, ``None`` when it is free."""
        return self.input_shape[0]

    def row_shape(self, given: tuple[int, ...] | None) -> tuple[int, ...]:
        """The shape of one example: the file's, or the one given where the file leaves sizes free.

        Raises:
            TargetError: TGT205 when sizes are free and none are given, or when they contradict the file.
        """
        own = self.input_shape[1:]
        if given is None:
            known = tuple(size for size in own if size is not None)
            if len(known) == len(own):
                return known
            raise TargetError("TGT205", f"input {self.input_name!r} has shape {_spoken(self.input_shape)}, "
                                        "where ? is left free", where=self.label)
        if len(given) != len(own) or any(size not in (None, wanted) for size, wanted in zip(own, given)):
            raise TargetError("TGT205", f"input_shape={given} does not fit the file's {_spoken(own)}", where=self.label)
        return given

    def live_nodes(self) -> list[Any]:
        """The nodes that the chosen output depends on, in order."""
        needed, kept = {self.output_name}, []
        for node in reversed(self.model.graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        return kept[::-1]


def _spoken(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def read(source: Source, output: str | None = None) -> OnnxFile:
    """Reads an ONNX model from a path or from bytes.

    Args:
        source: path of the ``.onnx`` file, or its bytes.
        output: name of the output that holds the scores; needed only when the file has several candidates.

    Raises:
        TargetError: TGT200 not a whole ONNX file, TGT203 not one floating input, TGT204 unclear output,
            TGT205 no batch dimension, TGT206 external weights missing.
        ConfigError: CFG110 when onnx is not installed.
    """
    model, label = _parsed(source)
    _load_external(model, None if isinstance(source, bytes) else Path(source), label)
    if model.functions:
        model = extra("onnx.inliner").inline_local_functions(model)
    name, shape = _choose_input(model, label)
    return OnnxFile(model, label, name, shape, _choose_output(model, output, label))


def _parsed(source: Source) -> tuple[Any, str]:
    onnx = extra("onnx")
    decode_error = extra("google.protobuf.message").DecodeError
    label = "the ONNX bytes" if isinstance(source, bytes) else os.fspath(source)
    try:
        payload = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise TargetError("TGT200", f"the file cannot be read: {error.strerror}", where=label) from None
    try:
        model = onnx.load_model_from_string(payload)
    except decode_error:
        raise TargetError("TGT200", f"these {len(payload)} bytes are not a whole ONNX model", where=label) from None
    if not model.graph.node or not model.opset_import:
        raise TargetError("TGT200", f"these {len(payload)} bytes hold no ONNX graph", where=label)
    return model, label


def array_of(file: OnnxFile, tensor: Any) -> npt.NDArray[Any]:
    """A tensor of the file as numpy. Raises TGT200 when its bytes do not match its declared shape."""
    try:
        return np.asarray(extra("onnx.numpy_helper").to_array(tensor))
    except (ValueError, TypeError, KeyError) as error:
        raise TargetError("TGT200", f"tensor {tensor.name!r} is damaged: {error}", where=file.label) from None


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _load_external(model: Any, path: Path | None, label: str) -> None:
    helper = extra("onnx.external_data_helper")
    outside = sorted({entry.value for tensor in _tensors(model) if helper.uses_external_data(tensor)
                      for entry in tensor.external_data if entry.key == "location"})
    if not outside:
        return
    if path is None:
        raise TargetError("TGT206", f"the weights are in {', '.join(outside)}, and bytes have no folder", where=label)
    missing = [name for name in outside if not (path.parent / name).is_file()]
    if missing:
        raise TargetError("TGT206", f"missing beside the file: {', '.join(missing)}", where=label)
    try:
        helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, extra("onnx.checker").ValidationError) as error:
        raise TargetError("TGT206", f"the weights in {', '.join(outside)} cannot be read: {error}",
                          where=label) from None


def _sizes(declared: Any) -> tuple[int | None, ...] | None:
    """The declared shape of a graph input or output, ``None`` when there is none."""
    tensor = declared.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None
                 for size in tensor.shape.dim)


def _choose_input(model: Any, label: str) -> tuple[str, tuple[int | None, ...]]:
    # Files of IR version 3 list their weights among the inputs.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(repr(entry.name) for entry in inputs) or "none"
        raise TargetError("TGT203", f"the model takes {len(inputs)} inputs: {names}", where=label)
    if inputs[0].type.tensor_type.elem_type not in _FLOATING:
        raise TargetError("TGT203", f"input {inputs[0].name!r} is not floating-point", where=label)
    shape = _sizes(inputs[0])
    if shape is None or len(shape) < 2:
        said = "no shape" if shape is None else f"shape {_spoken(shape)}, with no batch dimension before the features"
        raise TargetError("TGT205", f"input {inputs[0].name!r} has {said}", where=label,
                          fix="Export the model with the batch as the first dimension of its input.")
    return inputs[0].name, shape


def _choose_output(model: Any, wanted: str | None, label: str) -> str:
    """The output asked for, the only one, or the only floating one with a row of scores an example."""
    names = [str(entry.name) for entry in model.graph.output]
    if wanted is not None:
        if wanted not in names:
            raise TargetError("TGT204", f"there is no output {wanted!r}{nearest(wanted, names)}; the model has "
                                        f"{', '.join(map(repr, names))}", where=label)
        return wanted
    rows = [str(entry.name) for entry in model.graph.output
            if entry.type.tensor_type.elem_type in _FLOATING and len(_sizes(entry) or ()) == 2]
    for candidates in (names, rows):
        if len(candidates) == 1:
            return candidates[0]
    raise TargetError("TGT204", f"the model has {len(names)} outputs: {', '.join(map(repr, names))}", where=label)


def with_free_batch(file: OnnxFile) -> Any:
    """The model with its batch size left free, in its shapes and in the shapes it reshapes to.

    Whether the result computes the same rows is for the caller to check: a batch size can hide in any constant.
    """
    onnx = extra("onnx")
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    del model.graph.value_info[:]
    weights = {tensor.name for tensor in model.graph.initializer}
    for entry in (*model.graph.input, *model.graph.output):
        if entry.name not in weights:
            for size in entry.type.tensor_type.shape.dim[:1]:
                size.dim_param = "rows"
    shapes = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes |= {node.output[0]: attribute.t for node in model.graph.node if node.op_type == "Constant"
               for attribute in node.attribute if attribute.name == "value"}
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Reshape" and node.input[1] in shapes:
            target = array_of(file, shapes[node.input[1]]).copy()
            if target.size and target.reshape(-1)[0] == file.fixed:
                target.reshape(-1)[0] = 0  # Reshape's way of saying: as in the input
                node.input[1] = f"assay_free_batch_{index}"
                model.graph.initializer.append(onnx.numpy_helper.from_array(target, node.input[1]))
    return model
