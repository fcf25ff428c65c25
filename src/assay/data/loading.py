"""From a spec to a dataset: which loader, which folder, and the checks every dataset passes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from assay.data.dataset import Dataset, build
from assay.data.loaders import KINDS
from assay.data.loaders.idx import idx_files
from assay.data.loaders.source import Source, existing, resolve
from assay.data.shape import Layout, Scale, check_options
from assay.data.spec import Spec, parse
from assay.errors import DataError, nearest

_SUFFIXES: Final = ((".npz", "npz"), (".npy", "npy"), (".csv", "csv"), (".tsv", "csv"), (".parquet", "parquet"))


def load(spec: str, *, base: Path | None = None, scale: Scale = "unit", layout: Layout = "auto",
         size: tuple[int, int] | None = None, classes: Sequence[str] | None = None) -> Dataset:
    """The dataset that a spec ``[kind:]path[#split][[start]:[stop]]`` names.

    Args:
        spec: ``mnist:folder#test[:1000]``, ``file.npz#test``, ``images-folder``, ``data.csv#label=target[:50]``,
            ``npy:x.npy,y.npy``, ``hf:org/name@revision#test``. A file that exists under the whole text is taken
            as it is; otherwise :func:`assay.data.spec.parse` has the grammar. A slice beyond the end stops there.
        base: the folder that relative paths start from; the working directory by default.
        scale: ``"unit"`` divides uint8 images by 255, ``"none"`` leaves 0 ... 255.
        layout: the axis order of four-axis arrays: ``"auto"`` reads it from the shape and refuses when it is
            ambiguous, ``"nchw"``, ``"nhwc"``, or ``"keep"`` to leave any shape as it is.
        size: ``(height, width)`` to resize image files to.
        classes: the class names in the order of their numbers; without it, names are numbered in sorted order.

    Returns:
        Float32 images ``[N, C, H, W]`` or rows ``[N, D]``, with int64 labels ``[N]`` from 0; all values finite.

    Raises:
        DataError: DAT101 ... DAT120, naming the file, the row and what was expected.
        ConfigError: CFG110 when the kind needs an optional dependency that is not installed.
    """
    order = None if classes is None else tuple(classes)
    check_options(scale, layout, order)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise DataError("DAT120", f"size must be (height, width), both at least 1; got {size!r}")
    folder = Path.cwd() if base is None else base
    parsed = _read(spec, folder)
    kind = parsed.kind or _infer(parsed, folder)
    raw = KINDS[kind](Source(parsed, folder, size, order))
    return build(raw.x, raw.y, raw.classes, name=spec, where=raw.where, scale=scale,
                 layout=raw.layout or layout, first=raw.first, columns=raw.columns)


def _read(text: str, base: Path) -> Spec:
    """The spec, except that a path that exists as it stands, '#' and '[' and all, is that path."""
    if text and os.path.exists(resolve(base, text)):
        return Spec(None, text)
    kind, colon, rest = text.partition(":")
    if colon and rest and kind in KINDS and os.path.exists(resolve(base, rest)):
        return Spec(kind, rest)
    spec = parse(text)
    if spec.kind is not None and spec.kind not in KINDS:
        raise DataError("DAT102", f"there is no kind of data {spec.kind!r}; the kinds are {', '.join(KINDS)}"
                                  f"{nearest(spec.kind, KINDS)}", where=text)
    return spec


def _infer(spec: Spec, base: Path) -> str:
    for suffix, kind in _SUFFIXES:
        if spec.path.lower().endswith(suffix):
            return kind
    path = existing(resolve(base, spec.path))
    if path.is_dir():
        return "idx" if idx_files(path) else "images"
    raise DataError("DAT102", f"nothing says what kind of data {path.name!r} is; the kinds are {', '.join(KINDS)}",
                    where=str(path), fix=f"Write the kind before the path, as in npz:{path.name}.")
