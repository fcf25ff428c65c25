"""The sample audits as fixtures."""

from __future__ import annotations

from sample_audit import contradictory, hostile, incomplete, typical

__all__ = ["contradictory", "hostile", "incomplete", "typical"]
