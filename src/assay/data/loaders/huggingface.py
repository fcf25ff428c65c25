"""Hugging Face datasets, from the hub at a named revision or from a local folder, through the ``datasets`` extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay.data.labels import encode
from assay.data.loaders.images import stack
from assay.data.loaders.source import Raw, Source, missing_split, resolve
from assay.data.loaders.tables import choose
from assay.errors import DataError, missing_extra

_SAVED: Final = ("dataset_dict.json", "state.json")


def load_huggingface(source: Source) -> Raw:
    """One split of ``org/name[@revision]``, or of a local folder, also one that ``save_to_disk`` wrote.

    Its one column of images, or its numeric columns, are the inputs, and its one ``ClassLabel`` the labels, unless
    ``input=`` and ``label=`` name columns. ``config=`` names a configuration.

    Raises:
        ConfigError: CFG110 when ``datasets`` is not installed.
        DataError: DAT104, DAT105, DAT108, DAT110, DAT113, DAT116 ... DAT119.
    """
    source.only("label", "input", "config")
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "huggingface") from None
    where = f"hf:{source.spec.path}"
    data = _split(_open(datasets, source, where), source.spec.split, where)
    images = [name for name, kind in data.features.items() if type(kind).__name__ == "Image"]
    named = [name for name, kind in data.features.items() if type(kind).__name__ == "ClassLabel"]
    asked = source.spec.label or (named[0] if len(named) == 1 else None)
    label, columns = choose(list(data.features), asked, source.inputs or images, where)
    if len(columns) > 1 and set(columns) & set(images):
        raise DataError("DAT108", f"the inputs are one column of images, or columns of numbers, but not "
                                  f"{', '.join(columns)}", where=where, fix="Name it: #input=COLUMN.")
    names = tuple(data.features[label].names) if label in named else None
    y, classes = encode(np.asarray(list(data[label])), source.classes or names, where=f"{where}, column {label!r}")
    rows = source.rows(len(y), where)
    cut = data.select(range(rows.start, rows.stop))
    if columns[0] in images:
        pixels = stack(_decoded(cut[columns[0]], where, rows.start), source.size)
        return Raw(pixels, y[rows], where, classes, rows.start, layout="nhwc")
    x = _numbers(cut, columns, where)
    return Raw(x, y[rows], where, classes, rows.start, tuple(columns) if x.ndim == 2 and len(columns) > 1 else ())


def _open(datasets: ModuleType, source: Source, where: str) -> Any:
    """A dataset, or a mapping of splits to datasets."""
    name, _, revision = source.spec.path.partition("@")
    local = resolve(source.base, name)
    try:
        if any((local / mark).is_file() for mark in _SAVED):
            return datasets.load_from_disk(str(local))
        return datasets.load_dataset(str(local) if local.exists() else name, source.spec.config,
                                     revision=revision or None)
    # The library raises errors of its own, of its clients and of a dozen codecs; all of them mean this one thing.
    except Exception as error:
        raise DataError("DAT119", f"the datasets library did not load it: {type(error).__name__}: {error}",
                        where=where) from error


def _split(opened: Any, split: str | None, where: str) -> Any:
    if not isinstance(opened, dict):
        if split is not None:
            raise missing_split(split, (), where)
        return opened
    if split is None and len(opened) == 1:
        return next(iter(opened.values()))
    if split is None or split not in opened:
        raise missing_split(split, opened, where)
    return opened[split]


def _decoded(images: Iterable[Any], where: str, first: int) -> Iterator[tuple[Any, str]]:
    """Images with their names; the library decodes each only when it is asked for."""
    from PIL import Image

    source, row = iter(images), first
    while True:
        name = f"{where}, row {row}"
        try:
            image = next(source)
        except StopIteration:
            return
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError("DAT117", f"Pillow cannot read the image: {error}", where=name) from error
        if image is None:
            raise DataError("DAT117", "the image is missing", where=name)
        yield image, name
        row += 1


def _numbers(data: Any, columns: list[str], where: str) -> NDArray[Any]:
    parts = []
    for column in columns:
        try:
            values = np.asarray(list(data[column]))
        except ValueError as error:
            raise DataError("DAT110", f"rows of column {column!r} differ in shape", where=where) from error
        if values.dtype.kind not in "biuf":
            raise DataError("DAT110", f"column {column!r} does not hold numbers but {values.dtype}", where=where)
        parts.append(values[:, None] if values.ndim == 1 else values)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
