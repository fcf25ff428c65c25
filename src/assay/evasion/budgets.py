"""Budgets from their words, whatever their kind."""

from __future__ import annotations

from assay.evasion import threat
from assay.evasion.changes import Flow, Rotation, Semantic, parse_family

Budget = threat.Linf | threat.L2 | threat.L1 | threat.L0 | Rotation | Flow | Semantic


def parse_budget(text: str, *, where: str = "") -> Budget:
    """A budget such as ``"linf 8/255 uint8"``, ``"l2 inf"``, ``"rotation 30 translation 3"``, ``"flow 1"``.

    Raises:
        ConfigError: THR104 where the words cannot be read.
    """
    return parse_family(text, where=where) or threat.parse_budget(text, where=where)
