"""Our attacks by labels and foolbox's side by side: the same network and images, one thread, in one process.

foolbox is whatever ``import foolbox`` finds; nothing here installs it. It reports no queries, so rows are counted in
front of the network, and of foolbox the nearest success that it ever asked about counts, returned or not. It attacks
all images in one batch, as its users do. Ours is run once for each number of queries. Two ratios of time are
given: after the same queries, and from the cheapest of our runs that is as near as foolbox is then. The second is the
bar. The exit status is 1 where a bar is missed.

    scripts/bench decisions [images]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import zoo
from torch import Tensor, nn

from assay import targets
from assay.evasion import L2, Boundary, HopSkipJump
from assay.numerics.seeds import Stream

QUERIES = (1000, 5000, 20_000)
"""Per image, at which the median distances are compared."""

LADDER = (50, 100, 250, 500, 1000, 2000, 5000, 8000, 20_000)
"""At which ours may be run; the first that is as near as the reference says how much sooner we are there."""

FASTER = 5.0
"""Bar: how many times sooner we are as near as the reference."""


@dataclass(frozen=True)
class Case:
    """One method on both sides."""

    name: str
    ours: HopSkipJump | Boundary
    reference: Callable[[Any], Any]


CASES = (
    Case("HopSkipJump", HopSkipJump(), lambda attacks: attacks.HopSkipJumpAttack(steps=10_000)),
    Case("Boundary", Boundary(), lambda attacks: attacks.BoundaryAttack(steps=25_000)),
)


@dataclass(frozen=True)
class Mark:
    """How near a side had come after so many queries an image, and after how long."""

    median: float
    seconds: float
    processor: float


class Stop(Exception):
    """Enough queries."""


class Watch(nn.Module):
    """Counts rows in front of a network, and keeps how near the successes among them are; its own time is taken off."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.model, self.x, self.y = model, x, y
        self.best = torch.full((len(x),), math.inf)
        self.rows, self.marks, self.own = 0, {}, (0.0, 0.0)
        self.began = _clocks()

    def forward(self, z: Tensor) -> Tensor:
        """The network's answer; ``Stop`` when the last mark is met."""
        out: Tensor = self.model(z)
        met = _clocks()
        if len(z) == len(self.x):
            far = torch.linalg.vector_norm((z - self.x).flatten(1), dim=1)
            self.best = torch.where(out.argmax(1) != self.y, torch.minimum(far, self.best), self.best)
        self.rows += len(z)
        for queries in QUERIES:
            if self.rows >= queries * len(self.x) and queries not in self.marks:
                spent = [now - then - own for now, then, own in zip(met, self.began, self.own)]
                self.marks[queries] = Mark(float(self.best.median()), *spent)
        self.own = tuple(own + now - then for own, now, then in zip(self.own, _clocks(), met))
        if len(self.marks) == len(QUERIES):
            raise Stop
        return out


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def images(count: int) -> tuple[targets.TorchTarget, Tensor, Tensor]:
    """The undefended network and so many test images that it gets right.

    Of a class to which it counts all uniform noise there are none: foolbox finds no start there, and gives up on all.
    """
    target, pixels, labels = zoo.undefended(count=2 * count)
    x, y = torch.from_numpy(pixels), torch.from_numpy(labels)
    noise = target.labels(torch.rand(500, *x.shape[1:], generator=torch.Generator().manual_seed(0)))
    common = int(noise.bincount().argmax())
    fit = (target.labels(x) == y) & (y != common)
    return target, x[fit][:count], y[fit][:count]


@dataclass(frozen=True, eq=False)
class Ours:
    """One side: a run for each number of queries that is asked about."""

    attack: HopSkipJump | Boundary
    target: targets.TorchTarget
    x: Tensor
    y: Tensor
    known: dict[int, Mark] = field(default_factory=dict)

    def at(self, queries: int) -> Mark:
        """How near so many queries come, and how long they take."""
        if queries not in self.known:
            budget = L2(math.inf)
            view = budget.threat(access="labels", queries=queries).grant(self.target, len(self.x))
            began = _clocks()
            found = self.attack.closest(view, self.x, self.y, budget, Stream.seeded(0, torch.arange(len(self.x))))
            spent = [now - then for now, then in zip(_clocks(), began)]
            if int(view.meter.queries.max()) > queries:
                raise SystemExit(f"{self.attack} overdrew")
            self.known[queries] = Mark(float(found.length.median()), *spent)
        return self.known[queries]

    def as_near(self, median: float) -> tuple[int, Mark] | None:
        """The cheapest run that is as near."""
        return next(((queries, self.at(queries)) for queries in LADDER if self.at(queries).median <= median), None)


def reference(module: ModuleType, case: Case, target: targets.TorchTarget, x: Tensor, y: Tensor) -> dict[int, Mark]:
    """One long run, looked at on its way."""
    watch = Watch(target.module(), x, y).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = module.PyTorchModel(watch, bounds=(0, 1), device="cpu")
        try:
            case.reference(module.attacks).run(model, x, module.criteria.Misclassification(y))
        except Stop:
            return dict(watch.marks)
    raise SystemExit(f"foolbox's {case.name} ended after {watch.rows / len(x):,.0f} queries")


HEADER = """\
| attack | queries | | median L2 | seconds | of the processor |
|---|---:|---|---:|---:|---:|"""


def lines(case: Case, queries: int, mine: Ours, peer: dict[int, Mark] | None) -> tuple[list[str], list[str]]:
    """Some lines of the table, and the bars that are missed."""

    def row(who: str, mark: Mark) -> str:
        return f"| {case.name} | {queries:,} | {who} | {mark.median:.3f} | {mark.seconds:.1f} | {mark.processor:.1f} |"

    our = mine.at(queries)
    if peer is None:
        return [row("ours", our)], []
    their, missed = peer[queries], []
    rows = [row("ours", our), row("foolbox", their)]
    if our.median > their.median:
        missed.append(f"{case.name} at {queries:,}: median")
    ratios = [("**foolbox / ours, same queries**", our)]
    if level := mine.as_near(their.median):
        ratios.append((f"**foolbox / ours, as near after {level[0]:,}**", level[1]))
    for who, mark in ratios:
        rows.append(f"| {case.name} | {queries:,} | {who} | {their.median / mark.median:.2f} "
                    f"| {their.seconds / mark.seconds:.1f} | {their.processor / mark.processor:.1f} |")
    if level is None or their.seconds < FASTER * level[1].seconds:
        missed.append(f"{case.name} at {queries:,}: wall-clock")
    return rows, missed


def main() -> int:
    """Prints the table; 1 where a bar is missed."""
    if reason := zoo.missing():
        raise SystemExit(reason)
    torch.set_num_threads(1)
    module: ModuleType | None = None
    try:
        module = import_module("foolbox")
    except ImportError:
        print("foolbox was not found: only ours is measured.\n")
    target, x, y = images(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    print(f"torch {torch.__version__}, CPU, {torch.get_num_threads()} thread, {len(x)} images, {target.name}\n")
    print(HEADER, flush=True)
    missed: list[str] = []
    for case in CASES:
        peer = reference(module, case, target, x, y) if module else None
        mine = Ours(case.ours, target, x, y)
        for queries in QUERIES:
            rows, misses = lines(case, queries, mine, peer)
            print("\n".join(rows), flush=True)
            missed += misses
    if module:
        print(f"\nBars: no larger a median; as near {FASTER:g} times sooner, by the cheapest of our runs that is.")
        print("Missed: " + ("; ".join(missed) if missed else "none") + ".")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
