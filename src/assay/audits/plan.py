"""The plan of an audit: the TOML, typed; every mistake names its key and the nearest known one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from assay.errors import ConfigError, nearest


def _number(value: object) -> object:
    """Numbers may be written as fractions: ``"8/255"``."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{value!r} is no number or fraction") from None
    return value


Number = Annotated[float, BeforeValidator(_number)]
Method = str | dict[str, Any]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HttpPlan(_Section):
    """How to speak to a served model.

    Attributes:
        protocol: ``"v2"``, the Open Inference Protocol; ``"json"``: ``{"instances": […]}`` to ``{"predictions": […]}``.
        model, version: as the server knows them; protocol v2 only.
        input_name, output_name: which tensors are meant, where the server has several or does not describe them.
        auth_env: the environment variable that holds the token; the token itself never stands in a plan.
        auth_header: the header that the token is sent in.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again after a dropped connection or a plea to come back later.
        rate: at most so many requests a second; left out: no limit.
        workers: requests under way at once.
    """

    protocol: Literal["v2", "json"] = "v2"
    model: str = ""
    version: str = ""
    input_name: str = ""
    output_name: str = ""
    auth_env: str = ""
    auth_header: str = "Authorization"
    timeout: float = 30.0
    retries: int = 4
    rate: float | None = None
    workers: int = 4


class TargetPlan(_Section):
    """What is under test.

    Attributes:
        kind: what is behind ``load``; ``"training"``: a procedure, whose data section is the pool it is trained from.
        load: torch and sklearn: ``package.module:callable`` or ``file.py:callable``, which returns the model; training:
            likewise, the procedure ``fit(data, seed)`` itself; onnx: a file; http: a URL.
        weights: torch only: a state dict: ``.safetensors``, or ``.pth`` / ``.pt`` (tensors only).
        arguments: keyword arguments of the callable.
        bounds: the box in which inputs live, before normalization.
        normalize: ``"cifar10"``, ``"cifar100"``, ``"imagenet"``, ``"mnist"`` or ``[[means], [stds]]``; left out where
            the model does it itself.
        outputs: what the model returns; for sklearn and http ``"labels"`` for labels alone, anything else means scores.
        name: how the report calls it.
        device: where a torch model runs, such as ``"cuda"``; empty: where the callable left it.
        batch: rows that the model sees at once.
        allow_pickle: whether a pickle may be loaded, which can run code; the evidence records it.
        defenses: methods that wrap the target, first to last.
        http: how to speak to a served model.
    """

    kind: Literal["torch", "onnx", "sklearn", "http", "training"] = "torch"
    load: str
    weights: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    bounds: list[Number] = Field(default_factory=lambda: [0.0, 1.0], min_length=2, max_length=2)
    normalize: str | list[list[Number]] | None = None
    outputs: Literal["logits", "probabilities", "scores", "labels"] = "logits"
    name: str = ""
    device: str = ""
    batch: int = Field(default=512, ge=1)
    allow_pickle: bool = False
    defenses: list[Method] = Field(default_factory=list)
    http: HttpPlan = HttpPlan()

    @classmethod
    def of(cls, table: object, *, where: str) -> Self:
        """A target described by a table inside another. Raises ``ConfigError`` (CFG102–CFG104)."""
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise _explain(error, cls, where) from error


class DataPlan(_Section):
    """What it is judged on; ``assay.data.load`` has the grammar of ``load``.

    Attributes:
        load: ``[kind:]path[#split][[start]:[stop]]``, such as ``mnist:data/mnist#test[:1000]``.
        layout: of images: channels first, channels last, told from the shape, or kept as it is.
        scale: ``"unit"`` brings 8-bit pixels to [0, 1]; ``"none"`` leaves 0 to 255.
        size: ``[height, width]`` to which every image is resized.
        classes: the names of the classes in the order of the model's outputs, where labels are names.
    """

    load: str
    layout: Literal["auto", "nchw", "nhwc", "keep"] = "auto"
    scale: Literal["unit", "none"] = "unit"
    size: list[int] | None = None
    classes: list[str] | None = None


class ThreatPlan(_Section):
    """What the adversary may do.

    Attributes:
        budget: evasion: a norm and a radius in the data's units: ``"linf 8/255"``, ``"l2 0.5"``; with ``uint8`` at its
            end the inputs must be images of 8 bits a channel. Privacy: whose membership is asked: ``"natural"`` or
            canaries: ``"mislabeled 100"``.
        access: the most that it sees of the target.
        goal: evasion: any wrong label, or the label given with each point.
        knows: what it knows of the design; noted in the evidence.
        queries: how many inputs it may submit per point; left out: no limit.
    """

    budget: str
    access: Literal["labels", "scores", "gradients", "weights"] = "gradients"
    goal: Literal["misclassify", "targeted"] = "misclassify"
    knows: list[str] = Field(default_factory=lambda: ["model", "defense"])
    queries: int | None = Field(default=None, ge=1)


class TrialPlan(_Section):
    """One trial: a game under a threat, with attacks on one side and proofs on the other.

    Attributes:
        id: how messages call it.
        game: the family, ``"evasion"`` or ``"privacy"``, or one of its games: ``"privacy.membership"``.
        threat: what the adversary may do.
        attacks, proofs: names, or tables of a name and parameters; where both are empty, the suite's.
        seed: of everything random in the trial.
        curve: further radii at which both sides are wanted.
        confidence: one-sided, of what the points imply beyond themselves.
        runs: trainings in an audit of differential privacy, for each adversary.
        chunk: points in one batch; a run that is interrupted loses at most one method on one chunk.
    """

    id: str = ""
    game: str = "evasion"
    threat: ThreatPlan
    attacks: list[Method] = Field(default_factory=list)
    proofs: list[Method] = Field(default_factory=list)
    seed: int = 0
    curve: list[Number] = Field(default_factory=list)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    runs: int = Field(default=1000, ge=2)
    chunk: int = Field(default=500, ge=1)


class ClaimPlan(_Section):
    """What must hold.

    Attributes:
        id: what ``--require`` and reports call it.
        that: a quantity, ``>=`` or ``<=``, and a level: ``"robust accuracy >= 0.40"``.
        about: the distribution that the points were drawn from, or these very points.
        budget: where trials differ in budget, the one that is meant; empty: all of them.
    """

    id: str = ""
    that: str
    about: Literal["distribution", "points"] = "distribution"
    budget: str = ""


class Plan(_Section):
    """A whole audit."""

    target: TargetPlan
    data: DataPlan
    trial: list[TrialPlan] = Field(default_factory=list)
    claim: list[ClaimPlan] = Field(default_factory=list)

    @classmethod
    def parse(cls, text: str, *, name: str = "the plan") -> Self:
        """A plan from its TOML.

        Raises:
            ConfigError: CFG101 not TOML, CFG102 unknown key, CFG103 missing key, CFG104 wrong type or value.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError("CFG101", str(error), where=name) from error
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise _explain(error, cls, name) from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """A plan from a file. Raises ``ConfigError`` (CFG100 where there is no such file)."""
        return cls.parse(read_text(path), name=path.name)


def read_text(path: Path) -> str:
    """A plan's text. Raises ``ConfigError`` (CFG100) naming the nearest file there is."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        siblings = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        said = f"cannot read {path.name}: {error.strerror}{nearest(path.name, siblings)}"
        raise ConfigError("CFG100", said, where=str(path.parent)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("CFG101", f"not UTF-8 text: {error.reason}", where=path.name) from error


def _explain(error: ValidationError, plan: type[BaseModel], name: str) -> ConfigError:
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = f"{name}, {_key(first['loc'])}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    last = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        known = _known(plan, first["loc"][:-1])
        return ConfigError("CFG102", f"unknown key {last!r}{nearest(last, known)}{more}", where=where)
    if first["type"] == "missing":
        return ConfigError("CFG103", f"the key {last!r} is missing{more}", where=where)
    return ConfigError("CFG104", f"{last} = {first['input']!r}: {first['msg']}{more}", where=where)


def _key(loc: tuple[int | str, ...]) -> str:
    """``("trial", 0, "threat", "budget")`` as ``[[trial]] 1, threat.budget``."""
    head, *rest = loc
    if rest and isinstance(rest[0], int):
        head = f"[[{head}]] {rest[0] + 1}"
        rest = rest[1:]
    elif rest:
        head = f"[{head}]"
    tail = ".".join(str(part) for part in rest)
    return f"{head} {tail}".strip()


def _known(plan: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at this place."""
    fields: Mapping[str, Any] = plan.model_fields
    for part in loc:
        if isinstance(part, int) or part not in fields:
            continue
        kind = fields[part].annotation
        parts = getattr(kind, "__args__", ())
        inner = next((a for a in parts if isinstance(a, type) and issubclass(a, BaseModel)), kind)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            fields = inner.model_fields
    return list(fields)
