"""The promises of the first screen, kept: the ten lines of the robustness researcher and of the platform engineer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import assay
from assay import evasion
from assay.targets import Access

pytest_plugins = ["pytester"]


@dataclass(frozen=True)
class MyAttack:
    """Somebody's own: ascent on the mean margin, with no base class of ours."""

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})

    steps: int = 50

    def perturb(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        at, z = torch.arange(len(x)), x.clone()
        for _ in range(self.steps):
            found = view.gradient(z, at, lambda scores, labels: -scores.gather(1, labels[:, None])[:, 0], y)
            z = (z + budget.radius / 4 * found.gradient.sign()).clamp(x - budget.radius, x + budget.radius).clamp(0, 1)
        return z


def test_robustness_researcher() -> None:
    model = assay.demo.target(noise=0.25).model
    x, y = assay.demo.digits("test[:4]")

    net = assay.targets.torch(model, bounds=(0, 1))
    safe = evasion.Smoothing(sigma=0.25, n=10, gradient_draws=2).protect(net)
    threat = evasion.Linf(8 / 255).threat(access="gradients", knows={"model", "defense"})
    game = evasion.EvasionGame(x, y, threat=threat)
    mine = game.play(MyAttack(steps=10), safe, seed=0)
    base = game.play(evasion.AutoAttack(version="rand"), safe, seed=0)
    table = str(assay.compare(mine, base))
    proof = game.prove(evasion.SmoothingRadius(n=1000), safe, seed=0)

    head, *rows = table.splitlines()
    assert head.split()[:4] == ["method", "target", "budget", "bound"]
    assert [row.split("  ")[0] for row in rows] == ["MyAttack(steps=10)", "AutoAttack(version='rand')"]
    assert all("robust accuracy at most" in row for row in rows)
    assert [e.kind for e in (mine, base, proof)] == ["played", "played", "proved"]
    assert mine.threat.knows == ("defense", "model")
    assert mine.cost.backwards >= 4 * 10 * 2
    assert (proof["robust accuracy"].side, proof["robust accuracy"].n) == ("at least", 4)
    assert proof["robust accuracy"].estimate <= min(mine["robust accuracy"].estimate, base["robust accuracy"].estimate)
    assert "robust accuracy at least" in str(proof)
    assert proof.cost.forwards == 4 * (100 + 1000)


def test_privacy_auditor() -> None:
    """Fewer shadow models than the ten lines ask for; a linear model, so that the whole takes seconds."""
    from torch import nn

    from assay import demo, privacy

    def fit(data, seed):
        return privacy.Recipe(init=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), epochs=60, batch=16,
                              rate=0.3)(data, seed)

    data = demo.digits("train[:300]")
    train = assay.targets.training(fit, data)
    game = privacy.MembershipGame(canaries=privacy.Mislabeled(100), threat=privacy.scores(), targets=3)
    found = game.play(privacy.LiRA(shadows=6), train, seed=0)
    assert found.kind == "played", found.error
    assert found["tpr@fpr=0.1"].side == found["epsilon@delta=1e-5"].side == "at least"
    assert found["auc"].estimate > 0.7

    recipe = privacy.Recipe(init=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    safe = privacy.DPSGD(noise=4.0, clip=1.0, batch=32, epochs=2).train(assay.targets.training(recipe, data))
    proof = game.prove(privacy.Accountant("rdp"), safe, seed=0)
    assert assay.Claim("epsilon@delta=1e-05", "<=", 3.0).judge([proof]).verdict == "proven"


def test_robustness_researcher_by_name_of_the_normalization(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 3)).eval()
    x = torch.rand(8, 3, 4, 4)
    net = assay.targets.torch(model, bounds=(0, 1), normalize="cifar10")
    game = evasion.EvasionGame(x, net.labels(x), threat=evasion.Linf(8 / 255).threat(access="gradients"))
    found = game.play(evasion.AutoAttack(), net, seed=0)
    proof = game.prove(evasion.CROWN(), net, seed=0)
    assert found["robust accuracy"].estimate == proof["robust accuracy"].estimate  # of a linear model both are exact
    for name in ("one.html", "two.html"):  # importing the package of the same name must not hide the function
        page = assay.report([found, proof], claims=[assay.Claim.parse("robust accuracy >= 0.01")], title="Mine")
        assert "Mine" in page.save(tmp_path / name).read_text()


PLAN = '''\
[target]
load = "assay.demo:network"
weights = "model.safetensors"
bounds = [0, 1]

[data]
load = "digits.npz"

[[trial]]
threat = { access = "gradients", budget = "linf 0.02" }

[[claim]]
id = "ROB-1"
that = "robust accuracy >= 0.40"

[[claim]]
id = "ACC-1"
that = "clean accuracy >= 0.80"
'''


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    x, y = assay.demo.digits("test[:60]")
    save_file(assay.demo.target().model.state_dict(), tmp_path / "model.safetensors")
    np.savez(tmp_path / "digits.npz", x=x.numpy(), y=y.numpy())
    (tmp_path / "audit.toml").write_text(PLAN)
    return tmp_path


def test_platform_engineer_gates_ci_from_the_shell(gate: Path) -> None:
    line = f"{sys.executable} -m assay run audit.toml --suite quick && {sys.executable} -m assay check --format junit,sarif"
    passed = subprocess.run(["bash", "-c", line], cwd=gate, capture_output=True, text=True, timeout=300, check=False)
    assert passed.returncode == 0, passed.stderr
    assert 'failures="0" errors="0"' in (gate / "junit.xml").read_text()
    assert json.loads((gate / "assay.sarif").read_text())["runs"][0]["results"] == []


def test_platform_engineer_sees_a_claim_break(gate: Path) -> None:
    (gate / "audit.toml").write_text(PLAN.replace(">= 0.40", ">= 0.999").replace("linf 0.02", "linf 0.3"))
    line = f"{sys.executable} -m assay run audit.toml --suite quick && echo merged"
    failed = subprocess.run(["bash", "-c", line], cwd=gate, capture_output=True, text=True, timeout=300, check=False)
    assert failed.returncode == 1, failed.stderr
    assert "merged" not in failed.stdout


def test_platform_engineer_gates_ci_from_pytest(gate: Path, pytester: pytest.Pytester) -> None:
    for name in ("model.safetensors", "digits.npz", "audit.toml"):
        (pytester.path / name).write_bytes((gate / name).read_bytes())
    pytester.makepyfile('''\
def test_model_is_still_robust(assay_audit):
    assay_audit("audit.toml", suite="quick").require("ROB-1", "ACC-1")
''')
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
