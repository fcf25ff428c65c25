"""Folders of image files, read by Pillow: one folder a class, or a flat folder with a ``labels.csv``."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from assay.data.labels import encode, number_names
from assay.data.loaders.source import SPLITS, Raw, Source, existing, missing_split
from assay.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
# Pillow goes by content, and would start Ghostscript on PostScript that calls itself a PNG.
_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_DEEP: Final = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def load_images(source: Source) -> Raw:
    """The images of a folder; a split is the folder of that name within it.

    Classes are the folders' names, sorted as text, or the labels in ``labels.csv`` (columns ``file``, ``label``).
    Rows are sorted by path, or lie in the order of ``labels.csv``; files that are no images are passed over.
    Gray images have 1 channel, others 3; gray ones among colored ones get 3. Opaque alpha is dropped. All images
    must have one size, unless ``size`` says what to resize them to (bilinear).

    Raises:
        DataError: DAT103 ... DAT106, DAT108, DAT113, DAT116 ... DAT118.
    """
    source.only()
    folder = source.locate(source.spec.path)
    folders = _folders(folder)
    split = source.spec.split
    if split is not None and split not in folders:
        raise missing_split(split, folders, str(folder))
    if split is None and folders and set(folders) <= set(SPLITS):
        raise missing_split(None, folders, str(folder))
    if split is not None:
        folder = folder / split
    if (folder / "labels.csv").is_file():
        files, labels, classes = _listed(folder, source.classes)
    else:
        files, labels, classes = _by_class(folder, source.classes)
    rows = source.rows(len(files), str(folder))
    opened = (open_image(path) for path in files[rows])
    x = stack(zip(opened, (str(path) for path in files[rows])), source.size)
    return Raw(x, labels[rows], str(folder), classes, rows.start, layout="nhwc")


def open_image(file: Path) -> Image:
    """The image in a file, decoded; the first of several frames. Raises ``DataError`` DAT117 when it is damaged."""
    from PIL import Image

    try:
        with Image.open(file, formats=_FORMATS) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError("DAT117", f"Pillow cannot read the image: {error}", where=str(file)) from error


def stack(images: Iterable[tuple[Image, str]], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Images with their names as one array ``[N, H, W, C]``, ``C`` being 1 or 3, resized to ``size`` when given.

    Raises:
        DataError: DAT116 when sizes differ, DAT117 on a mode that 8 bits a channel cannot hold.
    """
    planes: list[NDArray[np.uint8]] = []
    first = ""
    for row, (image, name) in enumerate(images):
        plane = _pixels(image, size, name)
        if planes and plane.shape[:2] != planes[0].shape[:2]:
            (h, w), (height, width) = plane.shape[:2], planes[0].shape[:2]
            raise DataError("DAT116", f"image {row} of the selection (from 0) is {h}x{w} (height x width), "
                                      f"the first, {first}, is {height}x{width}", where=name)
        first = first or name
        planes.append(plane)
    channels = max(plane.shape[2] for plane in planes)
    return np.stack([np.broadcast_to(plane, (*plane.shape[:2], channels)) for plane in planes])


def _pixels(image: Image, size: tuple[int, int] | None, name: str) -> NDArray[np.uint8]:
    from PIL.Image import Resampling

    if image.mode in _DEEP:
        raise DataError("DAT117", f"the image's mode is {image.mode!r}; 8 bits a channel are read", where=name)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opaque = image.convert("RGBA").getchannel("A").getextrema() == (255, 255)
        if not opaque:
            raise DataError("DAT117", "the image is partly transparent, so its colors depend on a background",
                            where=name, fix="Flatten it onto the background that the model would see.")
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Resampling.BILINEAR)
    pixels: NDArray[np.uint8] = np.asarray(image, dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError("DAT106", "this is not a folder of images", where=str(folder))
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _by_class(folder: Path, classes: tuple[str, ...] | None) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    names = _folders(folder)
    if not names:
        raise DataError("DAT106", "there is neither a folder a class nor a labels.csv", where=str(folder))
    order = number_names(names, classes, where=str(folder))
    files: list[Path] = []
    labels: list[int] = []
    for name in names:
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        files += found
        labels += [order.index(name)] * len(found)
    return files, np.array(labels, dtype=np.int64), order


def _listed(folder: Path,
            classes: tuple[str, ...] | None) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...] | None]:
    table = folder / "labels.csv"
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
            rows: list[dict[str, Any]] = list(reader)
            header = list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise DataError("DAT106", f"the table cannot be read: {error}", where=str(table)) from error
    if not {"file", "label"} <= set(header):
        raise DataError("DAT108", f"labels.csv must have the columns file and label; it has {', '.join(header)}",
                        where=str(table))
    for row, cells in enumerate(rows):
        if not cells["file"] or not cells["label"]:
            raise DataError("DAT108", f"row {row} (from 0) lacks its file or its label", where=f"{table}, row {row}")
    labels, order = encode(np.array([cells["label"] for cells in rows], dtype=np.str_), classes, where=str(table))
    return [existing(folder / cells["file"]) for cells in rows], labels, order
