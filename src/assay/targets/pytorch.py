"""Any ``nn.Module`` as a target: box, normalization and output kind declared once, the module itself untouched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from assay.errors import TargetError, nearest
from assay.targets.access import Access
from assay.targets.base import Bounds, Graded, Loss
from assay.targets.softmax import looks_like_probabilities, saturated, without_softmax

Outputs = Literal["logits", "probabilities"]
Normalization = str | tuple[Sequence[float] | float, Sequence[float] | float]

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""Per-channel mean and standard deviation on [0, 1] inputs, by the name of the data set."""


class Normalize(nn.Module):
    """``(x − mean) / std`` per channel (dimension 1); the one place where normalization happens."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, channels, …]`` to the same shape."""
        return (x - self.mean) / self.std


@dataclass(frozen=True, eq=False)
class TorchTarget:
    """A torch module under test; build it with :func:`assay.targets.torch`."""

    model: nn.Module
    bounds: Bounds
    normalize: Normalize | None
    outputs: Outputs
    name: str
    batch: int
    pipeline: nn.Module
    stripped: bool
    provenance: tuple[tuple[str, str], ...] = ()

    @property
    def offers(self) -> Access:
        """Everything: the weights are at hand."""
        return Access.WEIGHTS

    @property
    def dtype(self) -> torch.dtype:
        """The first floating parameter's, else torch's default."""
        return next((p.dtype for p in self.pipeline.parameters() if p.is_floating_point()), torch.get_default_dtype())

    @property
    def device(self) -> torch.device:
        """The first parameter's, else the CPU."""
        return next((p.device for p in self.pipeline.parameters()), torch.device("cpu"))

    @property
    def randomized(self) -> bool:
        """A bare module promises to be a function; the referee checks (doubt DBT101)."""
        return False

    @property
    def forwards_per_query(self) -> int:
        """One."""
        return 1

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """One forward, and a backward a gradient."""
        return 1, gradients

    @property
    def training_layers(self) -> tuple[str, ...]:
        """Names of layers left in training mode whose output depends on it (doubt DBT110)."""
        return tuple(
            name or type(layer).__name__
            for name, layer in self.model.named_modules()
            if layer.training and isinstance(layer, _MODE_DEPENDENT)
        )

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, int64 ``[rows]``."""
        return self.scores(x).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        """Logits (log-probabilities where the softmax could not be taken off), ``[rows, classes]``."""
        with torch.inference_mode():
            parts = [self._logits(part) for part in self._split(x)]
            return torch.cat(parts) if len(parts) != 1 else parts[0]

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """One forward and one input gradient a row; no weight gradient is computed or kept."""
        parts = []
        with torch.enable_grad():
            for start in range(0, max(len(x), 1), self.batch):
                rows = slice(start, start + self.batch)
                leaf = self._layout(x[rows].detach()).requires_grad_()
                scores = self._logits(leaf)
                values = loss(scores, *(label[rows] for label in labels))
                (gradient,) = torch.autograd.grad(values.sum(), leaf)
                parts.append(Graded(scores.detach(), values.detach(), gradient))
        return parts[0] if len(parts) == 1 else Graded(*(torch.cat(column) for column in zip(*parts)))

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and class gradients from one forward and one batched vector-Jacobian product."""
        all_scores, all_rows = [], []
        with torch.enable_grad():
            for start in range(0, max(len(x), 1), self.batch):
                rows = slice(start, start + self.batch)
                leaf = self._layout(x[rows].detach()).requires_grad_()
                scores = self._logits(leaf)
                wanted = classes[rows].T.unsqueeze(2)
                seeds = torch.zeros(len(wanted), *scores.shape, dtype=scores.dtype, device=scores.device)
                seeds.scatter_(2, wanted, 1.0)
                (gradient,) = torch.autograd.grad(scores, leaf, seeds, is_grads_batched=True)
                all_scores.append(scores.detach())
                all_rows.append(gradient.transpose(0, 1))
        return torch.cat(all_scores), torch.cat(all_rows)

    def module(self) -> nn.Module:
        """The network from declared inputs to logits."""
        return self.pipeline

    def check(self, x: Tensor) -> None:
        """Shape, finiteness and output kind, on a few rows. Raises ``TargetError`` (TGT101–TGT105)."""
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices=[]):
                scores = self._logits(x)
        except TargetError:
            raise
        except Exception as error:
            raise TargetError("TGT101", f"{self.name} failed on input of shape {tuple(x.shape)}: {error}") from error
        check_scores(scores, len(x), self.name)
        if self.outputs == "logits" and looks_like_probabilities(scores):
            raise TargetError("TGT104", f"{self.name} is declared to give logits, but every row is a distribution")
        if self.outputs == "probabilities" and not self.stripped:
            probabilities = scores.exp()
            if not looks_like_probabilities(probabilities):
                raise TargetError("TGT104", f"{self.name} is declared to give probabilities, but its rows are none")
            if share := saturated(probabilities):
                raise TargetError("TGT105", f"{share:.0%} of the rows of probabilities of {self.name} are saturated")

    def fingerprint(self) -> dict[str, str]:
        """A hash of every parameter and buffer, and how the module was wrapped."""
        digest = hashlib.sha256(repr(self.model).encode())
        for name, value in sorted(self.pipeline.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return {
            "model": digest.hexdigest(),
            "outputs": self.outputs + (" (softmax taken off)" if self.stripped else ""),
            "torch": torch.__version__,
            **dict(self.provenance),
        }

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, self.batch) if len(x) > self.batch else (x,)

    def _layout(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()

    def _logits(self, x: Tensor) -> Tensor:
        # The detached state shares the module's storage: no weight ever asks for a gradient, param.grad stays as it
        # was, and training-mode layers update clones of their running statistics instead of the user's.
        state = {name: p.detach() for name, p in self.pipeline.named_parameters()}
        training = bool(self.training_layers)
        state.update({name: b.clone() if training else b for name, b in self.pipeline.named_buffers()})
        out = functional_call(self.pipeline, state, (self._layout(x),))
        if not isinstance(out, Tensor):
            raise TargetError("TGT102", f"{self.name} returned {type(out).__name__}, not a tensor of scores")
        if self.outputs == "probabilities" and not self.stripped:
            out = out.clamp_min(torch.finfo(out.dtype).tiny).log()
        return out


_MODE_DEPENDENT = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU, nn.AlphaDropout)


def check_scores(scores: Tensor, rows: int, name: str) -> None:
    """That scores are ``[rows, classes ≥ 2]`` and finite. Raises ``TargetError`` (TGT102, TGT103)."""
    if scores.dim() != 2 or scores.shape[0] != rows or scores.shape[1] < 2:
        got = tuple(scores.shape)
        raise TargetError("TGT102", f"{name} returned shape {got} for {rows} rows; expected [{rows}, classes ≥ 2]")
    bad = int((~torch.isfinite(scores)).any(1).sum())
    if bad:
        raise TargetError("TGT103", f"{name} returned NaN or infinite scores on {bad} of {rows} rows")


def normalizer(normalize: Normalization | None, device: torch.device, dtype: torch.dtype) -> Normalize | None:
    """The layer for a data set's name or a ``(mean, std)`` pair. Raises ``TargetError`` (TGT106)."""
    if normalize is None:
        return None
    if isinstance(normalize, str):
        if normalize not in NORMALIZATIONS:
            raise TargetError("TGT106", f"no normalization is called {normalize!r}{nearest(normalize, NORMALIZATIONS)}",
                              fix=f"Name one of {', '.join(sorted(NORMALIZATIONS))}, or give (mean, std).")
        normalize = NORMALIZATIONS[normalize]
    mean, std = (torch.as_tensor(part, dtype=dtype, device=device).reshape(-1) for part in normalize)
    if len(mean) != len(std) or bool((std <= 0).any()):
        raise TargetError("TGT106", f"{len(mean)} means need as many positive std; got {std.tolist()}")
    shape = (1, -1, 1, 1) if len(mean) > 1 else ()
    return Normalize(mean.reshape(shape), std.reshape(shape))


def torch_target(
    model: nn.Module,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    normalize: Normalization | None = None,
    outputs: Outputs = "logits",
    name: str = "",
    batch: int = 512,
    provenance: tuple[tuple[str, str], ...] = (),
) -> TorchTarget:
    """A torch module as a target.

    The module stays where it is and as it is: device and dtype follow it, its mode, its ``param.grad`` and its
    running statistics are never changed.

    Args:
        model: ``[rows, …] -> [rows, classes]``.
        bounds: the box of the *inputs that an adversary submits*, before normalization.
        normalize: a data set's name (``"cifar10"``, ``"imagenet"``, ``"mnist"``…) or ``(mean, std)``, applied here and
            nowhere else; ``None`` where the model does it itself.
        outputs: what the model returns. Of ``"probabilities"`` the final softmax is taken off where it can be
            found; else log-probabilities are attacked, and saturated ones refused (TGT105).
        name: how evidence calls it; the class name by default.
        batch: the most rows in one forward.

    Raises:
        TargetError: TGT101 without weights, TGT106 for an unknown normalization, TGT107 for bounds that are no
            interval.
    """
    lower, upper = bounds
    if not lower < upper:
        raise TargetError("TGT107", f"bounds must be (lower, upper) with lower < upper; got {bounds}")
    if bare := next((name for name, p in model.named_parameters() if p.is_meta), ""):
        raise TargetError("TGT101", f"{name or type(model).__name__} has no weights: {bare!r} is on the meta device",
                          fix="Load the weights, or move the model to a real device before it is handed over.")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    layer = normalizer(normalize, parameter.device, parameter.dtype)
    core = without_softmax(model) if outputs == "probabilities" else None
    body = core if core is not None else model
    return TorchTarget(
        model=model,
        bounds=Bounds(float(lower), float(upper)),
        normalize=layer,
        outputs=outputs,
        name=name or type(model).__name__,
        batch=batch,
        pipeline=body if layer is None else _chain(layer, body),
        stripped=core is not None,
        provenance=provenance,
    )


class _Chain(nn.Module):
    """Normalization in front of the user's module; not an ``nn.Sequential``, whose mode changes would spread."""

    def __init__(self, first: nn.Module, then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.then(self.first(x))
        return out


def _chain(first: nn.Module, then: nn.Module) -> nn.Module:
    chain = _Chain(first, then)
    chain.training = then.training  # the attribute alone: train() would descend into the user's module
    return chain
