"""NumPy's own files: an ``.npz`` archive of inputs and labels, or a pair of ``.npy`` files."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from assay.data.loaders.source import SPLITS, Raw, Source, missing_split
from assay.errors import DataError, nearest

_INPUTS: Final = ("x", "images", "image", "data", "inputs", "features")
_LABELS: Final = ("y", "labels", "label", "targets", "target")
_NAMES: Final = ("names", "classes", "class_names", "label_names")
# What a damaged file makes numpy, zipfile and zlib raise; MemoryError is a header that promises absurd sizes, and
# SyntaxError and TokenError are one that is not the literal it should be.
_BROKEN: Final = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, MemoryError, SyntaxError,
                  tokenize.TokenError, zipfile.BadZipFile, zlib.error)


def load_npz(source: Source) -> Raw:
    """Inputs and labels of an ``.npz``, by their keys.

    Keys are recognized in any case as x/y, images/labels, data/target(s), inputs, features, alone or joined to a
    split (``x_test``, ``test_images``, ``XTest``); ``input=`` and ``label=`` name others. A text array with one
    name a class (``names``, ``classes``, ``class_names``, ``label_names``) gives the class names.

    Raises:
        DataError: DAT103 ... DAT108, DAT112, DAT113, DAT118.
    """
    source.only("label", "input")
    path = source.locate(source.spec.path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise DataError("DAT106", "this is not an .npz archive, or only part of one", where=str(path))
    with _guard(lambda: np.load(path, allow_pickle=False), path) as archive:
        x_key, y_key = _keys(archive.files, source, str(path))
        x = _guard(lambda: archive[x_key], path, x_key)
        y = _guard(lambda: archive[y_key], path, y_key)
        classes = _class_names(archive, y, path)
    return source.cut(x, y, f"{path} [{x_key}, {y_key}]", classes)


def load_npy(source: Source) -> Raw:
    """Inputs and labels of two ``.npy`` files, ``x.npy,y.npy``; the second is also sought beside the first.

    Raises:
        DataError: DAT101, DAT103 ... DAT107, DAT112, DAT113, DAT118.
    """
    source.only()
    if source.spec.split is not None:
        raise missing_split(source.spec.split, (), source.spec.path)
    names = source.spec.path.split(",")
    if len(names) != 2 or not all(names):
        raise DataError("DAT101", f"npy takes two files, inputs and labels, joined by one comma; got {len(names)}",
                        where=source.spec.path, fix="Write it as npy:inputs.npy,labels.npy.")
    x_path = source.locate(names[0])
    beside = x_path.parent / names[1]
    y_path = beside if beside.is_file() else source.locate(names[1])
    return source.cut(_array(x_path), _array(y_path), f"{x_path}, {y_path}")


def _array(path: Path) -> NDArray[Any]:
    loaded = _guard(lambda: np.load(path, allow_pickle=False), path)
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise DataError("DAT106", "this is an .npz archive, not a single .npy array", where=str(path))
    return loaded


def _guard(read: Callable[[], Any], path: Path, key: str = "") -> Any:
    where = f"{path} [{key}]" if key else str(path)
    try:
        return read()
    except _BROKEN as error:
        if "allow_pickle" not in str(error) and "pickled" not in str(error):
            raise DataError("DAT106", f"the array cannot be read: {error}", where=where) from error
        if key or _has_magic(path):
            raise DataError("DAT107", "the array holds Python objects, which only unpickling could read",
                            where=where) from error
        raise DataError("DAT106", "this is not a NumPy array file", where=where) from error


def _has_magic(path: Path) -> bool:
    """Whether numpy wrote it, or Python's pickle did: numpy calls any other file pickled too."""
    with path.open("rb") as file:
        head = file.read(6)
    return head == b"\x93NUMPY" or head[:1] == b"\x80"


def _keys(keys: list[str], source: Source, where: str) -> tuple[str, str]:
    x_key, y_key = source.spec.input, source.spec.label
    for key in (x_key, y_key):
        if key is not None and key not in keys:
            raise DataError("DAT108", f"there is no key {key!r}; the keys are {', '.join(keys)}{nearest(key, keys)}",
                            where=where)
    if x_key and y_key:
        return x_key, y_key
    x_split, x_key = ("", x_key) if x_key else _find(keys, _INPUTS, "inputs", source, where)
    y_split, y_key = (x_split, y_key) if y_key else _find(keys, _LABELS, "labels", source, where)
    if x_split != y_split and source.spec.input is None:
        raise DataError("DAT108", f"{x_key!r} and {y_key!r} are not of one split", where=where)
    return x_key, y_key


def _find(keys: list[str], names: tuple[str, ...], role: str, source: Source, where: str) -> tuple[str, str]:
    asked = source.spec.split
    splits = {key: _split(key, names, asked) for key in keys}
    found = sorted({split for split in splits.values() if split})
    wanted = asked.lower() if asked is not None else ""
    if asked is None and "" not in splits.values() and found:
        if len(found) > 1:
            raise missing_split(None, found, where)
        wanted = found[0]
    matches = [key for key, split in splits.items() if split == wanted]
    if len(matches) == 1:
        return wanted, matches[0]
    if not matches and asked is not None:
        raise missing_split(asked, found, f"{where}, keys {', '.join(keys)}")
    count = "several keys could be" if matches else "no key is known to be"
    raise DataError("DAT108", f"{count} the {role}: {', '.join(matches or keys)}", where=where,
                    fix=f"Name it: #{'input' if role == 'inputs' else 'label'}=KEY, one of {', '.join(keys)}.")


def _split(key: str, names: tuple[str, ...], asked: str | None) -> str | None:
    """The split that a key belongs to, ``""`` for a key without one, ``None`` for a key that is none of the names."""
    lower = key.lower()
    if lower in names:
        return ""
    for split in dict.fromkeys((*SPLITS, *([asked.lower()] if asked else []))):
        joined = {f"{name}{gap}{split}" for name in names for gap in ("_", "")}
        joined |= {f"{split}{gap}{name}" for name in names for gap in ("_", "")}
        if lower in joined:
            return split
    return None


def _class_names(archive: NpzFile, y: NDArray[Any], path: Path) -> tuple[str, ...] | None:
    keys = [key for key in archive.files if key.lower() in _NAMES]
    if len(keys) != 1 or y.dtype.kind not in "iu" or not y.size:
        return None
    names = _guard(lambda: archive[keys[0]], path, keys[0])
    # Names of the samples, not of the classes, would be as many as the rows.
    if names.dtype.kind != "U" or names.shape != (int(y.max()) + 1,) or len(set(names)) != len(names):
        return None
    return tuple(str(name) for name in names)
