"""Valid changes of records: held to enumeration on small tables, and to a form's own rules on census data."""

from __future__ import annotations

import csv
import os
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from torch import Tensor

from assay import targets
from assay.errors import ConfigError
from assay.evasion import EvasionGame, Linf, Records, RecordSearch, Schema
from assay.evasion.records import Exclusive, Field, Observed
from assay.numerics.seeds import Stream
from assay.targets.base import Bounds

NOWHERE = float("inf")


def run(target: Any, x: Tensor, y: Tensor, budget: Any, attack: RecordSearch, **threat: Any) -> tuple[Tensor, Any]:
    view = budget.threat(**{"access": "scores", **threat}).grant(target, len(x))
    return attack.perturb(view, x, y, budget, Stream.seeded(0, torch.arange(len(x)))), view


# --- small tables: everything can be enumerated ----------------------------------------------------------------------


def table(seed: int) -> tuple[Any, Schema, Tensor]:
    """Records of two numbers (one may only grow), two categories that depend on each other, and a fixed one."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, 300)
    x = np.stack([rng.integers(0, 6, 300), rng.integers(0, 6, 300), kind, kind % 2 + (rng.random(300) < 0.2),
                  rng.integers(0, 2, 300)], 1).astype(float)
    y = (x @ rng.normal(size=5) + rng.normal(size=300) > 0).astype(int)
    forest = RandomForestClassifier(9, max_depth=6, random_state=seed).fit(x, y)
    schema = Schema.learn(x, list("abcde"), categories=["c", "d", "e"], fixed=["e"], grows=["a"], dependent=[("c", "d")],
                          exclusive=[("a", "b")], least=5)
    return targets.sklearn(forest, bounds=(0, 5)), schema, torch.from_numpy(x[:24])


def enumerated(schema: Schema, x: Tensor) -> Tensor:
    """Every record that may be made of ``x``, by the words of the declaration, not by the schema's code."""
    seen = {rule.fields: set(rule.combinations) for rule in schema.rules if isinstance(rule, Observed)}[("c", "d")]
    rows = []
    for a, b, c, d in product(range(6), range(6), range(4), range(3)):
        moved = (a, b) != (x[0], x[1])
        if a < x[0] or (moved and a and b) or ((c, d) != (x[2], x[3]) and (c, d) not in seen):
            continue
        rows.append([a, b, c, d, float(x[4])])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_a_small_table_is_searched_as_enumeration_would(seed: int) -> None:
    target, schema, x = table(seed)
    y = target.labels(x)
    attack = RecordSearch(queries=3000, beam=64)
    nearest, _ = run(target, x, y, Records(NOWHERE, schema), attack)
    within = {k: run(target, x, y, Records(k, schema), attack)[0] for k in (1, 2)}
    for row in range(len(x)):
        valid = enumerated(schema, x[row])
        allowed = Records(9, schema).contains(valid, x[row].expand_as(valid), Bounds(0, 5))
        assert bool(allowed.all())
        errs = valid[target.labels(valid) != y[row]]
        count = (errs != x[row]).sum(1)
        fewest = int(count.min()) if len(errs) else 0
        assert int((nearest[row] != x[row]).sum()) == fewest
        if fewest:
            effort = schema.effort(errs[count == fewest], x[row].expand_as(errs[count == fewest])).sum(1).min()
            mine = schema.effort(nearest[row : row + 1], x[row : row + 1]).sum()
            assert float(mine) <= float(effort) + 0.25  # of one number's range: another field may have been chosen
        for k, z in within.items():
            assert bool((z[row] != x[row]).any()) == (0 < fewest <= k)
            assert not fewest or bool((errs == z[row]).all(1).any()) or fewest > k


def test_queries_are_honored_exactly_and_used() -> None:
    target, schema, x = table(1)
    y = target.labels(x)
    for queries in (0, 1, 7, 60):
        z, view = run(target, x, y, Records(3, schema), RecordSearch(), queries=queries)
        stands = target.labels(z) == y
        assert int(view.meter.queries.max()) <= queries
        assert bool((view.meter.queries[stands] == queries).all())
    few, many = (run(target, x, y, Records(3, schema), RecordSearch(queries=n))[0] for n in (10, 300))
    assert int((target.labels(many) != y).sum()) > int((target.labels(few) != y).sum())


def test_thresholds_are_tried_where_the_trees_are_granted() -> None:
    """A notch between two quantiles: by scores alone it is not among what is tried."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.random((4000, 2)), np.stack([rng.uniform(0.5, 0.5001, 40), rng.random(40)], 1)])
    y = (np.arange(len(x)) >= 4000).astype(int)
    forest = RandomForestClassifier(5, max_features=None, bootstrap=False, random_state=0).fit(x, y)
    target, schema = targets.sklearn(forest), Schema.learn(x[:4000], ["a", "b"], fixed=["b"], values=8)
    rows = torch.from_numpy(x[:20])
    label = target.labels(rows)
    blind, _ = run(target, rows, label, Records(1, schema), RecordSearch(queries=200))
    seeing, _ = run(target, rows, label, Records(1, schema), RecordSearch(queries=200), access="weights")
    assert torch.equal(blind, rows)
    assert bool((target.labels(seeing) != label).all())


def test_other_budgets_are_refused() -> None:
    target, _, x = table(0)
    with pytest.raises(ConfigError, match="ATK151"):
        run(target, x, target.labels(x), Linf(0.1), RecordSearch())


# --- the budget ------------------------------------------------------------------------------------------------------


def test_projection_and_random_records_are_valid() -> None:
    _, schema, x = table(2)
    generator = torch.Generator().manual_seed(0)
    for k in (0, 1, 2, 5):
        budget = Records(k, schema)
        far = x + 4 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for z in (budget.project(far, x, Bounds(0, 5)), budget.random(x, Bounds(0, 5), Stream.seeded(k, torch.arange(24)))):
            assert bool(budget.contains(z, x, Bounds(0, 5)).all())
            for row in range(len(x)):
                assert bool((enumerated(schema, x[row]) == z[row]).all(1).any())
        assert bool((budget.project(far, x, Bounds(0, 5)) != x).any() == (k > 0))
        assert torch.equal(budget.project(x, x, Bounds(0, 5)), x)


@pytest.mark.parametrize(("change", "valid"), [
    ({"age": 31.0}, True), ({"age": 29.0}, False), ({"age": 30.5}, False), ({"age": 91.0}, False), ({"sex": 1.0}, False),
    ({"job": 3.0}, False), ({"job": 1.0}, False), ({"job": 1.0, "office": 1.0}, True), ({"gain": 5.0}, True),
    ({"gain": 5.0, "loss": 5.0}, False), ({"pay": 0.123}, True), ({}, True),
])
def test_what_a_form_would_take(change: dict[str, float], valid: bool) -> None:
    schema = Schema(
        (Field(name="age", kind="number", lower=17, upper=90, step=1, direction=1),
         Field(name="sex", kind="category", lower=0, upper=1, values=(0.0, 1.0), fixed=True),
         Field(name="job", kind="category", lower=0, upper=2, values=(0.0, 1.0, 2.0)),
         Field(name="office", kind="category", lower=0, upper=2, values=(0.0, 1.0, 2.0)),
         Field(name="gain", kind="number", lower=0, upper=9, step=1), Field(name="loss", kind="number", lower=0, upper=9, step=1),
         Field(name="pay", kind="number", lower=0, upper=1)),
        (Observed(("job", "office"), ((0.0, 0.0), (1.0, 1.0), (2.0, 0.0))), Exclusive(("gain", "loss"))),
    )
    names = [f.name for f in schema.fields]
    x = torch.tensor([[30.0, 0, 0, 0, 0, 0, 0.5]], dtype=torch.float64)
    z = x.clone()
    for name, value in change.items():
        z[0, names.index(name)] = value
    assert bool(Records(2, schema).contains(z, x, Bounds(0, 100))) is valid
    assert bool(Records(len(change) - 1 if change else 0, schema).contains(z, x, Bounds(0, 100))) is (not change)


def test_names_that_no_column_has() -> None:
    x = np.zeros((3, 2))
    for wrong in ({"fixed": ["c"]}, {"dependent": [("a", "c")]}, {"exclusive": [("a", "c")]}):
        with pytest.raises(ConfigError, match="THR130"):
            Schema.learn(x, ["a", "b"], **wrong)
    with pytest.raises(ConfigError, match="THR130"):
        Schema.learn(x, ["a", "b", "c"])


# --- census data: the adversarial record is one that a real form would accept -----------------------------------------

CENSUS = "datasets/adult/adult.csv"
NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
PROTECTED = ("race", "sex", "native-country", "fnlwgt")
"""What the person filling in the form cannot change (the census' own weight among them)."""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    root = os.environ.get("ASSAY_ASSETS", "")
    path = Path(root) / CENSUS
    if not root or not path.exists():
        pytest.skip(f"{CENSUS} is not here (ASSAY_ASSETS)")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, skipinitialspace=True))


class Census:
    """The table as numbers: numbers as they are, categories as codes in alphabetical order."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.names = [name for name in rows[0] if name != "income-per-year"]
        self.codes = {name: sorted({row[name] for row in rows}) for name in self.names if name not in NUMBERS}
        index = {name: {word: i for i, word in enumerate(words)} for name, words in self.codes.items()}
        self.x = np.array([[index[n][row[n]] if n in index else float(row[n]) for n in self.names] for row in rows])
        self.y = np.array([row["income-per-year"] == ">50K" for row in rows]).astype(np.int64)

    def written(self, row: np.ndarray) -> dict[str, str]:
        """A row as it would stand in the form."""
        return {name: self.codes[name][int(v)] if name in self.codes else repr(float(v)).removesuffix(".0")
                for name, v in zip(self.names, row)}

    def schema(self, sealed: tuple[str, ...] = ()) -> Schema:
        return Schema.learn(
            self.x, self.names, categories=list(self.codes), fixed=(*PROTECTED, *sealed), grows=["age"],
            dependent=[("education", "education-num"), ("marital-status", "relationship", "sex"), ("workclass", "occupation")],
            exclusive=[("capital-gain", "capital-loss")], least=5,
        )


class Clerk:
    """Somebody with the published table, and nothing of Assay, who looks through a record before taking it."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self.known = {name: {row[name] for row in rows} for name in rows[0]}
        self.range = {name: (min(map(int, self.known[name])), max(map(int, self.known[name]))) for name in NUMBERS}
        self.level = {row["education"]: row["education-num"] for row in rows}

    def complaints(self, new: dict[str, str], old: dict[str, str], changes: int) -> list[str]:
        """What is wrong with the record ``new`` of somebody whose record was ``old``."""
        said = []
        changed = {name for name in new if new[name] != old[name]}
        if len(changed) > changes:
            said.append(f"{len(changed)} fields changed")
        said += [f"{name} was changed" for name in changed & {*PROTECTED}]
        for name in new:
            if name not in NUMBERS and new[name] not in self.known[name]:
                said.append(f"{name} cannot be {new[name]}")
            if name in NUMBERS and not (new[name].isdigit() and self.range[name][0] <= int(new[name]) <= self.range[name][1]):
                said.append(f"{name} cannot be {new[name]}")
        if float(new["age"]) < float(old["age"]):
            said.append("nobody gets younger")
        if float(new["capital-gain"]) > 0 < float(new["capital-loss"]):
            said.append("gain and loss")
        if self.level[new["education"]] != new["education-num"]:
            said.append(f"{new['education']} is not level {new['education-num']}")
        if {"marital-status", "relationship"} & changed:
            spouse = {"Husband": "Male", "Wife": "Female"}.get(new["relationship"])
            if spouse and (new["sex"] != spouse or new["marital-status"] not in ("Married-civ-spouse", "Married-AF-spouse")):
                said.append(f"a {new['sex']} {new['relationship']} who is {new['marital-status']}")
        if {"workclass", "occupation"} & changed and new["workclass"] == "Never-worked" and new["occupation"] != "?":
            said.append("an occupation of somebody who never worked")
        return said


def boosted(library: str) -> Any:
    if library == "xgboost":
        return pytest.importorskip("xgboost", reason="xgboost is not installed").XGBClassifier(
            n_estimators=80, max_depth=5, n_jobs=1, random_state=0)
    return HistGradientBoostingClassifier(max_iter=80, random_state=0)


SEALED = ("capital-gain", "capital-loss")


@pytest.mark.slow
@pytest.mark.parametrize(("library", "sealed", "reported"), [
    ("sklearn", (), (78, 88, 88)), ("xgboost", (), (85, 89, 89)),
    ("sklearn", SEALED, (16, 38, 64)), ("xgboost", SEALED, (22, 47, 76)),
])
def test_census_records_pass_at_the_counter(
    rows: list[dict[str, str]], library: str, sealed: tuple[str, ...], reported: tuple[int, ...]
) -> None:
    """Of 100 held-out people, how many get the other answer by changing 1, 2 or 3 fields, every record valid.

    With and without the two fields for which a tax office has papers. The models have 88 and 89 of the people right
    (scikit-learn 1.9.1, xgboost 3.2.0); the counts are this attack's own, 2026-11, and leave room for other versions.
    """
    census = Census(rows)
    held = np.arange(len(rows)) % 10 == 0
    model = boosted(library).fit(census.x[~held], census.y[~held])
    target = targets.sklearn(model, bounds=(0, 1_500_000))
    x, y = census.x[held][:100], census.y[held][:100]
    game = EvasionGame(x, y, threat=Records(3, census.schema(sealed)).threat(access="scores", queries=3000), curve=(1, 2))
    found = game.play(RecordSearch(queries=1000), target, seed=0)
    assert found.kind == "played", found
    stored = found.artefacts["adversarial"].arrays
    assert len(stored["index"]) > 0
    original, clerk = [row for row, kept in zip(rows, held) if kept], Clerk(rows)
    for index, z, radius in zip(stored["index"], stored["x"], stored["radius"]):
        old = {name: original[index][name] for name in census.names}
        assert clerk.complaints(census.written(z), old, int(radius)) == []
        assert not {*sealed} & {name for name, word in census.written(z).items() if word != old[name]}
    assert all(doubt.code != "DBT107" for doubt in found.doubts)
    fallen = tuple(int((stored["radius"] <= k).sum()) for k in (1, 2, 3))
    assert all(abs(mine - said) <= 6 for mine, said in zip(fallen, reported)), fallen


def test_the_clerk_is_not_asleep(rows: list[dict[str, str]]) -> None:
    old = {name: value for name, value in rows[0].items() if name != "income-per-year"}
    clerk = Clerk(rows)
    wrong = [{"age": "38"}, {"age": "39.5"}, {"sex": "Female"}, {"education": "Masters"}, {"capital-loss": "100"},
             {"relationship": "Husband"}, {"workclass": "Unheard-of"}, {"hours-per-week": "120"}]
    for change in wrong:
        assert clerk.complaints({**old, **change}, old, 1), change
    for first, second in combinations(wrong, 2):
        assert clerk.complaints({**old, **first, **second}, old, 2)
    assert clerk.complaints({**old, "age": "40"}, old, 1) == []
