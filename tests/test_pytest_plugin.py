"""The plugin in a project that is not ours: a plan, a model, data and a test of three lines."""

from __future__ import annotations

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
threat = {{ budget = "linf 0.1" }}
attacks = [{{ name = "pgd", steps = 5 }}]
proofs = ["ibp"]

[[claim]]
id = "ROB-1"
that = "robust accuracy >= {level}"
'''

TEST = '''\
def test_model_is_still_robust(assay_audit):
    assay_audit("{plan}").require("{id}")
'''


def project(pytester: pytest.Pytester, *, level: float = 0.4, plan: str = "audit.toml", id: str = "ROB-1") -> None:
    pytester.makefile(".toml", audit=PLAN.format(level=level))
    pytester.makepyfile(net=NET, test_robust=TEST.format(plan=plan, id=id))
    y = np.arange(40) % 2
    x = np.full((40, 4), 0.5, dtype=np.float32)
    x[:, 0] += np.where(y == 1, 1, -1) * np.where(np.arange(40) < 10, 0.05, 0.3)
    np.savez(pytester.path / "points.npz", x=x, y=y)


def outcome(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A pytest of its own, which finds the plugin as an installed one, or is told where it is installed from."""
    from importlib.metadata import entry_points

    known = [point.value for point in entry_points(group="pytest11", name="assay")]
    assert known == ["assay.pytest_plugin"]
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def test_a_claim_that_holds_passes(pytester: pytest.Pytester) -> None:
    project(pytester)
    outcome(pytester).assert_outcomes(passed=1)
    assert (pytester.path / "assay-ledger" / "ledger.jsonl").exists()


def test_a_broken_claim_fails_with_its_sentence(pytester: pytest.Pytester) -> None:
    project(pytester, level=0.95)
    found = outcome(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["E*AssertionError: ROB-1 broken: robust accuracy >= 0.95 — PGD(steps=5) shows robust accuracy "
                                "at most 0.75 on 40 points*"])


def test_an_undecided_claim_fails_too(pytester: pytest.Pytester) -> None:
    project(pytester, level=0.8)
    found = outcome(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["E*AssertionError: ROB-1 undecided: robust accuracy >= 0.8 — DBT109*"])


def test_an_unknown_claim_is_a_coded_error(pytester: pytest.Pytester) -> None:
    project(pytester, id="ROB-7")
    found = outcome(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["E*ConfigError: CFG121  there is no claim 'ROB-7'; there are ?'ROB-1'?"])


def test_a_missing_plan_is_a_coded_error(pytester: pytest.Pytester) -> None:
    project(pytester, plan="audits.toml")
    found = outcome(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["E*ConfigError: CFG100  cannot read audits.toml*did you mean 'audit.toml'?"])


def test_the_audit_is_played_once_a_session(pytester: pytest.Pytester) -> None:
    project(pytester)
    pytester.makepyfile(test_again='''\
from pathlib import Path


def test_one(assay_audit):
    assert assay_audit("audit.toml") is assay_audit("audit.toml")


def test_two(assay_audit):
    assay_audit("audit.toml").require()
    assert Path("assay-ledger/ledger.jsonl").read_text().count('"kind":"plan"') == 1
''')
    outcome(pytester).assert_outcomes(passed=3)


def test_the_fixture_is_documented(pytester: pytest.Pytester) -> None:
    project(pytester)
    outcome(pytester, "--fixtures").stdout.fnmatch_lines(["assay_audit*"])
