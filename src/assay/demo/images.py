"""The digits that scikit-learn carries in its wheel: 1797 handwritten ones, 8 × 8 pixels."""

from __future__ import annotations

from functools import cache
from typing import Final

import torch
from torch import Tensor

from assay.data.spec import parse
from assay.errors import DataError, nearest

TRAIN: Final = 1297
"""How many digits are for training; the other 500 are for testing."""
_LEVELS: Final = 16
"""The brightest pixel of the set."""


def digits(spec: str = "test") -> tuple[Tensor, Tensor]:
    """Digits and what they show; the split is the same on every machine.

    Source: Alpaydin & Kaynak, 1998, "Optical recognition of handwritten digits", UCI (CC BY 4.0).

    Args:
        spec: ``"train"`` (1297 digits) or ``"test"`` (500), and where wanted the rows: ``"test[:50]"``.

    Returns:
        ``x``, float32 ``[n, 1, 8, 8]`` in [0, 1], and ``y``, int64 ``[n]``; both are the caller's own.

    Raises:
        DataError: DAT101, DAT104 or DAT105 where the spec cannot be read, names no split or selects nothing.

    Example:
        >>> from assay import demo
        >>> x, y = demo.digits("test[:50]")
        >>> tuple(x.shape), y[:5].tolist()
        ((50, 1, 8, 8), [3, 0, 7, 1, 3])
    """
    parsed = parse(spec)
    splits = {"train": slice(None, TRAIN), "test": slice(TRAIN, None)}
    if parsed.path not in splits:
        raise DataError("DAT104", f"the demo digits have no split {parsed.path!r}{nearest(parsed.path, splits)}",
                        fix="Name train or test.")
    x, y = (part[splits[parsed.path]][parsed.start:parsed.stop] for part in _shuffled())
    if not len(y):
        raise DataError("DAT105", f"{spec!r} selects none of the demo digits")
    return x.clone(), y.clone()


@cache
def _shuffled() -> tuple[Tensor, Tensor]:
    """All digits in one fixed random order, which the two splits cut."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(bunch.images / _LEVELS, dtype=torch.float32).unsqueeze(1)
    return x[order].contiguous(), torch.as_tensor(bunch.target, dtype=torch.int64)[order]
