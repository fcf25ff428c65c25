"""Tree ensembles read into arrays: the structure decides as the library does, to the last bit of a threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from assay import targets, testing
from assay.errors import Denied, TargetError
from assay.evasion import PGD, EvasionGame, TreeExact
from assay.evasion.defenses.smoothing import Smoothing
from assay.evasion.threat import Linf
from assay.targets import Access
from assay.targets.base import Structured, passed_on
from assay.targets.trees import LEAF, Forest, single_threshold

BOX = (-20.0, 20.0)


def _boosted(library: str, **settings: Any) -> Callable[[], Any]:
    def make() -> Any:
        module = pytest.importorskip(library, reason=f"{library} is not installed")
        quiet = {"verbose": -1} if library == "lightgbm" else {}
        kind = module.XGBClassifier if library == "xgboost" else module.LGBMClassifier
        return kind(n_estimators=12, n_jobs=1, **quiet, **settings)

    return make


MODELS: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(15, random_state=0),
    "weighted": lambda: RandomForestClassifier(15, class_weight="balanced", min_samples_leaf=5, random_state=0),
    "extra": lambda: ExtraTreesClassifier(15, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=12, random_state=0),
    "from zero": lambda: GradientBoostingClassifier(n_estimators=5, init="zero", random_state=0),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=12, random_state=0),
    "xgboost": _boosted("xgboost"),
    "xgboost parallel": _boosted("xgboost", num_parallel_tree=3, subsample=0.5),
    "lightgbm": _boosted("lightgbm"),
    "lightgbm rf": _boosted("lightgbm", boosting_type="rf", bagging_freq=1, bagging_fraction=0.6),
}


def data(classes: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(400, 6, n_informative=5, n_redundant=0, n_classes=classes, random_state=1)
    return x, y


def near_thresholds(forest: Forest, x: np.ndarray, rows: int = 600) -> np.ndarray:
    """Rows with one feature on a threshold, or one float64 beside it, where a wrong comparison shows."""
    rng = np.random.default_rng(0)
    z = x[rng.integers(len(x), size=rows)]
    node = rng.choice(np.flatnonzero(forest.feature != LEAF), rows)
    beside = np.nextafter(forest.threshold[node], rng.choice([-np.inf, np.inf], rows))
    z[np.arange(rows), forest.feature[node]] = np.where(rng.random(rows) < 0.4, forest.threshold[node], beside)
    return z


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", MODELS)
def test_the_structure_computes_what_the_library_computes(kind: str, classes: int) -> None:
    x, y = data(classes)
    model = MODELS[kind]().fit(x, y)
    target = targets.sklearn(model, bounds=BOX)
    forest = target.structure
    assert isinstance(forest, Forest)
    z = np.concatenate([x, near_thresholds(forest, x), np.random.default_rng(2).uniform(-3, 3, (200, 6))])
    rows = torch.from_numpy(z)
    expected = model.predict_proba(z) if target.method == "log predict_proba" else target.scores(rows).numpy()
    assert np.abs(forest.scores(z) - expected).max() <= (2e-6 if forest.single else 1e-14)
    assert np.abs(forest.scores(z) - expected).max() <= forest.rounding
    assert np.array_equal(forest.scores(z).argmax(1), target.labels(rows).numpy())
    target.check(rows)


@pytest.mark.parametrize("kind", ["forest", "histogram", "xgboost", "lightgbm"])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_regions_are_the_sets_of_inputs_that_reach_a_leaf(kind: str, precision: torch.dtype) -> None:
    x, y = data(3)
    target = targets.sklearn(MODELS[kind]().fit(x, y), bounds=BOX, dtype=precision)
    forest, number = target.structure, np.float32 if precision == torch.float32 else np.float64
    regions = forest.regions(number)
    assert np.array_equal(regions.lower.astype(number), regions.lower)
    z = near_thresholds(forest, x, 200).astype(number).astype(np.float64)
    used = z[:, regions.features]
    inside = ((used[:, None] >= regions.lower) & (used[:, None] <= regions.upper)).all(2)
    reached = np.zeros_like(inside)
    leaves = forest.leaves(z)
    for row in range(len(z)):
        reached[row, np.isin(regions.leaf, leaves[row])] = True
    assert np.array_equal(inside, reached)  # so that the regions of each tree cover every input once
    # What lies just outside a region's end goes elsewhere: no number of this precision is lost between two leaves.
    ends = np.unique(np.concatenate([regions.lower[:, 0], regions.upper[:, 0]]))
    ends = ends[np.isfinite(ends)].astype(number)
    following = np.nextafter(ends, number(np.inf))
    assert (np.isin(following, ends) | np.isin(np.nextafter(ends, number(-np.inf)), ends)).all()


def test_single_thresholds_turn_where_rounding_turns() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=500)
    for threshold in (exact, exact.astype(np.float32).astype(np.float64)):
        for strict in (False, True):
            turn = single_threshold(threshold, strict=strict)
            above = np.nextafter(turn, np.inf)
            passes = np.less if strict else np.less_equal
            assert passes(turn.astype(np.float32), threshold).all()
            assert not passes(above.astype(np.float32), threshold).any()


def test_what_cannot_be_read_offers_scores() -> None:
    x, y = data(2)
    boosted = GradientBoostingClassifier(init=LogisticRegression(), n_estimators=2).fit(x, y)
    piped = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(x, y)
    split = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0])
    split.fit(np.concatenate([(x[:, :1] > 0).astype(float), x[:, 1:]], 1), y)
    for model in (boosted, piped, split, AdaBoostClassifier(n_estimators=2).fit(x, y)):
        assert targets.sklearn(model, bounds=BOX).offers is Access.SCORES
    hidden = targets.sklearn(DecisionTreeClassifier().fit(x, y), bounds=BOX, output="labels")
    assert (hidden.offers, hidden.structure) == (Access.LABELS, None)


@pytest.mark.parametrize("setting", [{"booster": "dart"}, {"missing": 0.0}])
def test_xgboost_that_is_not_a_sum_of_comparisons(setting: dict[str, Any]) -> None:
    x, y = data(2)
    model = _boosted("xgboost", **setting)().fit(x, y)
    assert targets.sklearn(model, bounds=BOX).structure is None


def test_early_stopping_is_followed() -> None:
    x, y = data(2)
    model = _boosted("xgboost", early_stopping_rounds=2, learning_rate=1.0)()
    model.fit(x[:200], y[:200], eval_set=[(x[200:], y[200:])], verbose=False)
    forest = targets.sklearn(model, bounds=BOX).structure
    assert len(forest.root) == model.best_iteration + 1 < 12
    assert np.array_equal(forest.scores(x).argmax(1), model.predict(x))


def test_the_view_guards_the_structure() -> None:
    x, y = data(2)
    target = targets.sklearn(DecisionTreeClassifier().fit(x, y), bounds=BOX)
    testing.check_target(target, torch.from_numpy(x[:8]))
    view = Linf(0.1).threat(access="weights").grant(target, 4)
    assert view.structure(Forest) is target.structure
    assert view.structure(dict) is None
    assert int(view.meter.queries.sum() + view.meter.forwards.sum()) == 0
    with pytest.raises(Denied, match="THR102"):
        Linf(0.1).threat(access="scores").grant(target, 4).structure(Forest)
    with pytest.raises(TargetError, match="TGT150"):
        view.module()
    with pytest.raises(TargetError, match="TGT150"):
        view.gradient(torch.from_numpy(x[:4]), torch.arange(4), lambda scores: scores[:, 0])
    assert Smoothing(sigma=0.1).protect(target).offers is Access.SCORES


def test_a_structure_that_decides_otherwise_is_refused() -> None:
    x, y = data(2)
    model = DecisionTreeClassifier(max_depth=3).fit(x, y)
    target = targets.sklearn(model, bounds=BOX)
    assert target.structure is not None
    model.fit(x, 1 - y)  # behind the target's back
    with pytest.raises(TargetError, match="TGT151"):
        target.check(torch.from_numpy(x))


def test_what_goes_around_a_tree_offers_no_gradients() -> None:
    x, y = data(2)
    target = targets.sklearn(DecisionTreeClassifier().fit(x, y), bounds=BOX)
    assert isinstance(target, Structured)
    assert target.offers is Access.WEIGHTS
    assert passed_on(target) is Smoothing(sigma=0.1).protect(target).offers is Access.SCORES


def test_a_game_under_a_defense_that_is_known_probes_no_gradients_of_a_tree() -> None:
    x, y = data(2)
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(x, y)
    threat = Linf(0.5).threat(access="weights", knows=("model", "defense"))
    game = EvasionGame(x[:20], model.predict(x[:20]), threat=threat)
    exact, blind = game.bracket([TreeExact(), PGD(steps=2)], [], targets.sklearn(model, bounds=BOX), seed=0)
    assert (exact.kind, blind.kind) == ("played", "not run")
    assert "TGT150" in str(blind.error)
