"""Tree ensembles of scikit-learn, XGBoost and LightGBM read into one plain structure."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.targets.trees import LEAF, Floats, Forest, joined, single_threshold

Raw = Callable[[Any], npt.NDArray[Any]]
"""The library's own raw scores of rows, ``[rows]`` or ``[rows, classes]``."""

Tree = dict[str, Any]

_ZERO = float(np.float32(1e-35))
"""LightGBM's ``kZeroThreshold``: what is no larger than this counts as 0."""


def read_forest(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """The structure of a fitted ensemble of trees; ``None`` for any other estimator.

    Read are scikit-learn's decision trees, random forests, extra trees and both gradient boostings, and the boosters
    of XGBoost and LightGBM with their wrappers. Not read (``None``): categorical splits, linear leaves, DART, values
    declared to be missing other than NaN, and an ensemble behind other steps of a pipeline.

    Args:
        estimator: what was fitted.
        classes: how many there are.
        raw: the estimator's raw scores; boosted ensembles are asked once for what they add to their trees.
    """
    for reader in (_bagged, _boosted, _histogram, _xgboost, _lightgbm):
        forest = reader(estimator, classes, raw)
        if forest is not None:
            return forest
    return None


def _is(estimator: Any, module: str, *names: str) -> bool:
    """Whether the estimator is of one of these classes, without importing what nobody imported."""
    home = sys.modules.get(module)
    return home is not None and isinstance(estimator, tuple(getattr(home, name) for name in names))


def _nodes(tree: Any, value: Floats) -> Tree:
    """One of scikit-learn's trees: it compares ``float32(x) <= threshold``."""
    return {"feature": tree.feature, "threshold": single_threshold(tree.threshold, strict=False),
            "left": tree.children_left, "right": tree.children_right, "value": value}


def _bagged(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """A decision tree, or the mean of the class shares in many."""
    if _is(estimator, "sklearn.tree", "DecisionTreeClassifier"):
        members = [estimator]
    elif _is(estimator, "sklearn.ensemble", "RandomForestClassifier", "ExtraTreesClassifier"):
        members = list(estimator.estimators_)
    else:
        return None
    trees = []
    for member in members:
        counts = member.tree_.value[:, 0, :]
        trees.append(_nodes(member.tree_, counts / counts.sum(1, keepdims=True)))
    return joined(trees, np.zeros(classes), divisor=float(len(members)))


def _boosted(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """scikit-learn's GradientBoostingClassifier, unless it starts from another model."""
    if not _is(estimator, "sklearn.ensemble", "GradientBoostingClassifier"):
        return None
    if not (estimator.init_ == "zero" or type(estimator.init_).__name__ == "DummyClassifier"):
        return None
    trees = [
        _nodes(member.tree_, _of_class(estimator.learning_rate * member.tree_.value[:, 0, 0], k, classes))
        for stage in estimator.estimators_ for k, member in enumerate(stage)
    ]
    return _based(trees, estimator.n_features_in_, classes, raw)


def _histogram(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """scikit-learn's HistGradientBoostingClassifier: it compares ``x <= threshold`` in float64."""
    if not _is(estimator, "sklearn.ensemble", "HistGradientBoostingClassifier"):
        return None
    trees = []
    for stage in estimator._predictors:
        for k, member in enumerate(stage):
            nodes = member.nodes
            if nodes["is_categorical"].any():
                return None
            feature = np.where(nodes["is_leaf"], LEAF, nodes["feature_idx"])
            value = _of_class(np.where(nodes["is_leaf"], nodes["value"], 0.0), k, classes)
            trees.append({"feature": feature, "threshold": nodes["num_threshold"], "left": nodes["left"],
                          "right": nodes["right"], "value": value})
    return _based(trees, estimator.n_features_in_, classes, raw)


def _xgboost(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """An XGBoost booster or wrapper: it compares ``float32(x) < threshold`` and adds up in float32."""
    booster = estimator.get_booster() if _is(estimator, "xgboost", "XGBModel") else estimator
    if not _is(booster, "xgboost", "Booster") or not math.isnan(getattr(estimator, "missing", math.nan)):
        return None
    gradient_booster = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    if gradient_booster["name"] != "gbtree":
        return None
    model, count = gradient_booster["model"], None
    if booster is not estimator and getattr(estimator, "early_stopping_rounds", None):
        rounds = int(model["gbtree_model_param"]["num_parallel_tree"]) * (classes if classes > 2 else 1)
        count = (estimator.best_iteration + 1) * rounds  # the wrapper predicts with the best iteration
    trees = []
    for table, k in zip(model["trees"][:count], model["tree_info"]):
        if any(table["split_type"]) or int(table["tree_param"]["size_leaf_vector"]) > 1:
            return None
        left, at = np.array(table["left_children"]), np.array(table["split_conditions"], np.float32)
        leaf = left == -1
        trees.append({"feature": np.where(leaf, LEAF, table["split_indices"]), "left": left,
                      "threshold": single_threshold(at.astype(np.float64), strict=True),
                      "right": table["right_children"], "value": _of_class(np.where(leaf, at, 0), k, classes)})
    return _based(trees, booster.num_features(), classes, raw, single=True)


def _lightgbm(estimator: Any, classes: int, raw: Raw) -> Forest | None:
    """A LightGBM booster or wrapper: it compares ``x <= threshold`` in float64, all that is next to 0 being 0."""
    booster = getattr(estimator, "booster_", estimator) if _is(estimator, "lightgbm", "LGBMModel") else estimator
    if not _is(booster, "lightgbm", "Booster"):
        return None
    dump = booster.dump_model()
    trees = []
    for number, table in enumerate(dump["tree_info"]):
        rows = list(_walk(table["tree_structure"], 0))
        if any(row is None for row in rows):
            return None
        feature, threshold, left, right, value = (np.array(part) for part in zip(*rows))
        zero = np.where(threshold < 0, np.nextafter(-_ZERO, -np.inf), _ZERO)
        trees.append({"feature": feature, "threshold": np.where(abs(threshold) <= _ZERO, zero, threshold),
                      "left": left, "right": right,
                      "value": _of_class(value, number % int(dump["num_tree_per_iteration"]), classes)})
    return _based(trees, booster.num_feature(), classes, raw)


def _walk(node: dict[str, Any], number: int) -> Iterator[tuple[int, float, int, int, float] | None]:
    """The nodes below one of LightGBM's, itself first, numbered in this order; ``None`` for one that is not read."""
    if "leaf_value" in node or "split_feature" not in node:
        yield None if "leaf_coeff" in node else (LEAF, 0.0, LEAF, LEAF, float(node["leaf_value"]))
        return
    if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
        yield None
        return
    left = list(_walk(node["left_child"], number + 1))
    beyond = number + 1 + len(left)
    yield int(node["split_feature"]), float(node["threshold"]), number + 1, beyond, 0.0
    yield from left
    yield from _walk(node["right_child"], beyond)


def _of_class(value: Floats, k: int, classes: int) -> Floats:
    """What a boosted tree adds to each class; with two classes half of it on either side."""
    table = np.zeros((len(value), classes))
    if classes == 2:
        table[:, 0], table[:, 1] = -value / 2, value / 2
    else:
        table[:, k] = value
    return table


def _based(trees: list[Tree], features: int, classes: int, raw: Raw, *, single: bool = False) -> Forest:
    """Boosted trees with what the library adds to them, which is told by one answer of its own."""
    bare = joined(trees, np.zeros(classes), single=single)
    origin = np.zeros((1, features))
    said = np.asarray(raw(origin), np.float64).reshape(-1)
    if classes == 2:
        said = np.array([-said[-1] / 2, said[-1] / 2])
    return joined(trees, said - bare.scores(origin)[0], single=single)
