"""A project that is not ours: a linear model, forty points and a plan whose every number is known beforehand.

The model answers class 1 where the first of four features exceeds 0.5. Ten points lie 0.05 from that boundary, thirty
lie 0.3 from it, so under linf 0.1 exactly three quarters are robust.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.cli import main

NET = '''\
import torch
from torch import nn


def build(sign=1.0):
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [sign, 0, 0, 0]]))
        layer.bias.copy_(torch.tensor([0.0, -0.5 * sign]))
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
chunk = 10

[[claim]]
id = "ROB-1"
that = "robust accuracy >= 0.40"
'''


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    folder: Path

    @property
    def plan(self) -> str:
        return (self.folder / "audit.toml").read_text()

    def edit(self, old: str, new: str, *, file: str = "audit.toml") -> None:
        """Replaces one text that must be there."""
        text = (self.folder / file).read_text()
        assert text.count(old) == 1, (old, text)
        (self.folder / file).write_text(text.replace(old, new))

    def points(self, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
        np.savez(self.folder / "points.npz", x=x, y=y)

    def data(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        with np.load(self.folder / "points.npz") as archive:
            return archive["x"], archive["y"]

    def lines(self) -> list[dict[str, Any]]:
        """The ledger's entries as they are on disk."""
        return [json.loads(line) for line in (self.folder / "assay-ledger" / "ledger.jsonl").read_text().splitlines()]

    def parts(self) -> list[str]:
        return [entry["body"]["part"] for entry in self.lines() if entry["kind"] == "part"]

    def command(self, *args: str, code: str = "") -> list[str]:
        """The command line of a real process; ``code`` runs before the command line is."""
        start = f"{code}\nimport sys; sys.argv[0] = 'assay'; from assay.cli import main; main()"
        return [sys.executable, *(["-c", start] if code else ["-m", "assay"]), *args]

    def spawn(self, *args: str, code: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*args, code=code), cwd=self.folder, text=True, env={**os.environ},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def process(self, *args: str, code: str = "") -> Said:
        with self.spawn(*args, code=code) as process:
            out, err = process.communicate(timeout=120)
        return Said(process.returncode, out, err)


Cli = Callable[..., Said]


def points(near: int = 10, far: int = 30) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = np.full((near + far, 4), 0.5, dtype=np.float32)
    y = np.arange(near + far) % 2
    x[:, 0] += np.where(y == 1, 1, -1) * np.where(np.arange(near + far) < near, 0.05, 0.3)
    return x, y.astype(np.int64)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "audit.toml").write_text(PLAN)
    made.points(*points())
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def cli(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The console entry point in this process, in the project's folder."""

    def run(*args: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["assay", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Said(left.value.code if isinstance(left.value.code, int) else 1, captured.out, captured.err)

    return run
