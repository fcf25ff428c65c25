"""Shadow models: ours and a plain loop over models side by side, and PrivacyGuard's where it can be imported.

Two CPU cores. The plain loop is what one would write: tensors in memory, torch.optim.SGD, one model after another; it
runs with one thread and with two, and the faster counts. Ours runs in this process, and on two warm processes of one
thread each. Everything trains the same networks on the same halves for as many epochs. Seconds are of the wall; beside
other work the seconds of computing (CPU) tell more, of two processes those of the busier one. Of several rounds the
shortest counts. The exit status is 1 where a bar is missed.

    python benchmarks/shadows.py [rounds]
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from assay import data, demo
from assay.numerics.ensembles import Recipe
from assay.privacy import LiRA, Signals, balanced_keep, judge, processes, train_shadows

FASTER = 3.0
"""Bar: how many times the plain loop's throughput, where stacking pays; 1 where it does not."""

SCORED = 10.0
"""Bar: seconds for the signals and LiRA scores of 10,000 examples and 64 models."""


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))


def narrow_cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
                         nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))


def pooled_cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10))


@dataclass(frozen=True)
class Case:
    """One network, and how long it is trained."""

    name: str
    init: Callable[[], nn.Module]
    epochs: int
    batch: int
    models: int

    @property
    def recipe(self) -> Recipe:
        return Recipe(init=self.init, epochs=self.epochs, batch=self.batch, rate=0.05, weight_decay=5e-4)


CASES = (
    Case("MLP 784-64-10, batches of 32", mlp, 4, 32, 64),
    Case("CNN of 8 and 16 strided filters, batches of 16", narrow_cnn, 2, 16, 32),
    Case("CNN of 16 and 32 pooled filters, batches of 32", pooled_cnn, 1, 32, 16),
)


def plain(case: Case, x: Tensor, y: Tensor, keep: np.ndarray) -> None:
    """A loop over models as one would write it."""
    for seed, row in enumerate(keep):
        torch.manual_seed(seed)
        model, members = case.init(), torch.from_numpy(np.flatnonzero(row))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, case.epochs)
        for _ in range(case.epochs):
            for at in members[torch.randperm(len(members))].split(case.batch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[at]), y[at]).backward()
                optimizer.step()
            schedule.step()


def guarded(case: Case, x: Tensor, y: Tensor, keep: np.ndarray) -> None:
    """PrivacyGuard's training loop with its own rate; its evaluation is given eight examples to look at."""
    training = import_module("privacy_guard.shadow_model_training.training")
    pool = TensorDataset(x, y)
    few = DataLoader(Subset(pool, range(8)), batch_size=8)
    for seed, row in enumerate(keep):
        torch.manual_seed(seed)
        loader = DataLoader(Subset(pool, np.flatnonzero(row).tolist()), batch_size=case.batch, shuffle=True)
        with contextlib.redirect_stdout(io.StringIO()):
            training.train_model(case.init(), loader, few, case.epochs, torch.device("cpu"))


class Spent(NamedTuple):
    """Seconds of the wall, and of computing."""

    wall: float
    cpu: float


def seconds(run: Callable[[], Any], threads: int = 1) -> Spent:
    torch.set_num_threads(threads)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def clocked(function: Callable[[Any], Any], task: Any) -> tuple[Any, int, float]:
    """A task's result, who did it, and the computing it took."""
    start = time.process_time()
    return function(task), os.getpid(), time.process_time() - start


@dataclass
class Clocked:
    """A map to other processes that keeps count of the computing there."""

    other: Any
    spent: dict[int, float] = field(default_factory=dict)

    def __call__(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        for found, worker, took in self.other(partial(clocked, function), tasks):
            self.spent[worker] = self.spent.get(worker, 0.0) + took
            yield found


def abroad(run: Callable[[Any], Any], other: Any) -> Spent:
    """The same through the map: this process's computing and the busier worker's."""
    clock = Clocked(other)
    here = seconds(lambda: run(clock))
    return Spent(here.wall, here.cpu + max(clock.spent.values()))


def compared(case: Case, x: Tensor, y: Tensor, other: Any, rounds: int) -> bool:
    """One row of the table; the sides take turns."""
    models, pool = case.models, SimpleNamespace(x=x, y=y)
    keep = balanced_keep(models, len(x), 0)
    few = keep[: max(models // 8, 2)]
    plans: list[str] = []

    def ours(**way: Any) -> None:
        plans.append(train_shadows(case.recipe, pool, models, keep=keep, **way).plan.how)

    sides: dict[str, Callable[[], Spent]] = {
        "plain loop, one thread": lambda: seconds(lambda: plain(case, x, y, keep)),
        "plain loop, two threads": lambda: seconds(lambda: plain(case, x, y, keep), 2),
        "ours, one process": lambda: seconds(ours),
        "ours, two processes": lambda: abroad(lambda clock: ours(map=clock, chunk=-(-models // 4)), other),
    }
    if peer():
        sides["PrivacyGuard 0.0.2"] = lambda: times(seconds(lambda: guarded(case, x, y, few)), models / len(few))
    taken = [{name: run() for name, run in sides.items()} for _ in range(rounds)]
    best = {name: Spent(*map(min, zip(*(each[name] for each in taken)))) for name in sides}
    loop = Spent(*map(min, best["plain loop, one thread"], best["plain loop, two threads"]))
    print(f"\n{case.name}: {models} models of {int(keep[0].sum())} examples, {case.epochs} epochs; {plans[-1]}")
    for name, (wall, cpu) in best.items():
        print(f"  {name:26} {wall:7.2f} s {models / wall:7.2f} models/s {loop.wall / wall:6.2f}x"
              f"   CPU {cpu:7.2f} s {loop.cpu / cpu:6.2f}x", flush=True)
    ahead = max(loop.wall / best["ours, two processes"].wall, loop.cpu / best["ours, two processes"].cpu)
    return ahead >= (FASTER if plans[-1] == "stacked" else 1.0)


def times(spent: Spent, factor: float) -> Spent:
    return Spent(spent.wall * factor, spent.cpu * factor)


def scored(init: Callable[[], nn.Module], x: Tensor, y: Tensor) -> bool:
    """Signals and LiRA for 10,000 examples and 64 models; training is not timed."""
    torch.set_num_threads(1)
    keep = balanced_keep(64, len(x), 0)
    shadows = train_shadows(Recipe(init=init, epochs=1, batch=250), SimpleNamespace(x=x, y=y), 64, keep=keep)
    found: list[Signals] = []
    asking = seconds(lambda: found.append(shadows.signals(x, y)))
    rest, one = found[0].models(slice(1, None)), found[0].models([0])
    judging = seconds(lambda: judge(LiRA(), target=one, shadows=rest))
    print(f"\n{init.__name__}: {len(x)} examples x 64 models: signals {asking.wall:.2f} s ({asking.cpu:.2f} s CPU), "
          f"LiRA and its ROC {judging.wall:.2f} s")
    if peer():
        print(f"  PrivacyGuard 0.0.2: LiRA {seconds(lambda: guarded_scores(found[0])).wall:.2f} s")
    return asking.wall + judging.wall < SCORED


def guarded_scores(signals: Signals) -> None:
    """PrivacyGuard's preparation of the same signals, and its LiRA."""
    training, attacks = (import_module(f"privacy_guard.{name}") for name in
                         ("shadow_model_training.training", "attacks.lira_attack"))
    kind = import_module("privacy_guard.analysis.mia.aggregate_analysis_input").AggregationType.NONE
    shadows = [(None, row) for row in signals.keep[1:]]
    made = training.prepare_lira_data(signals.values[0], signals.values[1:], (None, signals.keep[0]), shadows)
    attacks.LiraAttack(made[0], made[1], kind, online_attack=True).run_attack()


def peer() -> bool:
    """Whether PrivacyGuard can be imported."""
    try:
        import_module("privacy_guard.shadow_model_training.training")
    except ImportError:
        return False
    return True


def images(count: int) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST where it is at hand, and else digits of the demo, enlarged."""
    folder = Path(os.environ.get("ASSAY_ASSETS", "../shared/assets")) / "datasets" / "fashion_mnist"
    if folder.exists():
        found = data.load(f"mnist:{folder}#train[:{count}]")
        return torch.from_numpy(found.x), torch.from_numpy(found.y)
    x, y = demo.digits("train")
    at = torch.arange(count) % len(x)
    return nn.functional.interpolate(x, 28)[at], y[at]


def main() -> int:
    held = []
    x, y = images(10_000)
    with processes(2) as other:
        warm = Recipe(init=mlp, epochs=40, batch=64)
        train_shadows(warm, SimpleNamespace(x=x[:500], y=y[:500]), 16, how="stacked", chunk=4, map=other)
        rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
        held += [compared(case, x[:5000], y[:5000], other, rounds) for case in CASES]
    held += [scored(init, x, y) for init in (mlp, narrow_cnn)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
