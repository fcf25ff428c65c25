"""The IDX files of MNIST and its kin: a folder of ``train-``/``t10k-`` images and labels, gzipped or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay.data.loaders.source import Raw, Source, missing_split
from assay.errors import DataError

_FILE: Final = re.compile(r"(?P<split>.+)-(?P<role>images|labels)[-.]idx[0-9]-ubyte(?:\.gz)?")
_TYPES: Final = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def load_idx(source: Source) -> Raw:
    """Images and labels of one split of a folder of IDX files; ``test`` is what the files call ``t10k``.

    Raises:
        DataError: DAT103 ... DAT106, DAT112.
    """
    source.only()
    folder = source.locate(source.spec.path)
    found = idx_files(folder)
    splits = {split for split, role in found if (split, "images") in found and (split, "labels") in found}
    split = source.spec.split
    if split is None and len(splits) == 1:
        (split,) = splits
    if split is None or split not in splits:
        raise missing_split(split, splits, str(folder))
    x_path, y_path = found[split, "images"], found[split, "labels"]
    return source.cut(read_idx(x_path), read_idx(y_path), f"{x_path}, {y_path.name}")


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """The IDX files of a folder by split and role (``images`` or ``labels``); a plain file goes before its ``.gz``."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        named = _FILE.fullmatch(path.name)
        if named:
            split = "test" if named["split"] == "t10k" else named["split"]
            found.setdefault((split, named["role"]), path)
    return found


def read_idx(path: Path) -> NDArray[Any]:
    """The array of one IDX file, in the machine's byte order. Raises ``DataError`` DAT106 on a damaged one."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("DAT106", f"the file cannot be read: {error}", where=str(path)) from error
    axes = content[3] if len(content) >= 4 else 0
    if content[:2] != b"\0\0" or len(content) < 4 + 4 * axes or not axes or content[2] not in _TYPES:
        raise DataError("DAT106", f"the header is not that of an IDX file: {content[:4].hex(' ') or 'empty'}",
                        where=str(path))
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    dtype, start = np.dtype(_TYPES[content[2]]), 4 + 4 * axes
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise DataError("DAT106", f"the header promises {expected:,} bytes for shape {shape}; "
                                  f"there are {len(content) - start:,}", where=str(path))
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
