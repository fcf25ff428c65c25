"""Examples and their labels, held together with a name and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.data.checks import check_finite, check_lengths, check_range
from assay.data.labels import encode
from assay.data.shape import Layout, Scale, check_options, inputs
from assay.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples with their labels.

    Attributes:
        x: float32; images ``[N, C, H, W]``, tables ``[N, D]``.
        y: int64 ``[N]``, class numbers from 0.
        name: what to call it in a report, usually the spec it was loaded by.
        classes: the class names in the order of their numbers, where they are known.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    name: str
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, x {self.x.dtype}{list(self.x.shape)}, y {self.y.dtype}{list(self.y.shape)})"

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, over the bytes, shape and dtype of ``x`` and ``y``; the same on any machine.

        Names do not enter. It is computed at each call, so that it tells what the arrays hold now.
        """
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            portable = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{portable.dtype.str}{list(array.shape)};".encode())
            digest.update(portable.reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def arrays(x: ArrayLike, y: ArrayLike, *, name: str = "arrays", classes: Sequence[str] | None = None,
           scale: Scale = "unit", layout: Layout = "keep") -> Dataset:
    """A dataset from arrays in memory, copied.

    Args:
        x: ``[N, ...]``, numbers, already in the order the target takes them unless ``layout`` says otherwise.
        y: ``[N]`` or ``[N, 1]``: whole numbers from 0, or names.
        name: what to call it.
        classes: the class names in the order of their numbers; without it, text labels are numbered in sorted order.
        scale: ``"unit"`` divides uint8 arrays of three axes or more by 255, ``"none"`` leaves them.
        layout: ``"keep"``, or ``"nchw"``, ``"nhwc"``, ``"auto"`` as :func:`assay.data.load` reads them.

    Raises:
        DataError: DAT105, DAT109 ... DAT114, DAT118, DAT120 as :func:`assay.data.load`.
    """
    order = None if classes is None else tuple(classes)
    check_options(scale, layout, order)
    labels, order = encode(_array(y, "labels", name), order, where=name)
    return build(_array(x, "inputs", name), labels, order, name=name, where=name, scale=scale, layout=layout)


def build(x: NDArray[np.generic], y: NDArray[np.int64], classes: tuple[str, ...] | None, *, name: str, where: str,
          scale: Scale, layout: Layout, first: int = 0, columns: tuple[str, ...] = ()) -> Dataset:
    """Arrange, scale and check raw inputs ``[N, ...]`` and encoded labels ``[N]`` into a dataset.

    ``first`` is the row number in the file of row 0 here, and ``columns`` the names of the columns of a table:
    both only for the errors, which are DAT105, DAT109 ... DAT112 and DAT114.
    """
    check_lengths(x, y, where=where)
    ready = inputs(x, scale=scale, layout=layout, where=where)
    check_finite(ready, where=where, first=first, columns=columns)
    check_range(y, None if classes is None else len(classes), where=where, first=first)
    return Dataset(ready, y, name, classes)


def _array(values: ArrayLike, role: str, name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError("DAT109", f"the {role} do not form one array: {error}", where=name) from error
