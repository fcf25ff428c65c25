"""Real digits and a model trained in seconds: the first success needs no download."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.demo.images import digits as digits
    from assay.demo.training import network as network
    from assay.demo.training import target as target
    from assay.demo.training import train as train

_LAZY = {
    "digits": "assay.demo.images",
    "network": "assay.demo.training",
    "target": "assay.demo.training",
    "train": "assay.demo.training",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
