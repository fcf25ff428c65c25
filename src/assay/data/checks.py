"""The single checks on inputs and labels, each with its own code."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError


def check_lengths(x: NDArray[Any], y: NDArray[Any], *, where: str) -> None:
    """Refuse no rows (DAT105), or a different number of inputs ``[N, ...]`` and labels ``[N]`` (DAT112)."""
    if x.ndim == 0 or len(x) != len(y):
        count = "one value" if x.ndim == 0 else f"{len(x):,} inputs"
        raise DataError("DAT112", f"{count} but {len(y):,} labels", where=where)
    if len(x) == 0:
        raise DataError("DAT105", "there is not one row", where=where)


def check_finite(x: NDArray[Any], *, where: str, first: int = 0, columns: tuple[str, ...] = ()) -> None:
    """Refuse NaN and infinity in ``[N, ...]`` (DAT111); ``first`` is the file's row number of row 0."""
    finite = np.isfinite(x)
    if not finite.all():
        _refuse_values("DAT111", x, ~finite, "hold NaN or infinity", "every value must be finite in float32",
                       where, first, columns)


def check_bounds(x: NDArray[Any], bounds: tuple[float, float], *, where: str) -> None:
    """Refuse values of ``[N, ...]`` outside the closed interval ``bounds``, compared in float32 (DAT115)."""
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    outside = (x < low) | (x > high)
    if outside.any():
        found = f"the data spans [{x.min():.6g}, {x.max():.6g}]"
        _refuse_values("DAT115", x, outside, "leave the declared bounds",
                       f"every value must lie in [{bounds[0]:g}, {bounds[1]:g}]; {found}", where)


def check_range(y: NDArray[np.int64], classes: int | None, *, where: str, first: int = 0) -> None:
    """Refuse labels ``[N]`` below 0, or not below ``classes`` when that is known (DAT114)."""
    bad = y < 0 if classes is None else (y < 0) | (y >= classes)
    if bad.any():
        row = int(bad.argmax())
        allowed = "0 or more" if classes is None else f"in 0 ... {classes - 1} for {classes} classes"
        raise DataError("DAT114", f"{tally(bad)} out of range: label {int(y[row])} at row {row + first} (from 0); "
                                  f"labels must be {allowed}", where=f"{where}, row {row + first}")


def tally(bad: NDArray[np.bool_]) -> str:
    """``"3 of 100 labels are"``, with the right number of the verb."""
    count = int(bad.sum())
    return f"{count:,} of {len(bad):,} labels {'is' if count == 1 else 'are'}"


def _refuse_values(code: str, x: NDArray[Any], bad: NDArray[np.bool_], does: str, expected: str, where: str,
                   first: int = 0, columns: tuple[str, ...] = ()) -> None:
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    row = int(rows[0])
    index = tuple(int(i) for i in np.unravel_index(int(bad[row].argmax()), bad.shape[1:]))
    at = f"column {columns[index[0]]!r}" if columns else f"index {list(index)}"
    raise DataError(code, f"{len(rows):,} of {len(bad):,} rows {does}; the first is row {row + first} (from 0), "
                          f"{at}: {float(x[(row, *index)])!r}; {expected}", where=f"{where}, row {row + first}")
