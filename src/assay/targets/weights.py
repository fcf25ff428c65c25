"""Weights from files, safely by default: safetensors, or tensors in torch's own format; a pickle only by permission."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from assay.errors import ConfigError, nearest

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def load_weights(model: nn.Module, path: Path, *, allow_pickle: bool = False) -> None:
    """Loads a state dict into ``model``, in place; every key must fit.

    Args:
        path: ``.safetensors``, or a ``.pth`` / ``.pt`` file of tensors; a state dict may lie under ``"state_dict"``
            or ``"model"``.
        allow_pickle: whether a file that needs unpickling may be loaded.

    Raises:
        ConfigError: CFG100 no such file, CFG141 truncated, of another format or made for another architecture,
            CFG142 a pickle.
    """
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        said = f"there is no file {path.name!r}{nearest(path.name, siblings)}"
        raise ConfigError("CFG100", said, where=str(path.parent))
    state = _unwrap(_read(path, allow_pickle=allow_pickle), path)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ConfigError("CFG141", f"the weights do not fit the model: {said[:300]}", where=path.name) from error


def file_format(path: Path) -> str:
    """What weights came in, by the first bytes and not by the name: ``"safetensors"``, ``"pickle…"``, ``"unknown"``."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04":
        return "pickle in a zip (torch.save)"
    if head[:1] == b"\x80":
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    return "unknown"


def _read(path: Path, *, allow_pickle: bool) -> object:
    if path.suffix not in _SUFFIXES:
        raise ConfigError("CFG141", f"weights of type {path.suffix!r} are not known", where=path.name,
                          fix=f"Use one of {', '.join(_SUFFIXES)}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            if _is_pickle(path):
                raise ConfigError("CFG142", "the file is named safetensors but is a pickle", where=path.name) from error
            raise ConfigError("CFG141", f"not a whole safetensors file: {error}", where=path.name) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if _is_pickle(path) or "GLOBAL" in str(error):
            said = "the file holds more than tensors and needs unpickling"
            raise ConfigError("CFG142", said, where=path.name) from error
        raise ConfigError("CFG141", f"not a whole torch file: {error}", where=path.name) from error
    except Exception as error:  # a damaged archive, or a permitted pickle whose code raises anything
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError("CFG141", f"not a whole torch file: {said[:200]}", where=path.name) from error


def _is_pickle(path: Path) -> bool:
    """Whether the bytes are a pickle or torch's zip of one, judged without loading anything."""
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file starts with the length of its header, which may look like a pickle's first bytes, and "{".
    return zipfile.is_zipfile(path) or (len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[8:] != b"{")


def _unwrap(loaded: object, path: Path) -> Mapping[str, Tensor]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), (Mapping, list)):
            loaded = loaded[key]
    if isinstance(loaded, list) and len(loaded) == 1:
        loaded = loaded[0]
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        said = f"the file holds {_describe(loaded)}, not one state dict of tensors"
        raise ConfigError("CFG141", said, where=path.name)
    return loaded


def _describe(loaded: Any) -> str:
    return f"a list of {len(loaded)}" if isinstance(loaded, list) else f"a {type(loaded).__name__}"
