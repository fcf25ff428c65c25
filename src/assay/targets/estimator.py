"""Estimators with scikit-learn's interface, and native XGBoost and LightGBM boosters, as targets."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from assay.errors import Denied, TargetError
from assay.targets.access import Access
from assay.targets.base import Bounds
from assay.targets.pytorch import check_scores
from assay.targets.tree_readers import read_forest
from assay.targets.trees import Forest

Array = npt.NDArray[Any]
Scorer = Callable[[Any], Array]


@dataclass(frozen=True, eq=False)
class SklearnTarget:
    """An estimator under test; build it with :func:`assay.targets.sklearn`.

    Class ``i`` is ``classes[i]``: the data's labels are indices into the estimator's own ``classes_``.

    Attributes:
        estimator: what the user fitted; it is called, never changed.
        classes: what the estimator's ``predict`` returns for class 0, 1, …
        features: how many columns it takes; ``None`` where it does not say.
        output: whether scores or labels alone are given.
        method: the source of the scores, such as ``"decision_function"``.
    """

    estimator: Any
    bounds: Bounds
    name: str
    classes: tuple[Any, ...]
    features: int | None
    output: Literal["scores", "labels"]
    dtype: torch.dtype
    method: str
    _scorer: Scorer = field(repr=False)
    _predictor: Scorer | None = field(repr=False)

    @property
    def offers(self) -> Access:
        """Scores or labels, as declared; weights where what was learned can be read. There are no gradients here."""
        if self.output == "labels":
            return Access.LABELS
        return Access.SCORES if self.structure is None else Access.WEIGHTS

    @cached_property
    def structure(self) -> Forest | None:
        """The ensemble of trees that the estimator is; ``None`` where it is another kind, or labels alone are given."""
        if self.output == "labels":
            return None
        try:
            return read_forest(self.estimator, len(self.classes), self._raw)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None  # a layout of another version of the library: nothing is revealed that was not understood

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def randomized(self) -> bool:
        """A fitted estimator is a function."""
        return False

    @property
    def forwards_per_query(self) -> int:
        """One."""
        return 1

    def labels(self, x: Tensor) -> Tensor:
        """The estimator's own decisions as indices into ``classes``, int64 ``[rows]``.

        Raises:
            TargetError: as :meth:`scores`; TGT131 when decisions are not one class a row.
        """
        if self._predictor is None:
            return self.scores(x).argmax(1)
        if not len(x):
            return torch.empty(0, dtype=torch.int64)
        answer = self._called(self._predictor, x)
        index = {value: number for number, value in enumerate(self.classes)}
        if answer.ndim != 1 or len(answer) != len(x) or not set(answer.tolist()) <= index.keys():
            raise TargetError("TGT131", f"{self.name} predicts {answer.dtype} of shape {list(answer.shape)} for "
                                        f"{len(x)} rows, not one of its {len(index)} classes a row")
        return torch.tensor([index[value] for value in answer.tolist()], dtype=torch.int64)

    def scores(self, x: Tensor) -> Tensor:
        """Decision values, margins or log-probabilities, ``[rows, classes]``; of one decision value d, ``[-d/2, d/2]``.

        Args:
            x: ``[rows, features]``, or ``[rows, …]`` which is flattened where the estimator takes features.

        Raises:
            TargetError: TGT101 the estimator failed, TGT102 and TGT103 not ``[rows, classes]`` of finite numbers,
                TGT132 another number of features.
            Denied: THR101 when only labels were declared.
        """
        if self.output != "scores":
            raise Denied("THR101", f"{self.name} is declared to give labels alone")
        if not len(x):
            return torch.empty(0, len(self.classes), dtype=self.dtype)
        answer = self._called(self._scorer, x)
        if answer.ndim == 2 and answer.shape[1] == 1:
            answer = answer[:, 0]
        if answer.ndim == 1 and len(self.classes) == 2:
            answer = np.stack([-answer / 2, answer / 2], 1)
        scores = torch.from_numpy(np.ascontiguousarray(answer, np.float64)).to(self.dtype)
        check_scores(scores, len(x), self.name)
        if scores.shape[1] != len(self.classes):
            raise TargetError("TGT102", f"{self.name} gives {scores.shape[1]} scores a row for "
                                        f"{len(self.classes)} classes")
        return scores

    def check(self, x: Tensor) -> None:
        """One look at ``x``, and that the highest score is what the estimator itself predicts.

        Raises:
            TargetError: as :meth:`scores` and :meth:`labels`; TGT133 when the two disagree on a row, TGT151 when what
                was read of the estimator decides otherwise.
        """
        predicted = self.labels(x)
        if self.output == "scores":
            apart = int((self.scores(x).argmax(1) != predicted).sum())
            if apart:
                raise TargetError("TGT133", f"{self.method} and predict of {self.name} disagree on {apart} of "
                                            f"{len(x)} rows")
        if self.structure is not None:
            scores = self.structure.scores(x.detach().double().flatten(1).numpy())
            top = np.sort(scores, 1)
            clear = (top[:, -1] - top[:, -2]) * self.structure.divisor > self.structure.rounding
            apart = int((clear & (scores.argmax(1) != predicted.numpy())).sum())
            if apart:
                raise TargetError("TGT151", f"the trees read from {self.name} decide otherwise on {apart} of "
                                            f"{len(x)} rows")

    def fingerprint(self) -> dict[str, str]:
        """Class, a hash of parameters and of what was learned, and the library's version."""
        kind = type(self.estimator)
        library = kind.__module__.partition(".")[0]
        version = getattr(sys.modules.get(library), "__version__", "of unknown version")
        params = self.estimator.get_params() if hasattr(self.estimator, "get_params") else {}
        said = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(sorted(params.items(), key=lambda item: str(item[0]))))
        return {
            "estimator": f"{kind.__module__}.{kind.__qualname__}",
            "params": hashlib.sha256(said.encode()).hexdigest(),
            "state": _state(self.estimator),
            "scores": self.method,
            "library": f"{library} {version}",
        }

    def _raw(self, x: Array) -> Array:
        return self._called(self._scorer, torch.from_numpy(x))

    def _called(self, function: Scorer, x: Tensor) -> Array:
        table = self._table(x)
        try:
            with warnings.catch_warnings():
                # Columns are the declared features in order; arrays have no names.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                return np.asarray(function(table))
        except Exception as error:  # the estimator is the user's code
            raise TargetError("TGT101", f"{self.name} failed on {list(x.shape)}: {type(error).__name__}: "
                                        f"{error}") from error

    def _table(self, x: Tensor) -> Any:
        """The rows as the estimator takes them: flat, and named where it was fitted on named columns."""
        rows = x.detach().to("cpu", self.dtype)
        if self.features is not None:
            rows = rows.reshape(len(rows), -1)
            if rows.shape[1] != self.features:
                raise TargetError("TGT132", f"examples of shape {list(x.shape[1:])} have {rows.shape[1]} features; "
                                            f"{self.name} takes {self.features}")
        array = np.ascontiguousarray(rows.numpy())
        names = getattr(self.estimator, "feature_names_in_", None)
        pandas = sys.modules.get("pandas")  # whoever fits on frames has loaded it
        if names is None or pandas is None:
            return array
        return pandas.DataFrame(array, columns=list(names), copy=False)


def sklearn_target(
    estimator: object,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    output: Literal["scores", "labels"] = "scores",
    name: str = "",
    dtype: torch.dtype = torch.float64,
) -> SklearnTarget:
    """A fitted estimator as a target.

    Scores are, in this order of preference: XGBoost's and LightGBM's raw margins, ``decision_function``, naive Bayes'
    joint log-probabilities, the logarithm of ``predict_proba`` (a probability of 0 becomes the logarithm of the
    smallest positive number; the order of a row's probabilities, and so the decision, is kept).

    Args:
        estimator: a fitted classifier with scikit-learn's interface (pipelines, searches, ensembles, the XGBoost and
            LightGBM wrappers), an ``xgboost.Booster`` or a ``lightgbm.Booster`` with a binary or multiclass objective.
        bounds: the box of the inputs that an adversary submits; scaling is the pipeline's business.
        output: ``"labels"`` for estimators without scores, or whose scores are not to be seen.
        name: how evidence calls it; the class name by default.
        dtype: of the tensors it takes and gives; float64 keeps what scikit-learn computes.

    Raises:
        TargetError: TGT107 for bounds that are no interval, TGT130 when there are no scores, TGT131 when it is not a
            fitted classifier.
    """
    lower, upper = bounds
    if not lower < upper:
        raise TargetError("TGT107", f"bounds must be (lower, upper) with lower < upper; got {bounds}")
    label = name or type(estimator).__name__
    method, scorer, predictor, classes, features = _parts(estimator, label, output == "scores")
    return SklearnTarget(
        estimator=estimator,
        bounds=Bounds(float(lower), float(upper)),
        name=label,
        classes=classes,
        features=features,
        output=output,
        dtype=dtype,
        method=method,
        _scorer=scorer,
        _predictor=predictor,
    )


_Parts = tuple[str, Scorer, Scorer | None, tuple[Any, ...], int | None]
"""The scores' source, scorer, predictor (``None`` where the highest score decides), classes and features."""


def _parts(estimator: Any, name: str, scored: bool) -> _Parts:
    booster = _booster_parts(estimator, name)
    if booster is not None:
        return booster if scored else ("", booster[1], *booster[2:])
    if not callable(getattr(estimator, "predict", None)):
        raise TargetError("TGT131", f"{name} has no predict")
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or len(classes) < 2:
        what = "no classes_" if classes is None else f"classes_ {classes!r:.80}"
        raise TargetError("TGT131", f"{name} has {what}")
    features = getattr(estimator, "n_features_in_", None)
    method, scorer = _chosen(estimator, name, len(classes)) if scored else ("", estimator.predict)
    return method, scorer, estimator.predict, tuple(classes.tolist()), None if features is None else int(features)


def _chosen(estimator: Any, name: str, classes: int) -> tuple[str, Scorer]:
    """The best source of scores that the estimator has. Raises TGT130."""
    families = {kind.__module__.partition(".")[0] for kind in type(estimator).__mro__}
    if "xgboost" in families:
        return "margin", lambda x: np.asarray(estimator.predict(x, output_margin=True))
    if "lightgbm" in families:
        return "raw score", lambda x: np.asarray(estimator.predict(x, raw_score=True))
    pairs = classes > 2 and getattr(estimator, "decision_function_shape", "") == "ovo"
    if hasattr(estimator, "decision_function") and not pairs:
        return "decision_function", estimator.decision_function
    if hasattr(estimator, "predict_joint_log_proba"):
        return "predict_joint_log_proba", estimator.predict_joint_log_proba
    if hasattr(estimator, "predict_proba"):
        return "log predict_proba", lambda x: logarithm(np.asarray(estimator.predict_proba(x)))
    raise TargetError("TGT130", f"{name} has " + ("a decision for each pair of classes alone" if pairs
                                                  else "neither decision_function nor predict_proba"))


def logarithm(probabilities: Array) -> npt.NDArray[np.float64]:
    """Logarithms of ``[rows, classes]`` probabilities, zeros as the smallest positive number, the winner kept.

    Two probabilities that differ in the last digit can have equal logarithms: the first winner's is then raised by one
    unit in the last place.
    """
    values = np.asarray(probabilities, np.float64)
    logs: npt.NDArray[np.float64] = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    if values.ndim == 2 and values.shape[1]:
        winner = values.argmax(1)
        rows = np.nonzero(logs.argmax(1) != winner)[0]
        logs[rows, winner[rows]] = np.nextafter(logs[rows].max(1), np.inf)
    return logs


def _booster_parts(estimator: Any, name: str) -> _Parts | None:
    """A native booster's parts, without importing a library that is not loaded; ``None`` for anything else."""
    xgboost, lightgbm = sys.modules.get("xgboost"), sys.modules.get("lightgbm")
    if xgboost is not None and isinstance(estimator, xgboost.Booster):
        learner = json.loads(estimator.save_config())["learner"]
        objective, declared = learner["objective"]["name"], learner["learner_model_param"]["num_class"]
        classes = _class_count(objective, ("binary:",), ("multi:",), int(declared), name)
        margins = partial(estimator.predict, output_margin=True, validate_features=False)
        matrix = xgboost.DMatrix
        return ("margin", lambda x: np.asarray(margins(matrix(x))), None, tuple(range(classes)),
                int(estimator.num_features()))
    if lightgbm is not None and isinstance(estimator, lightgbm.Booster):
        objective = str(estimator.dump_model(num_iteration=1).get("objective", "none"))
        declared = estimator.num_model_per_iteration()
        classes = _class_count(objective, ("binary",), ("multiclass",), declared, name)
        return ("raw score", lambda x: np.asarray(estimator.predict(x, raw_score=True)),
                None, tuple(range(classes)), int(estimator.num_feature()))
    return None


def _class_count(objective: str, two: tuple[str, ...], many: tuple[str, ...], declared: int, name: str) -> int:
    if objective.startswith(two):
        return 2
    if objective.startswith(many) and declared >= 2:
        return declared
    raise TargetError("TGT131", f"{name} has the objective {objective!r}, which is not a classification")


def _state(estimator: Any) -> str:
    """A hash of what was learned."""
    booster: Any = estimator.get_booster() if hasattr(estimator, "get_booster") \
        else getattr(estimator, "booster_", estimator)
    if hasattr(booster, "model_to_string"):
        return hashlib.sha256(booster.model_to_string().encode()).hexdigest()
    if hasattr(booster, "save_raw"):
        return hashlib.sha256(bytes(booster.save_raw("json"))).hexdigest()
    try:
        return str(importlib.import_module("joblib").hash(estimator, hash_name="sha1"))
    except Exception as error:  # pickling runs the user's code
        return f"not hashable: {type(error).__name__}"

