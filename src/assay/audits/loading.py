"""From the plan's words to things: the target, the data, the methods."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay import catalog, data
from assay.audits.plan import DataPlan, Method, TargetPlan
from assay.errors import AssayError, ConfigError, nearest
from assay.targets.base import Protector, Target

if TYPE_CHECKING:
    from torch import nn

    from assay.targets.procedure import Training


def load_data(plan: DataPlan, folder: Path) -> data.Dataset:
    """The examples, with relative paths starting at ``folder``. Raises ``DataError``."""
    size = (plan.size[0], plan.size[1]) if plan.size and len(plan.size) == 2 else None
    return data.load(plan.load, base=folder, layout=plan.layout, scale=plan.scale, size=size, classes=plan.classes)


def load_target(plan: TargetPlan, folder: Path, dataset: data.Dataset) -> Target | Training:
    """The target as the plan describes it, defenses around it; a procedure with ``dataset`` as its pool.

    Raises:
        ConfigError: CFG140–CFG143 and PRF144 where code, weights or a defense cannot be loaded.
        TargetError: where the model is not what was declared.
    """
    if plan.kind == "training":
        return _training(plan, folder, dataset)
    return load_model(plan, folder)


def load_model(plan: TargetPlan, folder: Path) -> Target:
    """A finished model as the plan describes it; raises as :func:`load_target`."""
    if plan.kind == "training":
        raise ConfigError("CFG104", "a model is wanted here, and kind = 'training' is a procedure", where="kind")
    target = _KINDS[plan.kind](plan, folder)
    for number, spec in enumerate(plan.defenses, 1):
        words = _placed(spec, folder)
        target = _protector(words, target, folder, f"[target] defenses {number}").protect(target)
    return target


def _protector(spec: Method, target: Target, folder: Path, where: str) -> Protector:
    """A defense; one that has to be fitted, on the natural inputs that its ``data`` names, in the grammar of data."""
    import torch

    from assay.evasion.defenses.detection import Recipe

    source = "" if isinstance(spec, str) else str(spec.get("data", ""))
    words = spec if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "data"}
    defense = catalog.make(words, kind="defense", wing="evasion", where=where)
    if isinstance(defense, Recipe):
        if not source:
            raise ConfigError("PRF144", f"{type(defense).__name__} has no data to be fitted on", where=where)
        natural = data.load(source, base=folder)
        return defense.fit(target, torch.as_tensor(natural.x), torch.as_tensor(natural.y))
    if source:
        raise ConfigError("PRF144", f"{type(defense).__name__} is not fitted on data", where=where)
    if not isinstance(defense, Protector):
        raise ConfigError("CFG143", f"{type(defense).__name__} does not wrap a model", where="[target] defenses")
    return defense


def with_models(spec: Method, folder: Path) -> Method:
    """A method's table with what stands in it as words: ``surrogates`` are targets, ``boundary`` is an evasion attack.

    Raises:
        ConfigError: CFG102–CFG104 for a table that describes no target; and as :func:`load_target`.
    """
    if not isinstance(spec, str) and "boundary" in spec:
        return _with_boundary(spec)
    if isinstance(spec, str) or not isinstance(spec.get("surrogates"), list):
        return spec
    plans = [TargetPlan.of(table, where=f"surrogates {n}") for n, table in enumerate(spec["surrogates"], 1)]
    return {**spec, "surrogates": tuple(load_model(plan, folder) for plan in plans)}


def _with_boundary(spec: dict[str, Any]) -> dict[str, Any]:
    """A label-only membership attack's table, the evasion attack that it rests on made from its words."""
    from assay.evasion.budgets import parse_budget

    boundary = catalog.make(spec["boundary"], kind="attack", wing="evasion", where="boundary")
    return {**spec, "boundary": boundary, "budget": parse_budget(str(spec.get("budget", "l2 inf")))}


def _placed(spec: Method, folder: Path) -> Method:
    """A defense's words, the path of its weights starting at ``folder``."""
    if isinstance(spec, str) or "weights" not in spec:
        return spec
    return {**spec, "weights": str(folder / str(spec["weights"]))}


def _training(plan: TargetPlan, folder: Path, dataset: data.Dataset) -> Training:
    """The procedure: what ``load`` names, or, with arguments, what it returns for them; then the private trainers."""
    from assay.targets.procedure import training

    fit: Any = _call(plan, folder) if plan.arguments else _named(plan, folder)
    procedure = training(fit, dataset, name=plan.name or plan.load.rpartition(":")[2], bounds=_bounds(plan),
                         normalize=_normalization(plan), batch=plan.batch,
                         outputs="probabilities" if plan.outputs == "probabilities" else "logits")
    for number, spec in enumerate(plan.defenses, 1):
        where = f"[target] defenses {number}"
        defense = catalog.make(spec, kind="defense", wing="privacy", where=where)
        if not hasattr(defense, "train"):
            raise ConfigError("CFG143", f"{type(defense).__name__} does not change how models are trained", where=where)
        procedure = defense.train(procedure)
    return procedure


def _torch(plan: TargetPlan, folder: Path) -> Target:
    from torch import nn

    from assay.targets.pytorch import torch_target
    from assay.targets.weights import load_weights

    model = _call(plan, folder)
    if not isinstance(model, nn.Module):
        said = f"{plan.load} returned {type(model).__name__}, not a torch module"
        raise ConfigError("CFG140", said, where="[target] load")
    if plan.weights:
        load_weights(model, folder / plan.weights, allow_pickle=plan.allow_pickle)
        model.eval()
    if plan.device:
        model = _moved(model, plan.device)
    return torch_target(
        model,
        bounds=_bounds(plan),
        normalize=_normalization(plan),
        outputs="probabilities" if plan.outputs == "probabilities" else "logits",
        name=plan.name or plan.load.rpartition(":")[2],
        batch=plan.batch,
        provenance=_origin(plan, folder),
    )


def _origin(plan: TargetPlan, folder: Path) -> tuple[tuple[str, str], ...]:
    """Whether a pickle was allowed, and in what format the weights came."""
    from assay.targets.weights import file_format

    allowed = (("pickle", "allowed"),) if plan.allow_pickle else ()
    return (*allowed, ("format", file_format(folder / plan.weights))) if plan.weights else allowed


def _moved(model: nn.Module, device: str) -> nn.Module:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = f"device = {device!r}: {str(error).splitlines()[0]}"
        raise ConfigError("CFG104", said, where="[target] device") from error


def _normalization(plan: TargetPlan) -> Any:
    if isinstance(plan.normalize, list):
        if len(plan.normalize) != 2:
            raise ConfigError("CFG104", "normalize must be a name or [[means], [stds]]", where="[target] normalize")
        return plan.normalize[0], plan.normalize[1]
    return plan.normalize


def _onnx(plan: TargetPlan, folder: Path) -> Target:
    from assay.targets.onnx_model import onnx_target

    return onnx_target(
        folder / plan.load,
        bounds=_bounds(plan),
        normalize=_normalization(plan),
        outputs="probabilities" if plan.outputs == "probabilities" else "logits",
        name=plan.name or Path(plan.load).stem,
        batch=plan.batch,
    )


def _sklearn(plan: TargetPlan, folder: Path) -> Target:
    from assay.targets.estimator import sklearn_target

    return sklearn_target(
        _call(plan, folder),
        bounds=_bounds(plan),
        output="labels" if plan.outputs == "labels" else "scores",
        name=plan.name,
    )


def _http(plan: TargetPlan, folder: Path) -> Target:
    from assay.targets.http_client import Manners
    from assay.targets.http_model import http_target

    speak = plan.http
    return http_target(
        plan.load,
        protocol=speak.protocol,
        model=speak.model,
        version=speak.version,
        output="labels" if plan.outputs == "labels" else "scores",
        bounds=_bounds(plan),
        batch=min(plan.batch, 64),
        auth_env=speak.auth_env,
        auth_header=speak.auth_header,
        input_name=speak.input_name,
        output_name=speak.output_name,
        manners=Manners(read_timeout=speak.timeout, retries=speak.retries, rate=speak.rate, concurrent=speak.workers),
        name=plan.name,
    )


def _bounds(plan: TargetPlan) -> tuple[float, float]:
    return plan.bounds[0], plan.bounds[1]


_KINDS: dict[str, Callable[[TargetPlan, Path], Target]] = {
    "torch": _torch, "onnx": _onnx, "sklearn": _sklearn, "http": _http,
}


def _call(plan: TargetPlan, folder: Path) -> object:
    """What the callable named by ``load`` returns."""
    named: Any = _named(plan, folder)
    try:
        with _importable(folder):
            return named(**plan.arguments)
    except AssayError:
        raise
    except Exception as error:  # the user's code runs here: whatever it raises is a reason, not a crash
        raise ConfigError("CFG140", f"{plan.load}: {type(error).__name__}: {error}", where="[target] load") from error


def _named(plan: TargetPlan, folder: Path) -> object:
    """What ``load`` names."""
    place, colon, attribute = plan.load.rpartition(":")
    if not colon or not place:
        raise ConfigError("CFG140", f"cannot read load = {plan.load!r}", where="[target] load")
    try:
        with _importable(folder):
            module = _from_file(folder / place) if place.endswith(".py") else importlib.import_module(place)
            return getattr(module, attribute)
    except AssayError:
        raise
    except Exception as error:  # the user's code runs here: whatever it raises is a reason, not a crash
        raise ConfigError("CFG140", f"{plan.load}: {type(error).__name__}: {error}", where="[target] load") from error


def _from_file(path: Path) -> Any:
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        said = f"there is no file {path.name!r}{nearest(path.name, siblings)}"
        raise ConfigError("CFG140", said, where=str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError("CFG140", f"{path.name} is not Python", where=str(path.parent))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The plan's folder and the current one can be imported from, for the length of the block."""
    added = [str(folder), str(Path.cwd())]
    sys.path[:0] = added
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)
