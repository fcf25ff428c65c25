"""An ONNX file as a target: judged by onnxruntime, differentiated through the imported graph."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import TargetError
from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Loss
from assay.targets.onnx_file import OnnxFile, extra, read
from assay.targets.onnx_graph import Session, check_import, import_graph
from assay.targets.pytorch import Normalization, Outputs, TorchTarget, check_scores, torch_target
from assay.targets.softmax import looks_like_probabilities

_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class OnnxTarget:
    """An ONNX model under test; build it with :func:`assay.targets.onnx`.

    Scores and labels are onnxruntime's, so the deployed runtime is what is judged; gradients, Jacobians and the
    module are those of the same graph in torch, which is held to onnxruntime.

    Attributes:
        surrogate: the imported graph as a torch target.
        logs: whether onnxruntime's answers are probabilities of which the logarithm is given.
    """

    surrogate: TorchTarget
    session: Session
    logs: bool

    @property
    def name(self) -> str:
        """As declared, else the file's name."""
        return self.surrogate.name

    @property
    def bounds(self) -> Bounds:
        """The box of the submitted inputs."""
        return self.surrogate.bounds

    @property
    def batch(self) -> int:
        """The most rows in one forward."""
        return self.surrogate.batch

    @property
    def offers(self) -> Access:
        """Everything: the weights are in the file."""
        return Access.WEIGHTS

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return self.surrogate.dtype

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return self.surrogate.device

    @property
    def randomized(self) -> bool:
        """Operators that draw are refused at import."""
        return False

    @property
    def forwards_per_query(self) -> int:
        """One."""
        return 1

    def labels(self, x: Tensor) -> Tensor:
        """Classes as onnxruntime predicts them, int64 ``[rows]``."""
        return self.scores(x).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        """Logits as onnxruntime computes them, ``[rows, classes]``.

        Of a model that ends in a softmax these are the softmax's inputs; where none ends it and probabilities were
        declared, their logarithms.

        Raises:
            TargetError: TGT209 when onnxruntime cannot run the model on inputs of this shape.
        """
        with torch.inference_mode():
            parts = [self._run(part) for part in torch.split(x, self.batch)]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """Forwards and backwards that one row of ``gradients`` gradients costs."""
        return self.surrogate.passes(gradients)

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """One forward and one backward of the imported graph; its scores are that forward's own."""
        return self.surrogate.graded(x, loss, *labels)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and class gradients of the imported graph."""
        return self.surrogate.jacobian(x, classes)

    def module(self) -> nn.Module:
        """The imported graph, from declared inputs to logits."""
        return self.surrogate.module()

    def check(self, x: Tensor) -> None:
        """What a torch target checks, and that graph and onnxruntime agree on ``x`` too.

        Raises:
            TargetError: TGT101 to TGT105; TGT208 when they deviate by more than a thousandth of the largest score.
        """
        self.surrogate.check(x)
        scores = self.scores(x)
        check_scores(scores, len(x), self.name)
        if self.surrogate.outputs == "probabilities" and self.logs and not looks_like_probabilities(scores.exp()):
            raise TargetError("TGT104", f"{self.name} is declared to give probabilities, but its rows are none")
        own = self.surrogate.scores(x)
        if self.logs:  # logits are logarithms of probabilities up to a constant a row
            own = own.log_softmax(1)
        gap = (own - scores).abs().amax(1) / scores.abs().amax(1).clamp_min(1e-12)
        if bool((gap > _TOLERANCE).any()):
            raise TargetError("TGT208", f"on the examples themselves, the scores of {self.name} deviate by "
                                        f"{float(gap.max()):.2g} of the largest; {_TOLERANCE:.2g} is allowed")

    def fingerprint(self) -> dict[str, str]:
        """The file's SHA-256, onnxruntime's version, and a hash of the imported weights."""
        return self.surrogate.fingerprint()

    def _run(self, x: Tensor) -> Tensor:
        x = x.detach().to(self.device, self.dtype)
        if self.surrogate.normalize is not None:
            x = self.surrogate.normalize(x)
        scores = torch.from_numpy(self.session.scores(x.numpy()))
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() if self.logs else scores


def onnx_target(
    path: str | os.PathLike[str],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    normalize: Normalization | None = None,
    outputs: Outputs = "logits",
    output: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    name: str = "",
    batch: int = 512,
) -> OnnxTarget:
    """An ONNX file as a target.

    With ``outputs="probabilities"`` and a model that ends in a softmax, onnxruntime is asked for the softmax's
    *input*: the same runtime's own logits. Their order is that of the probabilities, so decisions stay; they do not
    saturate where probabilities round to 0 or 1; and they are what the gradients, taken through the graph without its
    softmax, are gradients of. Logarithms of the probabilities would differ from them by a constant a row and be
    clipped where it matters most. Where no softmax can be found, both halves take logarithms.

    Args:
        path: the ``.onnx`` file; weights kept outside it are read from beside it.
        bounds: the box of the inputs that an adversary submits, before normalization.
        normalize: as for :func:`assay.targets.torch`; ``None`` where the model does it itself.
        outputs: what the file's output is: ``"logits"`` or ``"probabilities"``.
        output: name of the output that holds the scores; needed only when the file has several candidates.
        input_shape: the shape of one example without the batch, for files that leave it free.
        name: how evidence calls it; the file's name by default.
        batch: the most rows in one forward.

    Raises:
        TargetError: TGT106 and TGT107 as for :func:`assay.targets.torch`; TGT200 to TGT210 when the file cannot be
            imported, or its import deviates from onnxruntime.
        ConfigError: CFG110 when the onnx extra is not installed.
    """
    runtime = extra("onnxruntime")
    graph = import_graph(path, input_shape=input_shape, output=output)
    check_import(path, graph, input_shape=input_shape, output=output, tolerance=_TOLERANCE)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    surrogate = torch_target(
        graph,
        bounds=bounds,
        normalize=normalize,
        outputs=outputs,
        name=name or Path(path).name,
        batch=batch,
        provenance=(("file_sha256", digest), ("onnxruntime", str(runtime.__version__))),
    )
    file = read(path, output)
    logits = _softmax_input(file) if surrogate.stripped else None
    if logits is None:
        session = Session.open(path, input_shape=input_shape, output=output)
    else:
        session = Session.open(_with_output(file, logits), input_shape=input_shape, output=logits)
    return OnnxTarget(surrogate, session, logs=outputs == "probabilities" and logits is None)


def _softmax_input(file: OnnxFile) -> str | None:
    """The name of what the final softmax is taken of."""
    makers = {name: node for node in file.model.graph.node for name in node.output}
    last = makers.get(file.output_name)
    while last is not None and last.op_type in ("Identity", "Dropout"):
        last = makers.get(last.input[0])
    return str(last.input[0]) if last is not None and last.op_type in ("Softmax", "LogSoftmax") else None


def _with_output(file: OnnxFile, name: str) -> bytes:
    """The model with one more output, of the same type as the chosen one and of any shape."""
    onnx = extra("onnx")
    model: Any = onnx.ModelProto()
    model.CopyFrom(file.model)
    if name not in {entry.name for entry in model.graph.output}:
        chosen = next(entry for entry in model.graph.output if entry.name == file.output_name)
        kind = chosen.type.tensor_type.elem_type
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return bytes(model.SerializeToString())
