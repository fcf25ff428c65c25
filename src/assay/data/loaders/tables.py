"""Tables of numbers with a column of labels: CSV through the standard library, Parquet through pyarrow."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay.data.labels import encode
from assay.data.loaders.source import Raw, Source, missing_split
from assay.errors import DataError, missing_extra, nearest

_LABELS: Final = ("label", "target", "y", "class")


def load_csv(source: Source) -> Raw:
    """A CSV file with a header (tabs in a ``.tsv``): ``label=`` names the labels, ``input=`` the features.

    Without ``input=``, all other columns are features; without ``label=``, the one column called
    label, target, y or class is taken. Features must be numbers.

    Raises:
        DataError: DAT101, DAT103 ... DAT106, DAT108, DAT110, DAT111, DAT113, DAT118; rows count from 0 below the
            header, lines from 1 with it.
    """
    path = _file(source)
    header, lines, cells = _read_csv(path)
    label, columns = choose(header, source.spec.label, source.inputs, str(path))
    at = header.index(label)
    labels = np.array([row[at] for row in cells], dtype=np.str_)
    y, classes = encode(labels, source.classes, where=f"{path}, column {label!r}")
    rows = source.rows(len(cells), str(path))
    x = np.empty((rows.stop - rows.start, len(columns)), dtype=np.float64)
    places = [(header.index(column), column) for column in columns]
    for row in range(rows.start, rows.stop):
        for j, (place, column) in enumerate(places):
            x[row - rows.start, j] = _number(cells[row][place], path, row, lines[row], column)
    return Raw(x, y[rows], str(path), classes, rows.start, tuple(columns))


def load_parquet(source: Source) -> Raw:
    """A Parquet file; columns are chosen as in :func:`load_csv`.

    Raises:
        ConfigError: CFG110 when pyarrow is not installed.
        DataError: DAT101, DAT103 ... DAT106, DAT108, DAT110, DAT111, DAT113, DAT118.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_extra("pyarrow", "parquet") from None
    path = _file(source)
    try:
        table = pq.read_table(path)
        table.validate(full=True)
        header = [str(name) for name in table.column_names]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError("DAT106", f"pyarrow cannot read the file: {error}", where=str(path)) from error
    _distinct(header, str(path))
    label, columns = choose(header, source.spec.label, source.inputs, str(path))
    y, classes = encode(_labels(table.column(label), label, path), source.classes, where=f"{path}, column {label!r}")
    rows = source.rows(table.num_rows, str(path))
    cut = table.slice(rows.start, rows.stop - rows.start)
    x = np.stack([_feature(cut.column(column), column, path, rows.start) for column in columns], axis=1)
    return Raw(x, y[rows], str(path), classes, rows.start, tuple(columns))


def choose(header: list[str], label: str | None, inputs: list[str], where: str) -> tuple[str, list[str]]:
    """The column of the labels and those of the features, checked against the table's header.

    Args:
        header: every column.
        label: the labels' column; ``None`` takes the one called label, target, y or class.
        inputs: the features' columns; empty takes all but the labels.

    Raises:
        DataError: DAT108 when a column is missing, ambiguous or used twice.
    """
    if label is None:
        found = [name for name in header if name.lower() in _LABELS]
        if len(found) != 1:
            count = "several columns could be" if found else "no column is known to be"
            raise DataError("DAT108", f"{count} the label: {', '.join(found or header)}", where=where,
                            fix="Name it: #label=COLUMN.")
        label = found[0]
    inputs = inputs or [name for name in header if name != label]
    for name in (label, *inputs):
        if name not in header:
            raise DataError("DAT108", f"there is no column {name!r}; the columns are {', '.join(header)}"
                                      f"{nearest(name, header)}", where=where)
    if label in inputs or len(set(inputs)) != len(inputs) or not inputs:
        raise DataError("DAT108", f"the features must be distinct columns other than {label!r}, at least one; "
                                  f"got {', '.join(inputs) or 'none'}", where=where)
    return label, inputs


def _file(source: Source) -> Path:
    source.only("label", "input")
    path = source.locate(source.spec.path)
    if source.spec.split is not None:
        raise missing_split(source.spec.split, (), str(path))
    return path


def _read_csv(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """The header, and each row's line number and cells; blank lines are passed over."""
    header: list[str] = []
    lines: list[int] = []
    rows: list[list[str]] = []
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True, delimiter=delimiter)
            header = next(reader, [])
            for cells in reader:
                if cells:
                    lines.append(reader.line_num)
                    rows.append(cells)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("DAT106", f"the table cannot be read: {error}", where=str(path)) from error
    _distinct(header, str(path))
    for row, cells in enumerate(rows):
        if len(cells) != len(header):
            raise DataError("DAT106", f"row {row} (from 0) has {len(cells)} cells; the header has {len(header)}",
                            where=f"{path}, line {lines[row]}")
    return header, lines, rows


def _distinct(header: list[str], where: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or not header:
        raise DataError("DAT108", f"columns need distinct names; repeated: {', '.join(twice)}" if twice
                        else "the table has no header", where=where)


def _number(cell: str, path: Path, row: int, line: int, column: str) -> float:
    try:
        # Python's literals allow 1_000; in a table that is a typing error.
        value = float("" if "_" in cell else cell)
    except ValueError:
        raise DataError("DAT110", f"{cell!r} in column {column!r}, row {row} (from 0), is not a number",
                        where=f"{path}, line {line}") from None
    if not math.isfinite(value):
        raise DataError("DAT111", f"{cell!r} in column {column!r}, row {row} (from 0), is not finite",
                        where=f"{path}, line {line}")
    return value


def _labels(column: Any, label: str, path: Path) -> NDArray[Any]:
    import pyarrow as pa

    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise DataError("DAT113", f"{column.null_count:,} labels in column {label!r} are missing; "
                                  f"the first is row {row} (from 0)", where=f"{path}, row {row}")
    values = column.to_pylist()
    if values and isinstance(values[0], str):
        return np.array(values, dtype=np.str_)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError("DAT113", f"labels must be whole numbers or names; column {label!r} is {kind}", where=str(path))
    return np.array(values)


def _feature(column: Any, name: str, path: Path, first: int) -> NDArray[np.float64]:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError("DAT110", f"column {name!r} is {kind}, not numbers", where=str(path))
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + first
        raise DataError("DAT111", f"{column.null_count:,} cells of column {name!r} are missing; the first is row "
                                  f"{row} (from 0)", where=f"{path}, row {row}")
    values: NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values
