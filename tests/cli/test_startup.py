"""What is asked often starts at once: help, the list and explanations load none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "scipy", "sklearn", "pydantic", "numpy", "rich", "httpx", "jinja2", "safetensors", "PIL")

WATCH = """\
import sys
from assay.cli import main
sys.argv[0] = "assay"
try:
    main()
finally:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print("LOADED", *loaded, file=sys.stderr)
"""


@pytest.mark.parametrize("args", [
    ["--help"], ["--version"], ["run", "--help"], ["list"], ["list", "--json"], ["list", "--kind", "attack"], ["explain", "TGT102"],
    ["init", "plan.toml"],
])
def test_no_heavy_library_is_loaded(args: list[str], tmp_path) -> None:
    found = subprocess.run([sys.executable, "-c", WATCH.format(heavy=HEAVY), *args], cwd=tmp_path, capture_output=True, text=True,
                           timeout=60, check=False)
    assert found.returncode == 0
    assert found.stderr.splitlines()[-1] == "LOADED"


def test_python_dash_m_is_the_same_command(tmp_path) -> None:
    found = subprocess.run([sys.executable, "-m", "assay", "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                           check=False)
    assert (found.returncode, found.stdout) == (0, "assay, version 0.1.0\n")


def test_importing_the_library_loads_no_heavy_library() -> None:
    code = f"import sys, assay; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"
