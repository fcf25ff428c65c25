"""Whether examples are what they should be; every refusal names the first offending row and how many there are."""

from __future__ import annotations

from assay.data.checks import check_bounds, check_finite, check_lengths, check_range
from assay.data.dataset import Dataset
from assay.errors import DataError


def validate(data: Dataset, *, bounds: tuple[float, float] | None, classes: int | None) -> None:
    """Refuse examples that are not what the target was declared to take.

    Args:
        data: inputs ``[N, ...]`` and labels ``[N]``; rows in the errors count from 0 within ``data``.
        bounds: the least and greatest value an input may hold, both allowed, compared in float32; ``None``
            leaves values unbounded, though never NaN or infinite.
        classes: labels must lie in 0 ... ``classes``-1; ``None`` takes ``len(data.classes)`` where there are names.

    Raises:
        DataError: DAT105 no rows, DAT110 inputs that are not floats, DAT111 NaN or infinity, DAT112 lengths,
            DAT113 labels that are not ``[N]`` integers, DAT114 labels out of range, DAT115 bounds.
    """
    x, y, where = data.x, data.y, data.name
    if x.dtype.kind != "f":
        raise DataError("DAT110", f"the inputs must be floats; their type is {x.dtype}", where=where)
    if y.dtype.kind != "i" or y.ndim != 1:
        raise DataError("DAT113", f"labels must be int64 of shape [N]; they are {y.dtype} of shape {y.shape}",
                        where=where)
    check_lengths(x, y, where=where)
    check_finite(x, where=where)
    check_range(y, len(data.classes) if classes is None and data.classes is not None else classes, where=where)
    if bounds is not None:
        check_bounds(x, bounds, where=where)
