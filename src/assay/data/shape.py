"""From arrays as they are stored to float32 as a network takes them: axis order and scale."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError, nearest

Scale = Literal["unit", "none"]
Layout = Literal["auto", "nchw", "nhwc", "keep"]

_CHANNELS: Final = (1, 3, 4)


def check_options(scale: str, layout: str, classes: tuple[str, ...] | None) -> None:
    """Refuse a scale, layout or list of class names that means nothing. Raises ``DataError`` DAT120."""
    for name, value, known in (("scale", scale, get_args(Scale)), ("layout", layout, get_args(Layout))):
        if value not in known:
            raise DataError("DAT120", f"{name} must be one of {', '.join(known)}; got {value!r}{nearest(value, known)}")
    if classes is not None:
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice or not classes:
            raise DataError("DAT120", f"classes must be distinct names, at least one; repeated: {twice}")


def inputs(x: NDArray[Any], *, scale: Scale, layout: Layout, where: str) -> NDArray[np.float32]:
    """The inputs as contiguous float32, a copy.

    Args:
        x: ``[N, D]``; or images ``[N, H, W]``, ``[N, C, H, W]``, ``[N, H, W, C]``; with ``layout="keep"``, any
            shape with at least two axes.
        scale: ``"unit"`` divides uint8 arrays of three axes or more by 255; nothing else is ever scaled.
        layout: the axis order of four-axis arrays. ``"auto"`` reads it from which of axes 1 and 3 is 1, 3 or 4
            long, and refuses when both or neither are. Three axes become ``[N, 1, H, W]`` unless ``"keep"``.
        where: the file, for the errors.

    Returns:
        ``[N, D]`` or ``[N, C, H, W]`` (or the shape given, with ``"keep"``).

    Raises:
        DataError: DAT110 when not numbers, DAT109 when the shape is none of these or ambiguous.
    """
    if x.dtype.kind not in "biuf":
        raise DataError("DAT110", f"the inputs must be numbers, but their type is {x.dtype}", where=where)
    pixels = x.dtype == np.uint8 and x.ndim >= 3
    x = _arrange(x, layout, where)
    # A float64 beyond float32's range becomes inf, which the check for finite values reports with its row.
    with np.errstate(over="ignore"):
        out = np.array(x, dtype=np.float32, order="C")
    if pixels and scale == "unit":
        out /= np.float32(255)
    return out


def _arrange(x: NDArray[Any], layout: Layout, where: str) -> NDArray[Any]:
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError("DAT109", f"inputs need a row axis and at least one value a row; got shape {x.shape}",
                        where=where)
    if layout == "keep" or x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise DataError("DAT109", f"images have 3 or 4 axes; got {x.ndim} in shape {x.shape}", where=where)
    return np.moveaxis(x, 3, 1) if _channels_last(x, layout, where) else x


def _channels_last(x: NDArray[Any], layout: Layout, where: str) -> bool:
    if layout != "auto":
        return layout == "nhwc"
    first, last = x.shape[1] in _CHANNELS, x.shape[3] in _CHANNELS
    if first == last:
        count = "both" if first else "neither"
        raise DataError("DAT109", f"shape {x.shape} does not say where its channels are: {count} of axis 1 "
                                  f"({x.shape[1]}) and axis 3 ({x.shape[3]}) could be 1, 3 or 4 channels", where=where)
    return last
