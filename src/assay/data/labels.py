"""From labels as they are stored to class numbers: whole numbers stay, names get their place in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.data.checks import tally
from assay.errors import DataError, nearest


def encode(values: NDArray[Any], classes: tuple[str, ...] | None, *, where: str,
           first: int = 0) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Labels as int64 ``[N]``, and the class names in the order of their numbers where there are names.

    Text none of which reads as a number is names: numbered by ``classes``, or else by their sorted order. Text
    that reads as numbers, floats and booleans must be whole. Range is :func:`assay.data.checks.check_range`'s.

    Args:
        values: ``[N]`` or ``[N, 1]``; integers, booleans, whole floats, or text.
        classes: names in the order of their numbers, when the caller knows them.
        where, first: the file and the number of its first row here, for the errors.

    Raises:
        DataError: DAT113 a label that is not whole or not ``[N]``, DAT118 a name that ``classes`` lacks, or
            names whose order is ambiguous.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError("DAT113", f"labels must have shape [N], one whole number a row; got {values.shape}",
                        where=where)
    if values.dtype.kind == "U":
        return _text(values, classes, where, first)
    if values.dtype.kind not in "biuf":
        raise DataError("DAT113", f"labels must be whole numbers; their type is {values.dtype}", where=where)
    return _whole(values, where, first), classes


def number_names(names: list[str], classes: tuple[str, ...] | None, *, where: str) -> tuple[str, ...]:
    """The class names in the order of their numbers: ``classes`` as given, or ``names`` sorted as text.

    Raises:
        DataError: DAT118 when ``classes`` lacks one of the names, or when all names are digits and sorting them
            as text (2 after 10) and as numbers would number them differently.
    """
    distinct = sorted(set(names))
    if classes is not None:
        for name in distinct:
            if name not in classes:
                raise DataError("DAT118", f"class {name!r} is not among the {len(classes)} declared classes"
                                          f"{nearest(name, classes)}", where=where)
        return classes
    if all(name.isdecimal() for name in distinct) and distinct != sorted(distinct, key=int):
        raise DataError("DAT118", f"the {len(distinct)} class names are numbers that sort differently as text "
                                  f"({', '.join(distinct[:4])}, ...) and by value", where=where)
    return tuple(distinct)


def _text(values: NDArray[Any], classes: tuple[str, ...] | None, where: str,
          first: int) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    texts = [str(value) for value in values]
    numbers = [_number(text) for text in texts]
    if all(number is None for number in numbers) or (classes is not None and set(texts) <= set(classes)):
        order = number_names(texts, classes, where=where)
        place = {name: i for i, name in enumerate(order)}
        return np.array([place[text] for text in texts], dtype=np.int64), order
    for row, number in enumerate(numbers):
        if number is None:
            raise DataError("DAT113", f"label {texts[row]!r} at row {row + first} (from 0) is not a whole number, "
                                      "though others are", where=f"{where}, row {row + first}")
    return _whole(np.array(numbers, dtype=np.float64), where, first), classes


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(values: NDArray[Any], where: str, first: int) -> NDArray[np.int64]:
    # Beyond 2**53 a float no longer tells neighbors apart, and beyond 2**63 an integer would wrap around.
    bad = np.zeros(len(values), dtype=np.bool_)
    if values.dtype.kind == "f":
        bad = ~(np.isfinite(values) & (np.floor(values) == values) & (np.abs(values) < 2.0**53))
    elif values.dtype.kind == "u":
        bad = values > np.uint64(2**63 - 1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError("DAT113", f"{tally(bad)} not a whole number: {values[row].item()!r} at row {row + first} "
                                  "(from 0)", where=f"{where}, row {row + first}")
    return values.astype(np.int64)
