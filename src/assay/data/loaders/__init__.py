"""Every kind of data there is a loader for, by the name a spec calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from assay.data.loaders import huggingface, idx, images, npz, tables
from assay.data.loaders.source import Raw, Source

KINDS: Final[Mapping[str, Callable[[Source], Raw]]] = MappingProxyType({
    "npz": npz.load_npz,
    "npy": npz.load_npy,
    "idx": idx.load_idx,
    "mnist": idx.load_idx,
    "images": images.load_images,
    "csv": tables.load_csv,
    "parquet": tables.load_parquet,
    "hf": huggingface.load_huggingface,
})
