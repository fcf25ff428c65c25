"""Evidence made readable. No torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.reports.cases import WorstCases as WorstCases
    from assay.reports.document import Meta as Meta
    from assay.reports.document import Report as Report
    from assay.reports.document import build as build
    from assay.reports.exchange import schema as schema
    from assay.reports.exchange import to_json as to_json
    from assay.reports.html import to_html as to_html
    from assay.reports.junit import to_junit as to_junit
    from assay.reports.markdown import to_markdown as to_markdown
    from assay.reports.sarif import to_sarif as to_sarif
    from assay.reports.terminal import to_terminal as to_terminal

_LAZY = {
    "Meta": "assay.reports.document",
    "Report": "assay.reports.document",
    "WorstCases": "assay.reports.cases",
    "build": "assay.reports.document",
    "schema": "assay.reports.exchange",
    "to_html": "assay.reports.html",
    "to_json": "assay.reports.exchange",
    "to_junit": "assay.reports.junit",
    "to_markdown": "assay.reports.markdown",
    "to_sarif": "assay.reports.sarif",
    "to_terminal": "assay.reports.terminal",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
