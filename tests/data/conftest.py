"""What the tests of data share: a check on refusals, the real assets, and writers of small files."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from assay.errors import DataError, findings


@pytest.fixture
def refuses() -> Callable[..., AbstractContextManager[None]]:
    """``with refuses(code, *parts)``: a DataError of that code whose text holds every part, and its standing text."""

    @contextmanager
    def check(code: str, *parts: str) -> Iterator[None]:
        with pytest.raises(DataError) as caught:
            yield
        text = str(caught.value)
        assert caught.value.code == code, text
        for part in parts:
            assert part in text, f"{part!r} is not in:\n{text}"
        assert findings()[code].why in text

    return check


@pytest.fixture(scope="session")
def assets() -> Path:
    default = Path(__file__).parents[2] / ".." / "shared" / "assets"
    folder = Path(os.environ.get("ASSAY_ASSETS", default))
    if not (folder / "datasets").is_dir():
        pytest.skip(f"the real assets are not at {folder}; set ASSAY_ASSETS")
    return folder


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
        head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write
