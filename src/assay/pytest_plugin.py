"""Robustness as an assertion in somebody else's test suite: the fixture ``assay_audit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from assay.audits.run import Outcome

Audit = Callable[..., "Outcome"]


@pytest.fixture(scope="session")
def assay_audit(request: pytest.FixtureRequest) -> Audit:
    """Runs a plan and returns its outcome: ``assay_audit("audit.toml").require("ROB-1")``.

    Paths start at pytest's root folder. A plan is played once a session, and evidence that is already in its ledger
    is not played again.
    """
    outcomes: dict[tuple[Path, str], Outcome] = {}

    def run(plan: str | Path, *, suite: str = "") -> Outcome:
        from assay.api import audit

        path = (request.config.rootpath / plan).resolve()
        if (path, suite) not in outcomes:
            outcomes[path, suite] = audit(path, suite=suite)
        return outcomes[path, suite]

    return run
