"""Shadow models: many trained on random halves, and what each says of every example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from assay.data import Dataset
from assay.errors import DataError
from assay.numerics.chunks import Folder, Map, chunked
from assay.numerics.ensembles import How, Labelled, Plan, Recipe, called, planned
from assay.numerics.stacks import outputs_of, tensors, unstacked
from assay.privacy.signals import Signals, balanced_keep, logit_of_probability, logit_scale

Looks = Callable[[Tensor], Sequence[Tensor]]
"""What an example is shown as: ``x -> (x, x flipped, …)``; :func:`~assay.numerics.ensembles.mirror` is one."""

Fit = Callable[[Dataset, int], Any]
"""The user's own procedure: ``fit(data, seed) -> model``."""

Signal = Callable[[Any, Tensor, Tensor], Tensor]
"""What a model says of examples: ``(model, x, y) -> float64 [examples]``."""


@dataclass(frozen=True, eq=False)
class Shadows:
    """Trained shadow models, stacked.

    Attributes:
        init: a fresh module of their kind.
        parameters: every parameter and buffer, ``[models, …]``.
        keep: bool ``[models, examples]``: which examples each was trained on.
        seeds: each model's own.
        plan: how they were trained.
    """

    init: Callable[[], nn.Module]
    parameters: dict[str, Tensor]
    keep: NDArray[np.bool_]
    seeds: tuple[int, ...]
    plan: Plan

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.keep)

    def model(self, index: int) -> nn.Module:
        """One model by itself, in evaluation mode."""
        return unstacked(self.init, self.parameters, index)

    def signals(self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, *, keep: NDArray[np.bool_] | None = None,
                augment: Looks | None = None, batch: int = 1000) -> Signals:
        """``logit_scale`` of every model, in evaluation mode, about every example: computed float64, kept float32.

        Args:
            x, y: the examples; the ones trained on, in their order, unless ``keep`` is given.
            keep: bool ``[models, examples]`` for other examples: all false for ones that no model has seen.
            augment: the looks at an example; ``None`` for the example itself.
            batch: examples at a time.

        Raises:
            DataError: PRV503 where the memberships are of another number of examples; PRV102 where a model diverged.
        """
        inputs, labels = tensors(x, y)
        keep = self.keep if keep is None else keep
        if keep.shape != (len(self), len(inputs)):
            raise DataError("PRV503", f"memberships of shape {keep.shape} for {len(self)} models and {len(inputs)} "
                                      "examples")
        parts = []
        for at in range(0, len(inputs), batch):
            looks = (inputs[at : at + batch],) if augment is None else augment(inputs[at : at + batch])
            logits = [outputs_of(self.init, self.parameters, look) for look in looks]
            parts.append(torch.stack([logit_scale(z, labels[at : at + batch]) for z in logits], -1).float())
        return Signals(torch.cat(parts, 1).cpu().numpy(), keep)

    def save(self, file: str | Path) -> None:
        """Writes one safetensors file; ``init`` is code and stays with its owner."""
        about = {"seeds": json.dumps(self.seeds), "plan": json.dumps(self.plan)}
        arrays = {f"parameters/{name}": tensor.contiguous() for name, tensor in self.parameters.items()}
        save_file({**arrays, "keep": torch.from_numpy(self.keep)}, file, about)

    @classmethod
    def load(cls, file: str | Path, init: Callable[[], nn.Module]) -> Shadows:
        """What :meth:`save` wrote, of modules that ``init`` makes."""
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
            names = list(opened.keys())
            tensors_ = {name: opened.get_tensor(name) for name in names}
        keep = tensors_.pop("keep").numpy()
        how, width = json.loads(about["plan"])
        parameters = {name.removeprefix("parameters/"): tensor for name, tensor in tensors_.items()}
        return cls(init, parameters, keep, tuple(json.loads(about["seeds"])), Plan(how, width))


def seeds_of(seed: int, n: int) -> tuple[int, ...]:
    """A seed for each of ``n`` models; the first are the same whatever ``n``."""
    children = (np.random.SeedSequence(seed, spawn_key=(index,)) for index in range(n))
    return tuple(int(child.generate_state(1, np.uint64)[0] >> np.uint64(1)) for child in children)


def train_shadows(recipe: Recipe, data: Labelled, n: int, *, keep: NDArray[np.bool_] | None = None, seed: int = 0,
                  seeds: Sequence[int] | None = None, how: How = "auto", chunk: int = 16, map: Map = map,
                  folder: str | Path | None = None) -> Shadows:
    """Trains ``n`` models of one recipe, each on its own half of the data.

    Many at once where that is faster, which a few timed steps of each way decide. A model's bytes follow from its
    seed and its members alone: neither ``n`` nor ``chunk`` nor ``map`` changes them, for the same ``how``, number of
    threads and kind of machine; the two ways differ by rounding (1e-10 in float64).

    Args:
        data: ``x`` and ``y``, arrays or tensors; on a GPU where they are tensors there.
        keep: bool ``[n, examples]``: each model's members; ``None`` for :func:`balanced_keep` under ``seed``.
        seeds: one a model; ``None`` for :func:`seeds_of` ``seed``.
        how: ``"stacked"`` or ``"loop"`` leaves nothing to the timing.
        chunk: models that are trained, kept and sent through ``map`` together.
        map: anything like the builtin; ``processes(2)`` gives one for two cores,
            ``ray.util.multiprocessing.Pool(ray_address=…).map`` a cluster's.
        folder: where finished chunks are kept. The same call continues what another has begun.

    Raises:
        DataError: PRV502 where ``keep`` has another shape, or a model no members.
        ConfigError: PRV501 where the folder holds the work of another recipe, data, ``keep`` or seeds.
        TargetError: PRV500 where ``how`` is ``"stacked"`` and the module cannot be.
    """
    x, y = tensors(data.x, data.y)
    keep = balanced_keep(n, len(x), seed) if keep is None else np.asarray(keep, dtype=bool)
    own = seeds_of(seed, n) if seeds is None else tuple(seeds)
    _check(keep, own, n, len(x))
    store = None if folder is None else Folder(Path(folder))
    begun = store.manifest().get("how") if store and how == "auto" else None
    plan = planned(recipe, x, y, keep, own, "stacked" if begun == "stacked" else "loop" if begun == "loop" else how)
    if store:
        store.claim({"recipe": recipe.fingerprint(), "data": _hash(x, y), "keep": _hash(keep),
                     "seeds": _hash(np.array(own)), "how": plan.how})
    state = chunked(_Training(recipe, x, y, keep, own, plan), n, chunk=chunk, map=map, folder=store)
    return Shadows(recipe.init, state, keep, own, plan)


def train_each(fit: Fit, x: NDArray[np.float32], y: NDArray[np.int64], keep: NDArray[np.bool_],
               seeds: Sequence[int], *, signal: Signal | None = None, augment: Looks | None = None, map: Map = map,
               folder: str | Path | None = None) -> Signals:
    """The same for a procedure of the user's own, whatever its models are: one after another through ``map``.

    Models cannot be kept in general; what each says of every example is, so that a second call continues the first.

    Args:
        fit: ``fit(data, seed) -> model``, given a :class:`~assay.data.Dataset` of the members.
        signal: ``(model, x, y) -> [examples]``; ``None`` for :func:`phi`.
        augment: the looks at an example; ``None`` for the example itself.

    Raises:
        DataError: PRV502 as :func:`train_shadows`.
        ConfigError: PRV501 where the folder holds the work of a function of another name, other data or seeds.
    """
    keep = np.asarray(keep, dtype=bool)
    _check(keep, seeds, len(keep), len(x))
    store = None if folder is None else Folder(Path(folder))
    if store:
        own = fit.fingerprint() if isinstance(fit, Recipe) else called(fit)
        store.claim({"recipe": f"{own} {called(signal)} {called(augment)}",
                     "data": _hash(*tensors(x, y)), "keep": _hash(keep), "seeds": _hash(np.array(seeds))})
    work = _Fitting(fit, signal or phi, augment, x, y, keep, tuple(seeds))
    return Signals(chunked(work, len(keep), chunk=1, map=map, folder=store)["signals"].numpy(), keep)


def phi(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """The logit scale of a network's outputs, or of an estimator's ``predict_proba``; evaluated in evaluation mode."""
    if isinstance(model, nn.Module):
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        training = model.training
        model.eval()
        with torch.no_grad():
            parts = [model(part.to(device)).cpu() for part in torch.split(x, 1000)]
        model.train(training)
        return logit_scale(torch.cat(parts), y)
    found = torch.from_numpy(np.asarray(model.predict_proba(x.numpy().reshape(len(x), -1)), dtype=np.float64))
    known = torch.from_numpy(np.asarray(model.classes_).astype(np.int64))
    full = torch.zeros(len(x), int(max(int(known.max()), int(y.max()))) + 1, dtype=torch.float64)
    return logit_of_probability(full.index_copy(1, known, found), y)


@dataclass(frozen=True, eq=False)
class _Training:
    """A chunk of shadow models, as it travels."""

    recipe: Recipe
    x: Tensor
    y: Tensor
    keep: NDArray[np.bool_]
    seeds: tuple[int, ...]
    plan: Plan

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        return self.recipe.many(self.x, self.y, self.keep[start:stop], self.seeds[start:stop], self.plan)


@dataclass(frozen=True, eq=False)
class _Fitting:
    """One model of the user's own, as its work travels."""

    fit: Fit
    signal: Signal
    augment: Looks | None
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    keep: NDArray[np.bool_]
    seeds: tuple[int, ...]

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        rows = []
        x, y = tensors(self.x, self.y)
        for index in range(start, stop):
            own = self.keep[index]
            model = self.fit(Dataset(self.x[own], self.y[own], f"shadow {index}"), self.seeds[index])
            looks = (x,) if self.augment is None else self.augment(x)
            rows.append(torch.stack([self.signal(model, look, y) for look in looks], -1).float())
        return {"signals": torch.stack(rows)}


def _check(keep: NDArray[np.bool_], seeds: Sequence[int], n: int, examples: int) -> None:
    if keep.shape != (n, examples) or len(seeds) != n:
        raise DataError("PRV502", f"memberships of shape {keep.shape} and {len(seeds)} seeds for {n} models and "
                                  f"{examples} examples")
    if not keep.any(1).all():
        raise DataError("PRV502", f"{int((~keep.any(1)).sum())} of {n} models have no members")


def _hash(*arrays: Tensor | NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array.cpu().numpy() if isinstance(array, Tensor) else array)
        digest.update(f"{values.dtype.str}{list(values.shape)};".encode() + values.tobytes())
    return digest.hexdigest()
