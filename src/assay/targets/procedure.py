"""A training procedure as what is under test: data and a seed go in, a model comes out."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from assay.data import Dataset, arrays
from assay.errors import TargetError
from assay.targets.base import Target
from assay.targets.estimator import sklearn_target
from assay.targets.pytorch import Normalization, Outputs, torch_target

Fit = Callable[[Dataset, int], object]
"""The user's own procedure: a model from data and a seed."""


@dataclass(frozen=True, eq=False)
class Training:
    """A procedure under test; build it with :func:`assay.targets.training`.

    Attributes:
        fit: from a :class:`~assay.data.Dataset` and a seed to a model; never changed.
        data: the pool from which it is trained.
        bounds, normalize, outputs, batch: of the models, as :func:`assay.targets.torch` takes them.
        bare: the procedure below the defenses, for an adversary who does not know them; ``None`` where there are none.
    """

    fit: Fit
    data: Dataset
    name: str
    bounds: tuple[float, float] = (0.0, 1.0)
    normalize: Normalization | None = None
    outputs: Outputs = "logits"
    batch: int = 512
    bare: Training | None = None

    def __len__(self) -> int:
        return len(self.data)

    def train(self, data: Dataset, seed: int) -> Target:
        """A model trained on ``data``, as a target.

        Raises:
            TargetError: TGT160 where the procedure returned no model; and as the target's own checks.
        """
        return self.wrapped(self.fit(data, seed))

    def wrapped(self, model: object) -> Target:
        """A model of this procedure as a target. Raises ``TargetError`` (TGT160) where it is none."""
        if isinstance(model, Target):
            return model
        if isinstance(model, nn.Module):
            model.eval()  # it was made for this trial; answers in training mode would be about other rows too
            return torch_target(model, bounds=self.bounds, normalize=self.normalize, outputs=self.outputs,
                                name=self.name, batch=self.batch)
        if hasattr(model, "predict"):
            return sklearn_target(model, bounds=self.bounds, name=self.name)
        raise TargetError("TGT160", f"the procedure returned {type(model).__name__}", where=self.name)

    def on(self, x: NDArray[np.generic], y: NDArray[np.int64]) -> Training:
        """The same procedure with another pool."""
        return replace(self, data=replace(self.data, x=np.asarray(x, dtype=self.data.x.dtype), y=y))

    def part(self, keep: NDArray[np.generic]) -> Dataset:
        """The examples of the pool that an index or mask names."""
        return replace(self.data, x=self.data.x[keep], y=self.data.y[keep])

    def fingerprint(self) -> dict[str, str]:
        """What identifies the procedure: its source or its parameters, and the pool."""
        below = _identity(self.fit) if self.bare is None else f"{self.bare.fingerprint()['procedure']}: {self.name}"
        return {"procedure": below, "data": self.data.fingerprint}


def training(
    fit: Fit,
    data: Dataset | tuple[ArrayLike | Tensor, ArrayLike | Tensor],
    *,
    name: str = "",
    bounds: tuple[float, float] = (0.0, 1.0),
    normalize: Normalization | None = None,
    outputs: Outputs = "logits",
    batch: int = 512,
) -> Training:
    """A training procedure as what is under test.

    Args:
        fit: ``fit(data, seed) -> model``: your own loop. ``data.x`` and ``data.y`` are arrays; the model is a torch
            module, a fitted scikit-learn estimator, or a target. The same data and seed should give the same model.
        data: the pool to train from: a :class:`~assay.data.Dataset`, or inputs and labels.
        name: how evidence calls it; the procedure's own name by default.
        bounds, normalize, outputs, batch: of the models, as :func:`assay.targets.torch` takes them.

    Raises:
        TargetError: TGT161 where ``fit`` cannot be called with data and a seed.
    """
    _callable(fit)
    pool = data if isinstance(data, Dataset) else arrays(*(_array(values) for values in data))
    return Training(fit, pool, name or _called(fit), bounds, normalize, outputs, batch)


def _array(values: ArrayLike | Tensor) -> ArrayLike:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _callable(fit: object) -> None:
    if not callable(fit):
        raise TargetError("TGT161", f"{fit!r} cannot be called")
    try:
        inspect.signature(fit).bind(None, 0)
    except TypeError as error:
        raise TargetError("TGT161", f"{_called(fit)}: {error}") from error
    except ValueError:
        return  # a builtin that does not tell


def _called(fit: object) -> str:
    return str(getattr(fit, "__name__", type(fit).__name__))


def _identity(fit: object) -> str:
    """Its own fingerprint or parameters; of a function its source, or its name where there is none to read."""
    own = getattr(fit, "fingerprint", None)
    if callable(own):
        return str(own())
    if is_dataclass(fit):
        return repr(fit)
    try:
        source = inspect.getsource(fit)  # type: ignore[arg-type]  # whatever it is, the error is caught
    except (OSError, TypeError):
        return f"{getattr(fit, '__module__', '')}.{_called(fit)}"
    return f"{_called(fit)} {hashlib.sha256(source.encode()).hexdigest()[:16]}"
