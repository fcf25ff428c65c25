"""Estimators as targets: their scores order classes as their own predictions do."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Perceptron, RidgeClassifier
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from assay import targets
from assay.errors import Denied, TargetError
from assay.evasion.threat import Linf
from assay.targets import Access
from assay.targets.estimator import logarithm

pytestmark = pytest.mark.filterwarnings("error")


def data(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(400, 8, n_informative=6, n_classes=classes, random_state=seed)
    low, high = x.min(0), x.max(0)
    return (x - low) / (high - low), y


def refuses(code: str, call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(TargetError) as caught:
        call()
    assert caught.value.code == code, str(caught.value)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


ESTIMATORS = [
    LogisticRegression(),
    RidgeClassifier(),
    LinearSVC(),
    Perceptron(),
    SVC(break_ties=True),
    GaussianNB(),
    KNeighborsClassifier(5),
    MLPClassifier((8,), max_iter=60, tol=1.0, random_state=0),
    DecisionTreeClassifier(max_depth=5, random_state=0),
    RandomForestClassifier(10, random_state=0),
    GradientBoostingClassifier(n_estimators=8, random_state=0),
    make_pipeline(StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_labels_are_the_estimators_own(estimator: BaseEstimator, classes: int) -> None:
    x, y = data(classes)
    estimator.fit(x[:200], y[:200])
    target = targets.sklearn(estimator)
    rows = torch.from_numpy(x)
    target.check(rows)
    expected = torch.from_numpy(estimator.predict(x)).long()
    assert torch.equal(target.labels(rows), expected)
    scores = target.scores(rows)
    assert scores.shape == (400, classes)
    assert scores.dtype == torch.float64
    assert torch.equal(scores.argmax(1), expected)
    readable = hasattr(estimator, "tree_") or "Forest" in repr(estimator) or "GradientBoosting" in repr(estimator)
    assert target.offers is (Access.WEIGHTS if readable else Access.SCORES)
    assert target.labels(rows[:0]).shape == (0,)
    assert target.scores(rows[:0]).shape == (0, classes)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_scores_are_its_decision(classes: int) -> None:
    x, y = data(classes)
    model = LogisticRegression().fit(x, y)
    scores = targets.sklearn(model).scores(torch.from_numpy(x)).numpy()
    if classes == 2:
        assert np.array_equal(scores[:, 1] - scores[:, 0], model.decision_function(x))
        assert np.array_equal(scores[:, 0], -scores[:, 1])
    else:
        assert np.array_equal(scores, model.decision_function(x))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosting_through_wrapper_and_native_booster(library: str, classes: int) -> None:
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    x, y = data(classes)
    rows = torch.from_numpy(x)
    if library == "xgboost":
        wrapper = module.XGBClassifier(n_estimators=12, max_depth=3, n_jobs=1).fit(x, y)
        native = wrapper.get_booster()
        margin = wrapper.predict(x, output_margin=True)
    else:
        wrapper = module.LGBMClassifier(n_estimators=12, verbose=-1, n_jobs=1).fit(x, y)
        native = wrapper.booster_
        margin = native.predict(x, raw_score=True)
    expected = torch.from_numpy(np.asarray(wrapper.predict(x))).long()
    for model in (wrapper, native):
        target = targets.sklearn(model)
        target.check(rows)
        assert torch.equal(target.labels(rows), expected)
        assert torch.equal(target.scores(rows).argmax(1), expected)
        scores = target.scores(rows).numpy()
        np.testing.assert_array_equal(scores[:, 1] - scores[:, 0] if classes == 2 else scores, margin.astype(np.float64))
        assert target.fingerprint() == targets.sklearn(model).fingerprint()
        assert len(target.fingerprint()["state"]) == 64
        refuses("TGT132", lambda target=target: target.scores(rows[:, :5]), "takes 8")


def test_boosters_that_do_not_classify() -> None:
    x, y = data(2)
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    booster = xgboost.train({"objective": "reg:squarederror"}, xgboost.DMatrix(x, y), 2)
    refuses("TGT131", lambda: targets.sklearn(booster), "reg:squarederror")
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    trees = lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(x, y), 2)
    refuses("TGT131", lambda: targets.sklearn(trees), "regression")


def test_multiclass_booster_that_answers_labels() -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")
    x, y = data(3)
    booster = xgboost.train({"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(x, y), 5)
    expected = booster.predict(xgboost.DMatrix(x)).astype(np.int64)
    assert np.array_equal(targets.sklearn(booster).labels(torch.from_numpy(x)).numpy(), expected)


def test_string_classes_are_mapped_to_indices() -> None:
    x, y = data(3)
    names = np.array(["owl", "cat", "dog"])
    for model in (LogisticRegression(), RandomForestClassifier(5, random_state=0)):
        model.fit(x, names[y])
        target = targets.sklearn(model)
        assert target.classes == ("cat", "dog", "owl")
        labels = target.labels(torch.from_numpy(x))
        assert np.array_equal(model.classes_[labels.numpy()], model.predict(x))


def test_number_classes_that_do_not_begin_at_zero() -> None:
    x, y = data(2)
    model = SVC().fit(x, np.where(y == 1, 7, -1))
    target = targets.sklearn(model)
    target.check(torch.from_numpy(x))
    assert target.classes == (-1, 7)
    assert np.array_equal(np.array([-1, 7])[target.labels(torch.from_numpy(x)).numpy()], model.predict(x))


def test_images_are_flattened_and_dtypes_follow() -> None:
    x, y = data(2)
    model = LogisticRegression().fit(x, y)
    images = torch.from_numpy(x).reshape(-1, 2, 2, 2)
    target = targets.sklearn(model)
    assert torch.equal(target.scores(images), target.scores(images.flatten(1)))
    assert torch.equal(target.scores(images.float()), target.scores(images.float().double()))
    narrow = targets.sklearn(model, dtype=torch.float32)
    assert narrow.dtype == narrow.scores(images).dtype == torch.float32
    torch.testing.assert_close(narrow.scores(images), target.scores(images).float())
    refuses("TGT132", lambda: target.scores(images[:, :1]), "[1, 2, 2]", "takes 8")


def test_logarithm_keeps_the_winner_and_zeros() -> None:
    third = 0.1 + 0.1 + 0.1
    rows = np.array([[0.3, third, 0.0, 1 - 0.3 - third], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    logs = logarithm(rows)
    assert np.isfinite(logs).all()
    assert np.array_equal(logs.argmax(1), rows.argmax(1))
    random = np.random.default_rng(0).dirichlet(np.ones(4), 1000)
    close = np.stack([random[:, 0], np.nextafter(random[:, 0], 1)], 1)
    assert (logarithm(close).argmax(1) == 1).all()
    np.testing.assert_allclose(np.exp(logarithm(random)), random, rtol=1e-14)


def test_labels_alone() -> None:
    x, y = data(2)
    target = targets.sklearn(LogisticRegression().fit(x, y), output="labels")
    rows = torch.from_numpy(x)
    target.check(rows)
    assert target.offers is Access.LABELS
    with pytest.raises(Denied) as caught:
        target.scores(rows)
    assert caught.value.code == "THR101"

    class Bare(ClassifierMixin, BaseEstimator):
        classes_ = np.array([0, 1])

        def predict(self, x: np.ndarray) -> np.ndarray:
            return (x[:, 0] > 0.5).astype(int)

    refuses("TGT130", lambda: targets.sklearn(Bare()), "neither")
    assert torch.equal(targets.sklearn(Bare(), output="labels").labels(rows), (rows[:, 0] > 0.5).long())


def test_the_view_counts() -> None:
    x, y = data(2)
    view = Linf(0.1).threat(access="scores").grant(targets.sklearn(LogisticRegression().fit(x, y)), 400)
    view.scores(torch.from_numpy(x), torch.arange(400))
    assert int(view.meter.queries.sum()) == 400


def test_scores_that_disagree_with_predictions_are_refused() -> None:
    x, y = data(2)
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="recall", cv=2).fit(x, y)
    refuses("TGT133", lambda: targets.sklearn(tuned).check(torch.from_numpy(x)), "of 400 rows")
    targets.sklearn(tuned, output="labels").check(torch.from_numpy(x))


def test_what_is_no_fitted_classifier() -> None:
    x, y = data(2)
    forest = RandomForestClassifier(3).fit(x, np.stack([y, 1 - y], 1))
    for thing in (LogisticRegression(), LinearRegression().fit(x, y), IsolationForest(n_estimators=3).fit(x), forest,
                  object()):
        refuses("TGT131", lambda thing=thing: targets.sklearn(thing))
    pairs = SVC(decision_function_shape="ovo").fit(*data(3))
    refuses("TGT130", lambda: targets.sklearn(pairs), "each pair")
    refuses("TGT107", lambda: targets.sklearn(LogisticRegression().fit(x, y), bounds=(1, 1)))


def test_failures_of_the_estimator_are_named() -> None:
    class Failing(ClassifierMixin, BaseEstimator):
        classes_ = np.array([0, 1])
        answer: object = None

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(len(x))

        def predict_proba(self, x: np.ndarray) -> object:
            if self.answer is None:
                raise RuntimeError("boom")
            return self.answer

    model = Failing()
    x = torch.zeros(3, 2)
    refuses("TGT101", lambda: targets.sklearn(model).check(x), "boom")
    model.answer = np.full((3, 2), np.nan)
    refuses("TGT103", lambda: targets.sklearn(model).check(x))
    model.answer = np.full((2, 2), 0.5)
    refuses("TGT102", lambda: targets.sklearn(model).check(x))
    model.answer = np.full((3, 3), 0.3)
    refuses("TGT102", lambda: targets.sklearn(model).check(x), "3 scores a row for 2")


def test_fingerprints_tell_fits_apart_and_are_stable() -> None:
    x, y = data(2)
    for kind in (LogisticRegression, lambda: RandomForestClassifier(5, random_state=0), lambda: SVC(C=2.0)):
        first, again = (targets.sklearn(kind().fit(x, y)) for _ in range(2))
        other = targets.sklearn(kind().fit(x[:300], y[:300]))
        before = first.fingerprint()
        first.scores(torch.from_numpy(x))
        assert first.fingerprint() == before == again.fingerprint()
        assert before["params"] == other.fingerprint()["params"]
        assert before["state"] != other.fingerprint()["state"]
        assert before["library"].startswith("sklearn 1.")


def test_named_columns_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = data(2)

    class Frame:
        def __init__(self, array: np.ndarray, columns: list[str], copy: bool) -> None:
            self.array, self.columns = array, columns

    class Named(ClassifierMixin, BaseEstimator):
        classes_, feature_names_in_ = np.array([0, 1]), np.array([f"c{i}" for i in range(8)], dtype=object)

        def predict(self, frame: Frame) -> np.ndarray:
            assert frame.columns == list(self.feature_names_in_)
            return (frame.array[:, 0] > 0.5).astype(int)

    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    assert targets.sklearn(Named(), output="labels").labels(torch.from_numpy(x)).shape == (400,)


def test_boosting_libraries_are_not_imported() -> None:
    code = ("import sys, numpy as np; from sklearn.linear_model import LogisticRegression as L; from assay import targets;"
            "targets.sklearn(L().fit(np.eye(2), [0, 1])); assert not {'xgboost', 'lightgbm', 'pandas'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
