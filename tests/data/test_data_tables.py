"""CSV and Parquet: exact values, the choice of columns, and the row and column of every bad cell."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from assay.data import load
from assay.errors import ConfigError

CSV = "age,income,target\n39,1.5,1\n50,-2e3,0\n\n38,0.25,1\n"


@pytest.fixture
def csv_file(tmp_path: Path):
    def write(text: str, name: str = "d.csv") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_csv_round_trip(csv_file) -> None:
    for text in (CSV, "\ufeff" + CSV.replace(",", ", ").replace("\n", "\r\n")):
        data = load("d.csv#label=target", base=csv_file(text))
        np.testing.assert_array_equal(data.x, np.array([[39, 1.5], [50, -2000], [38, 0.25]], np.float32))
        np.testing.assert_array_equal(data.y, [1, 0, 1])
        assert data.classes is None
    np.testing.assert_array_equal(load("d.csv[1:]", base=csv_file(CSV)).x, [[50, -2000], [38, 0.25]])
    base = csv_file(CSV.replace(",", "\t"), "d.tsv")
    np.testing.assert_array_equal(load("d.tsv#label=age&input=target,income", base=base).x, [[1, 1.5], [0, -2000], [1, 0.25]])
    np.testing.assert_array_equal(load("d.tsv#label=age", base=base).y, [39, 50, 38])


def test_csv_labels_may_be_names(csv_file) -> None:
    base = csv_file("a,label\n1,<=50K\n2,>50K\n3,<=50K\n4,none\n")
    data = load("d.csv[1:3]", base=base)
    np.testing.assert_array_equal(data.y, [1, 0])
    assert data.classes == ("<=50K", ">50K", "none")
    assert load("d.csv", base=base, classes=("none", ">50K", "<=50K")).y.tolist() == [2, 1, 2, 0]


@pytest.mark.parametrize(("text", "spec", "code", "parts"), [
    (CSV.replace("0.25", "n/a"), "d.csv", "DAT110", ["'n/a'", "column 'income'", "row 2 (from 0)", "line 5"]),
    (CSV.replace("-2e3", ""), "d.csv", "DAT110", ["''", "column 'income'", "row 1", "line 3"]),
    (CSV.replace("50", "5_0"), "d.csv", "DAT110", ["'5_0'", "column 'age'"]),
    (CSV.replace("1.5", "nan"), "d.csv", "DAT111", ["'nan'", "column 'income'", "row 0", "line 2"]),
    (CSV.replace("1.5", "1e300"), "d.csv", "DAT111", ["row 0 (from 0), column 'income'", "inf", "float32"]),
    (CSV.replace(",0\n", ",0.5\n"), "d.csv", "DAT113", ["0.5", "row 1", "column 'target'"]),
    (CSV.replace(",0\n", ",\n"), "d.csv", "DAT113", ["''", "row 1"]),
    (CSV.replace(",0\n", ",-1\n"), "d.csv", "DAT114", ["label -1", "row 1"]),
    (CSV.replace("50,", ""), "d.csv", "DAT106", ["row 1 (from 0) has 2 cells; the header has 3", "line 3"]),
    (CSV, "d.csv#label=tarjet", "DAT108", ["no column 'tarjet'", "age, income, target", "did you mean 'target'?"]),
    (CSV, "d.csv#input=ages", "DAT108", ["no column 'ages'", "did you mean 'age'?"]),
    (CSV, "d.csv#input=age,target", "DAT108", ["distinct columns other than 'target'", "age, target"]),
    (CSV.replace("target", "outcome"), "d.csv", "DAT108", ["no column is known", "age, income, outcome", "#label="]),
    (CSV.replace("age", "label"), "d.csv", "DAT108", ["several columns could be", "label, target"]),
    (CSV.replace("age", "income"), "d.csv", "DAT108", ["repeated: income"]),
    ("", "d.csv", "DAT108", ["no header"]),
    ("label\n1\n", "d.csv", "DAT108", ["got none"]),
    ("a,label\n", "d.csv", "DAT105", ["none of 0 rows"]),
    ('a,label\n"1,0\n', "d.csv", "DAT106", ["cannot be read"]),
    (CSV, "d.csv#test", "DAT104", ["no split 'test'", "holds no splits"]),
    (CSV, "d.csv[3:]", "DAT105", ["[3:] selects none of 3 rows"]),
])
def test_bad_csv_files_are_refused(csv_file, refuses, text: str, spec: str, code: str, parts: list[str]) -> None:
    with refuses(code, "d.csv", *parts):
        load(spec, base=csv_file(text))


def test_a_csv_file_in_another_encoding_is_refused(tmp_path: Path, refuses) -> None:
    (tmp_path / "d.csv").write_bytes("é,label\n1,0\n".encode("latin-1"))
    with refuses("DAT106", "utf-8", "d.csv"):
        load("d.csv", base=tmp_path)


@pytest.fixture
def parquet(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(**columns: object) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "d.parquet", row_group_size=2)
        return tmp_path

    return write


def test_parquet_round_trip(parquet) -> None:
    base = parquet(a=[1, 2, 3, 4, 5], b=[0.5, 1.5, 2.5, 3.5, 4.5], c=[True, False, True, True, False], label=[0, 1, 0, 2, 1])
    data = load("d.parquet[1:4]", base=base)
    np.testing.assert_array_equal(data.x, [[2, 1.5, 0], [3, 2.5, 1], [4, 3.5, 1]])
    np.testing.assert_array_equal(data.y, [1, 0, 2])
    np.testing.assert_array_equal(load("parquet:d.parquet#label=a&input=b", base=base).y, [1, 2, 3, 4, 5])
    named = load("d.parquet", base=parquet(a=[1, 2, 3], label=["x", "z", "x"]))
    assert (named.y.tolist(), named.classes) == ([0, 1, 0], ("x", "z"))


@pytest.mark.parametrize(("columns", "code", "parts"), [
    ({"a": [1, 2, None], "label": [0, 1, 1]}, "DAT111", ["1 cells of column 'a' are missing", "row 2", "row 2"]),
    ({"a": [1.0, 2.0, float("nan")], "label": [0, 1, 1]}, "DAT111", ["row 2 (from 0), column 'a'", "nan"]),
    ({"a": ["p", "q", "r"], "label": [0, 1, 1]}, "DAT110", ["column 'a' is string"]),
    ({"a": [1, 2, 3], "label": [0, None, 1]}, "DAT113", ["1 labels in column 'label'", "row 1"]),
    ({"a": [1, 2, 3], "label": [0.0, 0.5, 1.0]}, "DAT113", ["0.5", "row 1", "column 'label'"]),
    ({"a": [1, 2, 3], "label": [[0], [1], [2]]}, "DAT113", ["column 'label' is list"]),
    ({"a": [1, 2, 3], "label": [0, -1, 1]}, "DAT114", ["label -1", "row 1"]),
    ({"a": [1, 2, 3], "b": [1, 1, 1]}, "DAT108", ["no column is known", "a, b"]),
])
def test_bad_parquet_files_are_refused(parquet, refuses, columns: dict[str, list[object]], code: str,
                                       parts: list[str]) -> None:
    with refuses(code, "d.parquet", *parts):
        load("d.parquet", base=parquet(**columns))


def test_a_damaged_parquet_file_is_refused(parquet, refuses) -> None:
    path = parquet(a=[1], label=[0]) / "d.parquet"
    whole = path.read_bytes()
    for content in (whole[:-6], b"", whole.replace(b"label", b"\xa2abel")):
        path.write_bytes(content)
        with refuses("DAT106", "pyarrow cannot read the file", "d.parquet"):
            load(str(path))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'assay\[parquet\]'"):
        load("parquet:d.parquet", base=tmp_path)
