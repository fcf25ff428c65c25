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
    from assay.targets.estimator import SklearnTarget as SklearnTarget
    from assay.targets.estimator import sklearn_target as sklearn  # noqa: F401
    from assay.targets.http_client import Manners as Manners
    from assay.targets.http_model import HttpTarget as HttpTarget
    from assay.targets.http_model import http_target as http  # noqa: F401
    from assay.targets.http_wire import JsonKeys as JsonKeys
    from assay.targets.language_model import LanguageModel as LanguageModel
    from assay.targets.language_model import TorchLanguage as TorchLanguage
    from assay.targets.language_model import language_target as language  # noqa: F401
    from assay.targets.ngram import NGram as NGram
    from assay.targets.onnx_model import OnnxTarget as OnnxTarget
    from assay.targets.onnx_model import onnx_target as onnx  # noqa: F401
    from assay.targets.procedure import Training as Training
    from assay.targets.procedure import training as training
    from assay.targets.pytorch import TorchTarget as TorchTarget
    from assay.targets.pytorch import torch_target as torch  # noqa: F401
    from assay.targets.tokenizers import Bytes as Bytes
    from assay.targets.tokenizers import Characters as Characters

_LAZY = {
    "Bounds": ("assay.targets.base", "Bounds"),
    "Bytes": ("assay.targets.tokenizers", "Bytes"),
    "Characters": ("assay.targets.tokenizers", "Characters"),
    "HttpTarget": ("assay.targets.http_model", "HttpTarget"),
    "JsonKeys": ("assay.targets.http_wire", "JsonKeys"),
    "LanguageModel": ("assay.targets.language_model", "LanguageModel"),
    "Manners": ("assay.targets.http_client", "Manners"),
    "NGram": ("assay.targets.ngram", "NGram"),
    "OnnxTarget": ("assay.targets.onnx_model", "OnnxTarget"),
    "SklearnTarget": ("assay.targets.estimator", "SklearnTarget"),
    "Smoothed": ("assay.targets.base", "Smoothed"),
    "Target": ("assay.targets.base", "Target"),
    "TorchLanguage": ("assay.targets.language_model", "TorchLanguage"),
    "TorchTarget": ("assay.targets.pytorch", "TorchTarget"),
    "Training": ("assay.targets.procedure", "Training"),
    "WhiteBox": ("assay.targets.base", "WhiteBox"),
    "http": ("assay.targets.http_model", "http_target"),
    "language": ("assay.targets.language_model", "language_target"),
    "onnx": ("assay.targets.onnx_model", "onnx_target"),
    "sklearn": ("assay.targets.estimator", "sklearn_target"),
    "torch": ("assay.targets.pytorch", "torch_target"),
    "training": ("assay.targets.procedure", "training"),
}

__all__ = ["Access", *sorted(_LAZY)]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
