"""ONNX classifiers as torch.fx graphs with gradients, and as onnxruntime sessions to hold them to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from assay.errors import AssayError, TargetError
from assay.targets.onnx_file import OnnxFile, Source, array_of, extra, read, with_free_batch
from assay.targets.onnx_operators import CONVERTERS
from assay.targets.onnx_trace import PROBES, Array, Builder, Known, Step, Traced, Value

# Folding these would freeze a random draw or a branch into the graph.
_NEVER_FOLDED = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
                           "Multinomial", "If", "Loop", "Scan", "SequenceMap"})


def import_graph(source: Source, *, input_shape: tuple[int, ...] | None = None,
                 output: str | None = None) -> fx.GraphModule:
    """Rebuilds an ONNX classifier from standard torch modules and functions, for gradients and for proofs.

    The graph takes ``[rows, *example]`` float32 for any number of rows, whatever batch size the file was exported
    with: what the file computes for one row is computed for each. A final softmax stays a module of its own.

    Args:
        source: path of the ``.onnx`` file, or its bytes.
        input_shape: the shape of one example without the batch, for files that leave it free.
        output: name of the output that holds the scores; needed only when the file has several candidates.

    Returns:
        The graph in eval mode, its weights as parameters.

    Raises:
        TargetError: TGT200 not a whole file, TGT201 unknown operators (all of them named), TGT202 unknown form of
            an operator, TGT203 not one floating input, TGT204 unclear output, TGT205 free sizes, TGT206 external
            weights missing, TGT207 rows of a batch mix, TGT210 shapes do not fit.
        ConfigError: CFG110 when the onnx extra is not installed.
    """
    file = read(source, output)
    nodes = file.live_nodes()
    _refuse_unknown(file, nodes)
    builder = Builder(file.row_shape(input_shape), file.fixed or 1)
    values: dict[str, Value] = {file.input_name: builder.input}
    values |= {tensor.name: Known.constant(array_of(file, tensor)) for tensor in file.model.graph.initializer}
    uses = Counter(name for node in nodes for name in node.input)
    uses[file.output_name] += 1
    products = frozenset(node.output[0] for node in nodes if node.op_type == "MatMul" and uses[node.output[0]] == 1)
    for node in nodes:
        inputs = [_named(file, node, values, name) if name else None for name in node.input]
        if node.op_type == "Constant" or not any(isinstance(value, Traced) for value in inputs):
            made: Sequence[Value] = _folded(file, node, inputs)
        else:
            made = _converted(_step(file, node, inputs, builder, products))
        for name in node.output[len(made):]:
            if uses[name]:
                raise TargetError("TGT202", f"output {name!r} of {node.op_type} is not supported",
                                  where=_where(file, node))
        values |= dict(zip(node.output, made))
    graph = builder.finish(_scores(file, values.get(file.output_name)))
    _refuse_mixed_rows(file, graph, builder.input.sizes[1:])
    return graph


def _where(file: OnnxFile, node: Any) -> str:
    return f"{file.label}: node {(node.name or node.output[0])!r}"


def _named(file: OnnxFile, node: Any, values: Mapping[str, Value], name: str) -> Value:
    if name not in values:
        raise TargetError("TGT200", f"{node.op_type} reads {name!r}, which nothing before it gives",
                          where=_where(file, node))
    return values[name]


def _scores(file: OnnxFile, value: Value | None) -> Traced:
    """The chosen output, once it is known to have one row an example."""
    if isinstance(value, Traced) and tuple(shape[0] if shape else 0 for shape in value.shapes) == PROBES:
        return value
    said = f"has shape {list(value.sizes)} for a batch of {PROBES[0]}" if isinstance(value, Traced) \
        else "does not depend on the input"
    raise TargetError("TGT207", f"output {file.output_name!r} {said}", where=file.label)


def _refuse_mixed_rows(file: OnnxFile, graph: fx.GraphModule, row_shape: tuple[int, ...]) -> None:
    """Raises TGT207 when two rows of noise score differently together and alone.

    Alone, a row passes exactly what the file spells out; together, it rests on reading the file for any batch size.
    """
    rows = torch.randn(2, *row_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = graph(rows)
        try:
            alone = torch.cat([graph(rows[:1]), graph(rows[1:])])
        except (RuntimeError, ValueError) as error:
            raise TargetError("TGT207", f"the graph runs on two rows but not on one: {error}",
                              where=file.label) from error
    scale = float(alone.abs().nan_to_num(posinf=0.0).max())
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4 * scale, equal_nan=True):
        raise TargetError("TGT207", "two rows score differently together and alone", where=file.label)


def _operator(node: Any) -> str:
    return str(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")


def _refuse_unknown(file: OnnxFile, nodes: Sequence[Any]) -> None:
    """Raises TGT201 naming every operator that reads the examples and has no converter, with how often it occurs."""
    varying, unknown = {file.input_name}, Counter[str]()
    for node in nodes:
        name = _operator(node)
        varies = bool(varying & set(node.input))
        if name in _NEVER_FOLDED or (varies and name not in CONVERTERS):
            unknown[name] += 1
        # A shape is known without the examples, so what is computed from it folds.
        if varies and name not in ("Shape", "Size"):
            varying |= set(node.output)
    if unknown:
        _refuse_operators(file, unknown)


def _refuse_operators(file: OnnxFile, unknown: Mapping[str, int], where: str = "") -> NoReturn:
    named = ", ".join(f"{name} ({count}x)" if count > 1 else name for name, count in sorted(unknown.items()))
    raise TargetError("TGT201", f"{len(unknown)} unknown operator{'s' * (len(unknown) > 1)}: {named}",
                      where=where or file.label)


def _step(file: OnnxFile, node: Any, inputs: Sequence[Value | None], builder: Builder,
          products: frozenset[str]) -> Step:
    opset = next(entry.version for entry in file.model.opset_import if entry.domain in ("", "ai.onnx"))
    return Step(node.op_type, _where(file, node), opset, tuple(inputs), _attributes(node), len(node.output),
                tuple(name in products for name in node.input), builder)


def _attributes(node: Any) -> dict[str, Any]:
    onnx = extra("onnx")
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _converted(step: Step) -> tuple[Value, ...]:
    """The outputs of one node in torch. Raises TGT210 when torch finds that shapes do not fit."""
    try:
        made = CONVERTERS[step.operator](step)
    except AssayError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        shapes = [list(value.sizes) for value in step.inputs if isinstance(value, Traced)]
        raise TargetError("TGT210", f"{step.operator} cannot be applied to shapes {shapes}: {error}",
                          where=step.where) from error
    return made if isinstance(made, tuple) else (made,)


def _folded(file: OnnxFile, node: Any, inputs: Sequence[Value | None]) -> list[Known]:
    """The outputs of a node that does not read the examples, by ONNX's reference implementation."""
    if node.op_type == "Constant" and node.attribute[0].name == "value":
        return [Known.constant(array_of(file, node.attribute[0].t))]
    feeds = {name: value.at for name, value in zip(node.input, inputs) if isinstance(value, Known)}
    first = _evaluated(file, node, {name: at[0] for name, at in feeds.items()})
    if all(a is b or np.array_equal(a, b) for a, b in feeds.values()):
        return [Known.constant(array) for array in first]
    second = _evaluated(file, node, {name: at[1] for name, at in feeds.items()})
    return [Known(pair) for pair in zip(first, second)]


def _evaluated(file: OnnxFile, node: Any, feeds: Mapping[str, Array]) -> list[Array]:
    helper = extra("onnx.helper")
    inputs = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in feeds.items()]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=list(file.model.opset_import))
    try:
        evaluator = extra("onnx.reference").ReferenceEvaluator(model)
        return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]
    except (NotImplementedError, RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        _refuse_operators(file, {_operator(node): 1}, _where(file, node))


# ---- onnxruntime ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Session:
    """A model as onnxruntime computes it, on one CPU thread, for any number of rows.

    Attributes:
        input_shape: the file's input shape, the batch first; ``None`` for a free size, and for the batch.
        rows_per_run: rows that go into one run; ``None`` when any number does. A file with a fixed batch whose
            batch cannot be freed, or whose rows change each other's scores, is run a fixed number at a time.
    """

    input_shape: tuple[int | None, ...]
    rows_per_run: int | None
    _runtime: Any
    _input: str
    _output: str
    _dtype: str

    @classmethod
    def open(cls, source: Source, *, input_shape: tuple[int, ...] | None = None,
             output: str | None = None) -> Session:
        """Opens an ONNX file or its bytes in onnxruntime.

        A fixed batch is freed when the freed model gives the same rows as the file itself on seeded noise.

        Args:
            source: path of the ``.onnx`` file, or its bytes.
            input_shape: the shape of one example without the batch, for files that leave it free.
            output: name of the output that holds the scores; needed only when the file has several candidates.

        Raises:
            TargetError: as :func:`import_graph`'s reading (TGT200, TGT203 to TGT206); TGT209 when onnxruntime
                refuses the model.
            ConfigError: CFG110 when the onnx extra is not installed.
        """
        file = read(source, output)
        row_shape = file.row_shape(input_shape)
        step = file.fixed or 1
        own = cls._started(file, file.model, step)
        noise = np.random.default_rng(0).standard_normal((2 * step, *row_shape)).astype(np.float32)
        apart = own.scores(noise)
        try:
            free = cls._started(file, file.model if file.fixed is None else with_free_batch(file), None)
            together = free.scores(noise)
        except TargetError:
            return own
        same = together.shape == apart.shape and np.allclose(together, apart, rtol=1e-3, atol=1e-5, equal_nan=True)
        return free if same else own

    @classmethod
    def _started(cls, file: OnnxFile, model: Any, rows_per_run: int | None) -> Session:
        runtime = extra("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base class but this
            raise TargetError("TGT209", f"onnxruntime: {str(error).splitlines()[0]}", where=file.label) from None
        dtype = {"tensor(double)": "float64", "tensor(float16)": "float16"}.get(session.get_inputs()[0].type, "float32")
        return cls((None, *file.input_shape[1:]), rows_per_run, session, file.input_name, file.output_name, dtype)

    def scores(self, inputs: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """The scores of ``[rows, *example]`` inputs: float32, one row an example.

        Raises:
            TargetError: TGT209 when onnxruntime cannot run the model on inputs of this shape.
        """
        inputs = np.ascontiguousarray(inputs, dtype=self._dtype)
        if self.rows_per_run is None:
            return self._run(inputs)
        step = self.rows_per_run
        padded = np.concatenate([inputs, np.zeros((-len(inputs) % step, *inputs.shape[1:]), inputs.dtype)])
        parts = [self._run(padded[start:start + step]) for start in range(0, max(len(padded), 1), step)]
        return np.concatenate(parts)[:len(inputs)]

    def _run(self, inputs: Array) -> npt.NDArray[np.float32]:
        try:
            scores = self._runtime.run([self._output], {self._input: inputs})[0]
        except Exception as error:  # as above
            raise TargetError("TGT209", f"onnxruntime, on inputs of shape {list(inputs.shape)}: "
                                        f"{str(error).splitlines()[0]}") from None
        return np.asarray(scores, dtype=np.float32)


def check_import(source: Source, graph: fx.GraphModule, *, rows: int = 8, seed: int = 0, tolerance: float = 1e-3,
                 input_shape: tuple[int, ...] | None = None, output: str | None = None) -> float:
    """Holds an imported graph to onnxruntime on standard normal noise.

    Args:
        source: the file or bytes that the graph was imported from.
        graph: what :func:`import_graph` returned for it, on the CPU.
        rows: how many random inputs.
        seed: of the random inputs.
        tolerance: the largest relative deviation that passes.
        input_shape: as for :func:`import_graph`.
        output: as for :func:`import_graph`.

    Returns:
        The largest deviation of any score, relative to the largest score of its row in magnitude.

    Raises:
        TargetError: TGT208 when the deviation exceeds the tolerance or a shape differs; TGT209 when onnxruntime
            cannot run the model; otherwise as :meth:`Session.open`.
    """
    session = Session.open(source, input_shape=input_shape, output=output)
    shape = read(source, output).row_shape(input_shape)
    inputs = np.random.default_rng(seed).standard_normal((rows, *shape)).astype(np.float32)
    wanted = session.scores(inputs)
    with torch.no_grad():
        got = graph(torch.from_numpy(inputs)).numpy()
    label = "the ONNX bytes" if isinstance(source, bytes) else str(source)
    if got.shape != wanted.shape:
        raise TargetError("TGT208", f"the graph gives {list(got.shape)} scores, onnxruntime {list(wanted.shape)}",
                          where=label)
    scale = np.abs(wanted).reshape(rows, -1).max(axis=1)
    gap = np.abs(got - wanted).reshape(rows, -1).max(axis=1)
    deviation = float((gap / np.maximum(scale, 1e-12)).max())
    # Written so that a NaN fails.
    if not deviation <= tolerance:
        raise TargetError("TGT208", f"scores deviate by {deviation:.2g} of the largest; {tolerance:.2g} is allowed",
                          where=label)
    return deviation
