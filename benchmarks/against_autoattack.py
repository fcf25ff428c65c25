"""Our AutoAttack and the reference one side by side: the same networks and images, in turns, one thread each.

The reference is whatever ``import autoattack`` finds; nothing here installs it. Rows through the network are counted
by a hook on the bare module, the same for both, so each side pays for its own checks too; ours also says what its
adversary alone was charged. The exit status is 1 where a ratio misses its bar.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
import zoo
from torch import Tensor, nn

from assay import targets
from assay.evasion import AutoAttack, EvasionGame, Linf
from assay.evasion.threat import Ball

FORWARDS, SECONDS, UNDEFENDED, POINT = 0.5, 0.4, 0.1, 0.01
"""Bars: ratios of forwards, of wall-clock, of forwards on an undefended network; robust accuracy above theirs."""


@dataclass(frozen=True)
class Case:
    """One network under one budget, and how many forwards we may spend of the reference's."""

    load: Callable[[], zoo.Loaded]
    budget: Ball
    forwards: float = FORWARDS


CASES = (
    Case(lambda: zoo.sdp("cifar_cnn_a_adv"), Linf(2 / 255)),
    Case(lambda: zoo.sdp("cifar_cnn_a_mix"), Linf(2 / 255)),
    Case(lambda: zoo.sdp("mnist_cnn_a_adv"), Linf(0.3)),
    Case(zoo.undefended, Linf(0.3), UNDEFENDED),
)


@dataclass
class Count:
    """Rows forward and backward through a module."""

    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Run:
    """What one side found and spent; passes are per point."""

    robust: float
    charged: float
    forwards: float
    backwards: float
    seconds: float


@dataclass
class Row:
    """Both sides of one case."""

    name: str
    case: Case
    ours: Run
    reference: Run | None
    missed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[Count]:
    """Counts every row that passes the module while the block runs."""
    count = Count()

    def backward(gradient: Tensor) -> None:
        count.backwards += len(gradient)

    def forward(_: nn.Module, __: object, out: Tensor) -> None:
        count.forwards += len(out)
        if out.requires_grad:
            out.register_hook(backward)

    handle = model.register_forward_hook(forward)
    try:
        yield count
    finally:
        handle.remove()


def ours(target: targets.TorchTarget, x: np.ndarray, y: np.ndarray, budget: Ball) -> Run:
    """Our game, from the call to the evidence: attack, referee and the search for doubts."""
    game = EvasionGame(x, y, threat=budget.threat())
    with counted(target.model) as count:
        began = time.perf_counter()
        found = game.play(AutoAttack(), target, seed=0)
        seconds = time.perf_counter() - began
    if found.kind == "not run":
        raise SystemExit(found.error)
    n, cost = len(y), found.cost
    # Our batched class gradients pass the hook once for all classes, so backwards are those that were charged.
    return Run(found["robust accuracy"].estimate, cost.forwards / n, count.forwards / n, cost.backwards / n, seconds)


def reference(module: ModuleType, target: targets.TorchTarget, x: np.ndarray, y: np.ndarray, budget: Ball) -> Run:
    """The reference's standard evaluation with its defaults, in one batch."""
    model, inputs, labels = target.module().eval(), torch.from_numpy(x), torch.from_numpy(y)
    asked = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in asked:  # as its users do: no gradient of weights is computed
        parameter.requires_grad_(False)
    with counted(target.model) as count, contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        attack = module.AutoAttack(model, norm="Linf", eps=budget.radius, seed=0, version="standard", device="cpu")
        found = attack.run_standard_evaluation(inputs, labels, bs=len(labels))
        seconds = time.perf_counter() - began
    for parameter, was in asked:
        parameter.requires_grad_(was)
    robust = float((target.labels(found) == labels).double().mean())
    n = len(y)
    return Run(robust, count.forwards / n, count.forwards / n, count.backwards / n, seconds)


def measure(module: ModuleType | None, number: int, case: Case) -> Row:
    """Both sides of one case; who begins alternates."""
    target, x, y = case.load()
    theirs = reference(module, target, x, y, case.budget) if module and number % 2 else None
    mine = ours(target, x, y, case.budget)
    if module and theirs is None:
        theirs = reference(module, target, x, y, case.budget)
    row = Row(target.name, case, mine, theirs)
    if theirs is not None:
        row.missed = [what for what, ratio, bar in (
            ("forwards", mine.forwards / theirs.forwards, case.forwards),
            ("wall-clock", mine.seconds / theirs.seconds, SECONDS),
            ("robust accuracy", mine.robust - theirs.robust, POINT + 1e-9),
        ) if ratio > bar]
    return row


HEADER = """\
| network | budget | | robust | forwards charged | forwards in all | backwards | seconds |
|---|---|---|---:|---:|---:|---:|---:|"""


def lines(row: Row) -> Iterator[str]:
    """Both sides and their ratio, as lines of a Markdown table."""
    head = f"| {row.name} | {row.case.budget} |"
    for who, run in (("ours", row.ours), ("reference", row.reference)):
        if run is not None:
            yield (f"{head} {who} | {run.robust:.1%} | {run.charged:,.1f} | {run.forwards:,.1f} "
                   f"| {run.backwards:,.1f} | {run.seconds:.1f} |")
    if (theirs := row.reference) is not None:
        mine = row.ours
        yield (f"{head} **ratio** | {mine.robust - theirs.robust:+.1%} | {mine.charged / theirs.charged:.3f} "
               f"| {mine.forwards / theirs.forwards:.3f} | {mine.backwards / theirs.backwards:.3f} "
               f"| {mine.seconds / theirs.seconds:.2f} |")


def main() -> int:
    """Prints the table; 1 where a bar is missed."""
    if reason := zoo.missing():
        raise SystemExit(reason)
    torch.set_num_threads(1)
    module: ModuleType | None = None
    try:
        module = import_module("autoattack")
    except ImportError:
        print("The reference AutoAttack was not found (PYTHONPATH names no checkout of it): only ours is measured.\n")
    print(f"torch {torch.__version__}, CPU, {torch.get_num_threads()} thread, 200 images, passes per image\n")
    print(HEADER, flush=True)
    rows = []
    for number, case in enumerate(CASES):
        rows.append(measure(module, number, case))
        print("\n".join(lines(rows[-1])), flush=True)
    missed = [f"{row.name}: {what}" for row in rows for what in row.missed]
    if module is not None:
        print(f"\nBars: forwards {FORWARDS}, undefended {UNDEFENDED}, wall-clock {SECONDS}, robust +{POINT}.")
        print("Missed: " + ("; ".join(missed) if missed else "none") + ".")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
