"""A plan whose attack brings models of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.audits.plan import Plan
from assay.audits.run import Outcome, perform
from assay.errors import ConfigError

PLAN = """
[target]
load = "models.py:victim"

[data]
load = "npz:digits.npz"

[[trial]]
threat = { access = "labels", budget = "linf 0.25", queries = 1 }
attacks = [{ name = "transfer", surrogates = [{ load = "models.py:other" }, { %s = "models.py:third" }] }]
"""
MODELS = """
from assay import demo
def victim(): return demo.target().module()
def other(): return demo.target(1).module()
def third(): return demo.target(2).module()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import numpy as np

    from assay import demo

    x, y = demo.digits("test[:100]")
    np.savez(tmp_path / "digits.npz", x=x.numpy(), y=y.numpy())
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path


def test_surrogates_are_loaded_as_targets(folder: Path) -> None:
    *_, outcome = perform(Plan.parse(PLAN % "load"), folder=folder)
    assert isinstance(outcome, Outcome)
    (found,) = outcome.evidence
    assert found["robust accuracy"].estimate <= 0.06  # two other seeds of the same network; 0 to 2 % when measured
    assert "surrogates=(other, third)" in found.attack


def test_a_misspelled_surrogate_names_its_key(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        list(perform(Plan.parse(PLAN % "laod"), folder=folder))
    assert caught.value.code == "CFG102"
    assert "did you mean 'load'" in caught.value.what
    assert "surrogates 2" in caught.value.where
