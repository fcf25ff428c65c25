"""What goes over the wire: the Open Inference Protocol V2 and plain JSON, written and read without guessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from assay.errors import TargetError, nearest

Array = npt.NDArray[Any]

_FLOATING = ("FP16", "BF16", "FP32", "FP64")
_EXACT = 2**53
_INTEGERS = {"BOOL": (0, 1), **{f"UINT{bits}": (0, min(2**bits - 1, _EXACT)) for bits in (8, 16, 32, 64)},
             **{f"INT{bits}": (max(-(2**(bits - 1)), -_EXACT), min(2**(bits - 1) - 1, _EXACT))
                for bits in (8, 16, 32, 64)}}


@dataclass(frozen=True)
class JsonKeys:
    """The key names of plain JSON.

    Attributes:
        instances: of the rows in the request.
        predictions: of the rows in the answer.
        field: of the numbers within each prediction, where predictions are objects such as
            ``{"probabilities": [0.1, 0.9], "class": 1}``; empty where they are the numbers themselves.
    """

    instances: str = "instances"
    predictions: str = "predictions"
    field: str = ""


@dataclass(frozen=True)
class Signature:
    """What a V2 server takes and gives.

    Attributes:
        input_name: of the one input.
        datatype: of its elements, such as ``"FP32"``.
        shape: its sizes, the batch first, -1 where free; ``None`` where unknown.
        output_name: of the output that is read; empty for the only one of its kind.
    """

    input_name: str
    datatype: str
    shape: tuple[int, ...] | None
    output_name: str


class Wire(Protocol):
    """One protocol's paths, requests and answers."""

    @property
    def ready_path(self) -> str:
        """Where readiness is asked; empty where the protocol has no such question."""

    @property
    def metadata_path(self) -> str:
        """Where the model is described; empty likewise."""

    @property
    def infer_path(self) -> str:
        """Where rows are sent."""

    def signature(self, metadata: object | None) -> Signature:
        """What the server takes, from its description or, where there is none, from what was declared.

        Raises ``TargetError`` (TGT117, TGT118, TGT121).
        """

    def request(self, x: Array, signature: Signature) -> object:
        """The document that asks about ``x [rows, …]``. Raises ``TargetError`` (TGT123)."""

    def answer(self, document: object, signature: Signature) -> Array:
        """The answered array as it came. Raises ``TargetError`` (TGT117 to TGT119)."""


@dataclass(frozen=True)
class V2:
    """The Open Inference Protocol V2, as KServe, Triton, MLServer, OpenVINO and others speak it, over HTTP and JSON."""

    model: str
    version: str
    input_name: str
    output_name: str
    datatype: str
    labels: bool

    @property
    def ready_path(self) -> str:
        """The server's readiness."""
        return "/v2/health/ready"

    @property
    def metadata_path(self) -> str:
        """The model's own address, which describes it."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"/v2/models/{quote(self.model, safe='')}{version}"

    @property
    def infer_path(self) -> str:
        """Where rows are sent."""
        return f"{self.metadata_path}/infer"

    def signature(self, metadata: object | None) -> Signature:
        """From the metadata, what was declared going first; a server that lists no inputs takes any name."""
        if metadata is None:
            if not self.input_name:
                raise TargetError("TGT121", f"the server gives no metadata of {self.model!r}")
            return Signature(self.input_name, self.datatype or "FP32", None, self.output_name)
        inputs, outputs = (_tensors(metadata, key) for key in ("inputs", "outputs"))
        names = [str(entry.get("name", "")) for entry in inputs]
        if self.input_name and names and self.input_name not in names:
            raise TargetError("TGT121", f"{self.model!r} has no input {self.input_name!r}"
                                        f"{nearest(self.input_name, names)}; it has {_listed(names)}")
        if len(names) > 1:
            raise TargetError("TGT121", f"{self.model!r} takes {len(names)} inputs, {_listed(names)}; "
                                        "one that an adversary perturbs is supported")
        entry = inputs[0] if inputs else {}
        return Signature(self.input_name or str(entry.get("name", "")) or "input-0",
                         self.datatype or str(entry.get("datatype", "")) or "FP32",
                         _shape(entry.get("shape")), self._chosen(outputs))

    def request(self, x: Array, signature: Signature) -> object:
        """One input tensor, row-major."""
        x = _fitted(x, signature)
        tensor = {"name": signature.input_name, "shape": list(x.shape), "datatype": signature.datatype,
                  "data": _elements(x, signature).reshape(-1).tolist()}
        asked = {"outputs": [{"name": signature.output_name}]} if signature.output_name else {}
        return {"inputs": [tensor], **asked}

    def answer(self, document: object, signature: Signature) -> Array:
        """The chosen output, in its declared shape."""
        outputs = _tensors(document, "outputs")
        name = signature.output_name or self._chosen(outputs)
        named = [output for output in outputs if output.get("name") == name]
        entry = outputs[0] if not name and len(outputs) == 1 else named[0] if named else {}
        if "data" not in entry:
            names = [str(output.get("name", "")) for output in outputs]
            what = "has no data" if entry else f"is not among the answer's outputs: {_listed(names)}"
            raise TargetError("TGT118", f"output {name!r} {what}")
        data, shape = table(entry["data"]), _shape(entry.get("shape"))
        if shape is None or min(shape, default=0) < 0 or data.size != math.prod(shape):
            raise TargetError("TGT119", f"output {name!r} has {data.size} elements, and as shape "
                                        f"{entry.get('shape')!r}")
        return data.reshape(shape)

    def _chosen(self, outputs: Sequence[dict[str, Any]]) -> str:
        """The declared output, the only one, or the only one of a fitting datatype; empty where none is listed."""
        names = [str(output.get("name", "")) for output in outputs]
        if self.output_name or not names:  # servers may give outputs on request that they do not list
            return self.output_name
        floating = [name for name, output in zip(names, outputs) if output.get("datatype") in _FLOATING]
        others = [name for name in names if name not in floating]
        for candidates in (names, others if self.labels else floating):
            if len(candidates) == 1:
                return candidates[0]
        raise TargetError("TGT118", f"{self.model!r} has {len(names)} outputs: {_listed(names)}")


@dataclass(frozen=True)
class PlainJson:
    """``{"instances": [row, …]}`` to ``{"predictions": [row, …]}``, posted to the address itself."""

    keys: JsonKeys = field(default_factory=JsonKeys)
    ready_path: str = ""
    metadata_path: str = ""
    infer_path: str = ""

    def signature(self, metadata: object | None) -> Signature:
        """Nothing is known, and nothing needs to be."""
        return Signature("", "FP64", None, "")

    def request(self, x: Array, signature: Signature) -> object:
        """The rows, nested as they are."""
        return {self.keys.instances: _elements(x, signature).tolist()}

    def answer(self, document: object, signature: Signature) -> Array:
        """The predictions, or the named field of each."""
        keys = self.keys
        if not isinstance(document, dict) or keys.predictions not in document:
            raise TargetError("TGT118", f"the answer has no {keys.predictions!r}{_keys(document)}")
        rows = document[keys.predictions]
        if not keys.field:
            return table(rows)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and keys.field in row for row in rows):
            seen = rows[0] if isinstance(rows, list) and rows else rows
            raise TargetError("TGT118", f"a prediction has no {keys.field!r}{_keys(seen)}")
        return table([row[keys.field] for row in rows])


def table(data: object) -> Array:
    """Nested lists as an array: numbers, or strings where they are all strings. Raises ``TargetError`` (TGT119)."""
    if not isinstance(data, list):
        raise TargetError("TGT119", f"{type(data).__name__} where a list of rows was expected")
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        lengths = sorted({len(row) if isinstance(row, list) else 0 for row in data})
        raise TargetError("TGT119", f"the rows are ragged: of lengths {lengths[:5]}") from None
    if array.dtype.kind == "U" and not all(isinstance(value, str) for value in np.array(data, dtype=object).flat):
        raise TargetError("TGT119", "strings stand among the numbers")
    if array.dtype.kind not in "iufbU":
        raise TargetError("TGT119", "null, an object or an immense integer stands among the numbers")
    return array


def as_scores(answer: Array) -> npt.NDArray[np.float64]:
    """The answer as numbers, of whatever shape. Raises ``TargetError`` (TGT119)."""
    if answer.dtype.kind not in "iuf":
        raise TargetError("TGT119", f"{'strings' if answer.dtype.kind == 'U' else 'booleans'} where scores were "
                                    f"expected, such as {str(answer.reshape(-1)[0])!r}")
    return answer.astype(np.float64)


def as_labels(answer: Array, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """The answer as class indices, ``[rows]`` or ``[rows, 1]`` to ``[rows]``.

    Args:
        answer: indices, or names where ``classes`` are given.
        classes: the name of each class as the server answers it; numbers are compared as they are written.

    Raises:
        TargetError: TGT119 for another shape, TGT125 for what is no class.
    """
    if answer.ndim == 2 and answer.shape[1] == 1:
        answer = answer[:, 0]
    if answer.ndim != 1:
        raise TargetError("TGT119", f"shape {list(answer.shape)} where one label a row was expected")
    if answer.dtype.kind == "f":
        if not (np.isfinite(answer).all() and (answer == np.rint(answer)).all() and (np.abs(answer) < 2**53).all()):
            raise TargetError("TGT125", "labels with a fraction, NaN or infinity")
        answer = answer.astype(np.int64)
    if classes:
        index = {name: number for number, name in enumerate(classes)}
        unknown = sorted({str(value) for value in answer.tolist()} - index.keys())
        if unknown:
            raise TargetError("TGT125", f"label {unknown[0]!r} is none of the {len(classes)} declared classes"
                                        f"{nearest(unknown[0], classes)}")
        return np.array([index[str(value)] for value in answer.tolist()], dtype=np.int64)
    if answer.dtype.kind == "U":
        raise TargetError("TGT125", f"labels are strings, such as {str(answer[0])!r}, and no classes are declared")
    if answer.size and (answer.min() < 0 or answer.max() >= 2**31):
        raise TargetError("TGT125", f"labels from {answer.min()} to {answer.max()}")
    return answer.astype(np.int64)


def _tensors(document: object, key: str) -> list[dict[str, Any]]:
    """The V2 tensors under a key. Raises TGT117 where they are not a list of objects."""
    entries = document.get(key, []) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TargetError("TGT117", f"the answer is no V2 document with a list of {key}{_keys(document)}")
    return entries


def _shape(value: object) -> tuple[int, ...] | None:
    """Sizes as integers, which some servers write as strings; ``None`` where they are not."""
    try:
        return tuple(int(size) for size in value) if isinstance(value, list) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _fitted(x: Array, signature: Signature) -> Array:
    """``x`` in the declared shape; only a flat declaration is reshaped to. Raises TGT123."""
    wanted = signature.shape
    if wanted is None:
        return x
    # Some descriptions leave the batch out.
    for own in (wanted[1:], wanted if -1 not in wanted[:1] else wanted[1:]):
        if len(own) == x.ndim - 1 and all(size in (-1, got) for size, got in zip(own, x.shape[1:])):
            return x
    if len(wanted) == 2 and wanted[1] == math.prod(x.shape[1:]):
        return x.reshape(len(x), -1)
    raise TargetError("TGT123", f"examples of shape {list(x.shape[1:])}; the server takes {list(wanted)}, batch first")


def _elements(x: Array, signature: Signature) -> Array:
    """The values as the datatype's own. Raises TGT123 where that would change one."""
    if not np.isfinite(x).all():
        raise TargetError("TGT123", "the examples hold NaN or infinity, which JSON cannot")
    if signature.datatype in _FLOATING:
        return x
    if signature.datatype not in _INTEGERS:
        raise TargetError("TGT123", f"the server takes {signature.datatype!r}; numbers can be sent as "
                                    f"{', '.join((*_FLOATING, *_INTEGERS))}")
    least, largest = _INTEGERS[signature.datatype]
    if not ((x == np.rint(x)) & (x >= least) & (x <= largest)).all():
        raise TargetError("TGT123", f"the server takes {signature.datatype}, and the examples hold other values",
                          fix="Attack on a lattice of whole numbers within the datatype's range, or serve the model "
                              "with a floating-point input.")
    return x.astype(np.bool_) if signature.datatype == "BOOL" else x.astype(np.int64)


def _keys(document: object) -> str:
    if isinstance(document, dict):
        return f"; it has {_listed([str(key) for key in document])}"
    return f"; it is {type(document).__name__}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name!r}" for name in names[:5])
    return (shown or "none") + (", …" if len(names) > 5 else "")
