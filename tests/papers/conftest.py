"""Published networks, shared with the benchmarks; without the assets every test here skips."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def _loaded() -> ModuleType:
    spec = spec_from_file_location("assay_benchmarks_zoo", Path(__file__).parents[2] / "benchmarks" / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """The loaders of published networks and their data."""
    module = _loaded()
    if reason := module.missing():
        pytest.skip(reason)
    return module
