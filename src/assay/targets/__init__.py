"""What is under test, and how much it reveals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from assay.targets.access import Access as Access

if TYPE_CHECKING:
    from assay.targets.base import Bounds as Bounds
    from assay.targets.base import Smoothed as Smoothed
    from assay.targets.base import Target as Target
    from assay.targets.base import WhiteBox as WhiteBox
    from assay.targets.pytorch import TorchTarget as TorchTarget
    from assay.targets.pytorch import torch_target as torch

_LAZY = {
    "Bounds": ("assay.targets.base", "Bounds"),
    "Smoothed": ("assay.targets.base", "Smoothed"),
    "Target": ("assay.targets.base", "Target"),
    "TorchTarget": ("assay.targets.pytorch", "TorchTarget"),
    "WhiteBox": ("assay.targets.base", "WhiteBox"),
    "torch": ("assay.targets.pytorch", "torch_target"),
}

__all__ = ["Access", *sorted(_LAZY)]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
