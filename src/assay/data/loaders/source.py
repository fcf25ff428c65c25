"""What every loader is given, and what it gives back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assay.data.checks import check_lengths
from assay.data.labels import encode
from assay.data.shape import Layout
from assay.data.spec import Spec
from assay.errors import DataError, nearest

# Names that folders, files and keys give the parts of a dataset.
SPLITS: Final = ("train", "test", "val", "valid", "validation", "dev", "extra")


@dataclass(frozen=True)
class Raw:
    """Rows as a loader found them, already cut to the selection.

    Attributes:
        x: ``[N, ...]`` as stored.
        y: int64 ``[N]``.
        where: the file (and keys) it came from, for the errors.
        classes: the class names, where they are known.
        first: the number in the file of row 0 here.
        columns: the names of a table's columns, else empty.
        layout: the axis order, where the format settles it.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    where: str
    classes: tuple[str, ...] | None = None
    first: int = 0
    columns: tuple[str, ...] = ()
    layout: Layout | None = None


@dataclass(frozen=True)
class Source:
    """One spec with the folder its relative paths start from and the options that loaders heed.

    Attributes:
        size: ``(height, width)`` to resize images to, or ``None`` to take them as they are.
        classes: the class names in the order of their numbers, where the caller gave them.
    """

    spec: Spec
    base: Path
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def inputs(self) -> list[str]:
        """The columns that ``input=`` names, none when it is absent."""
        return self.spec.input.split(",") if self.spec.input else []

    def locate(self, path: str) -> Path:
        """The existing file or folder of this name. Raises ``DataError`` DAT103 with the nearest sibling."""
        return existing(resolve(self.base, path))

    def only(self, *options: str) -> None:
        """Refuse the parts of the fragment that this kind does not read. Raises ``DataError`` DAT101."""
        extra = sorted(set(self.spec.options) - set(options))
        if extra:
            raise DataError("DAT101", f"{extra[0]}= means nothing to this kind of data"
                                      + (f"; it reads {', '.join(options)}" if options else ""), where=str(self.spec))

    def rows(self, count: int, where: str) -> slice:
        """The selected rows of ``count``; a stop beyond the end stops there. Raises ``DataError`` DAT105 on none."""
        start, stop, _ = slice(self.spec.start, self.spec.stop).indices(count)
        if start >= stop:
            ends = ["" if end is None else str(end) for end in (self.spec.start, self.spec.stop)]
            raise DataError("DAT105", f"[{':'.join(ends)}] selects none of {count:,} rows", where=where)
        return slice(start, stop)

    def cut(self, x: NDArray[Any], y: NDArray[Any], where: str, classes: tuple[str, ...] | None = None) -> Raw:
        """The selected rows of whole arrays; ``classes`` are names found in the file, which the caller's overrule.

        Labels are encoded before the cut, so that a name has the same number in every selection.

        Raises:
            DataError: DAT105, DAT112, DAT113, DAT118.
        """
        labels, order = encode(y, self.classes or classes, where=where)
        check_lengths(x, labels, where=where)
        rows = self.rows(len(labels), where)
        return Raw(x[rows], labels[rows], where, order, rows.start)


def resolve(base: Path, path: str) -> Path:
    """The path from ``base``; ``~`` is the home folder, unless it only begins a name."""
    return base / os.path.expanduser(path)


def existing(path: Path) -> Path:
    """The path itself. Raises ``DataError`` DAT103, naming the nearest sibling, when it does not exist."""
    if os.path.exists(path):
        return path
    if not path.parent.is_dir():
        raise DataError("DAT103", f"there is no folder {str(path.parent)!r}", where=str(path))
    siblings = [sibling.name for sibling in path.parent.iterdir()]
    raise DataError("DAT103", f"there is no {path.name!r} in {str(path.parent)!r}{nearest(path.name, siblings)}",
                    where=str(path))


def missing_split(split: str | None, splits: Iterable[str], where: str) -> DataError:
    """The error for a split that is absent, or that the spec must name."""
    known = sorted(splits)
    holds = f"it holds {', '.join(known)}" if known else "it holds no splits"
    what = "the spec must name a split" if split is None else f"there is no split {split!r}"
    return DataError("DAT104", f"{what}: {holds}{nearest(split or '', known)}", where=where)
