"""Planted bugs under one default audit, and the ladder of adversaries on a training that has none.

DP-SGD of a logistic regression on a hundred digits, 20 full-batch steps (the zoo of the tests), δ = 1e-5.
``python benchmarks/auditing.py [runs]``. The exit status is 1 where a bug is not refuted, or the correct training is.
"""

from __future__ import annotations

import math
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from assay import demo, privacy
from assay.privacy.auditing.audit import LADDER


def _zoo() -> ModuleType:
    path = Path(__file__).parents[1] / "tests" / "privacy" / "auditing" / "zoo.py"
    spec = spec_from_file_location("assay_zoo_of_trainings", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(runs: int) -> int:
    """Prints both tables; how many rows are not as they should be."""
    zoo, data, wrong = _zoo(), demo.digits("train[:100]"), 0
    print("| bug | claim | adversary | ε at least | ceiling | p | refuted | seconds |")
    print("|---|---:|---|---:|---:|---:|---|---:|", flush=True)
    for bug, training in zoo.zoo().items():
        began = time.perf_counter()
        found = privacy.audit(training, data=data, claim=training.claim, runs=runs)
        wrong += found.refuted != bool(bug)
        spent, verdict = time.perf_counter() - began, "yes" if found.refuted else "no"
        print(f"| {bug or 'none'} | {found.claim:.2f} | {found.adversary} | {found.epsilon:.2f} | {found.ceiling:.2f} "
              f"| {found.p_value:.1g} | {verdict} | {spent:.0f} |", flush=True)
    training = zoo.Logistic(noise=math.sqrt(training.steps))
    print(f"\nε of the correct training: {training.claim[0]:.3f}, shown by each adversary:\n")
    print("| adversary | exact rates | Gaussian curve | seconds |")
    print("|---|---:|---:|---:|", flush=True)
    for rung in LADDER:
        began = time.perf_counter()
        exact, curve = (
            privacy.audit(training, data=data, claim=training.claim, runs=runs, adversary=rung, method=method)
            for method in (privacy.Exact(), privacy.GaussianCurve()))
        wrong += exact.refuted or curve.refuted
        spent = time.perf_counter() - began
        print(f"| {type(rung).__name__} | {exact.epsilon:.2f} | {curve.epsilon:.2f} | {spent:.0f} |", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))
