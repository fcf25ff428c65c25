"""Assay plays the adversary against a machine-learning model, keeps the evidence, and says what it is worth."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay import demo as demo
    from assay import evasion as evasion
    from assay import privacy as privacy
    from assay import targets as targets
    from assay.api import audit as audit
    from assay.api import report as report
    from assay.errors import AssayError as AssayError
    from assay.evidence.claim import Claim as Claim
    from assay.evidence.compare import compare as compare
    from assay.evidence.ledger import Ledger as Ledger

_LAZY = {
    "AssayError": ("assay.errors", "AssayError"),
    "Claim": ("assay.evidence.claim", "Claim"),
    "Ledger": ("assay.evidence.ledger", "Ledger"),
    "audit": ("assay.api", "audit"),
    "compare": ("assay.evidence.compare", "compare"),
    "demo": ("assay.demo", ""),
    "evasion": ("assay.evasion", ""),
    "privacy": ("assay.privacy", ""),
    "report": ("assay.api", "report"),
    "targets": ("assay.targets", ""),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute) if attribute else import_module(module)
