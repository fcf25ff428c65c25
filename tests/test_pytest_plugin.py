"""The plugin in a project that is not ours: a plan, a model, data and a test of three lines."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest

pytest_plugins = ["pytester"]

NET = '''\
import torch
from torch import nn


def build():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]]))
        layer.bias.copy_(torch.tensor([0.0, -0.5]))
    return nn.Sequential(layer).eval()
'''

PLAN = '''\
[target]
load = "net.py:build"

[data]
load = "points.npz"

[[trial]]
threat = { budget = "linf 0.1" }
attacks = [{ name = "pgd", steps = 5 }]
proofs = ["ibp"]

[[claim]]
id = "ROB-1"
that = "robust accuracy >= 0.40"

[[claim]]
id = "ROB-2"
that = "robust accuracy >= 0.95"

[[claim]]
id = "ROB-3"
that = "robust accuracy >= 0.80"
'''


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makefile(".toml", audit=PLAN)
    pytester.makepyfile(net=NET)
    y = np.arange(40) % 2
    x = np.full((40, 4), 0.5, dtype=np.float32)
    x[:, 0] += np.where(y == 1, 1, -1) * np.where(np.arange(40) < 10, 0.05, 0.3)
    np.savez(pytester.path / "points.npz", x=x, y=y)
    return pytester


def test_the_plugin_is_found_by_its_entry_point() -> None:
    assert [point.value for point in entry_points(group="pytest11", name="assay")] == ["assay.pytest_plugin"]


def test_a_claim_that_holds_passes_and_the_audit_is_played_once(project: pytest.Pytester) -> None:
    project.makepyfile(test_robust='''\
from pathlib import Path


def test_model_is_still_robust(assay_audit):
    assay_audit("audit.toml").require("ROB-1")


def test_again(assay_audit):
    assert assay_audit("audit.toml") is assay_audit("audit.toml")
    assert Path("assay-ledger/ledger.jsonl").read_text().count('"kind":"plan"') == 1
''')
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_what_does_not_hold_fails_with_its_reason(project: pytest.Pytester) -> None:
    project.makepyfile(test_robust='''\
def test_broken(assay_audit):
    assay_audit("audit.toml").require("ROB-1", "ROB-2")


def test_undecided(assay_audit):
    assay_audit("audit.toml").require("ROB-3")


def test_unknown(assay_audit):
    assay_audit("audit.toml").require("ROB-7")


def test_missing(assay_audit):
    assay_audit("audits.toml")
''')
    found = project.runpytest_subprocess()
    found.assert_outcomes(failed=4)
    found.stdout.fnmatch_lines([
        "E*AssertionError: ROB-2 broken: robust accuracy >= 0.95 — PGD(steps=5) shows robust accuracy at most 0.75 on 40 points*",
        "E*AssertionError: ROB-3 undecided: robust accuracy >= 0.8 — DBT109*",
        "E*ConfigError: CFG121  there is no claim 'ROB-7'; there are ?'ROB-1', 'ROB-2', 'ROB-3'?",
        "E*ConfigError: CFG100  cannot read audits.toml*did you mean 'audit.toml'?",
    ])
