"""The zoo beside these tests, shared with ``benchmarks/auditing.py``."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from assay import demo


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """The module ``zoo.py``."""
    spec = spec_from_file_location("assay_tests_privacy_zoo", Path(__file__).parent / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def digits():
    """A hundred digits and their labels."""
    return demo.digits("train[:100]")
