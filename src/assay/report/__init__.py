"""Evidence made readable. No torch."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.report.cases import WorstCases as WorstCases
    from assay.report.document import Meta as Meta
    from assay.report.document import Report as Report
    from assay.report.document import build as build
    from assay.report.exchange import schema as schema
    from assay.report.exchange import to_json as to_json
    from assay.report.html import to_html as to_html
    from assay.report.junit import to_junit as to_junit
    from assay.report.markdown import to_markdown as to_markdown
    from assay.report.sarif import to_sarif as to_sarif
    from assay.report.terminal import to_terminal as to_terminal

_LAZY = {
    "Meta": "assay.report.document",
    "Report": "assay.report.document",
    "WorstCases": "assay.report.cases",
    "build": "assay.report.document",
    "schema": "assay.report.exchange",
    "to_html": "assay.report.html",
    "to_json": "assay.report.exchange",
    "to_junit": "assay.report.junit",
    "to_markdown": "assay.report.markdown",
    "to_sarif": "assay.report.sarif",
    "to_terminal": "assay.report.terminal",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


class _Callable(ModuleType):
    """``assay.report`` is this package and, to users of the library, the function that builds a report."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("assay.api").report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
