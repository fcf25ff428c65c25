"""Our minimum-norm attacks and other libraries' of the same name: the same networks, images and settings, one process.

A library is measured if it imports; the others are named. Both sides are judged alike: what they return is clipped to
[0, 1], classified afresh, and a failure is infinitely far. Passes are per point: theirs by a hook on the network, ours
as the adversary was charged; seconds are the processor's. Names of attacks (``DDN FMN``) measure only those;
``--points N`` takes N images. The exit status is 1 where ours is farther than the best of the same name, or pays more
gradients than it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import peers
import torch
import zoo
from against_autoattack import counted
from numpy.typing import NDArray
from peers import Net, Peer, adv_lib, art, foolbox, torchattacks
from torch import Tensor

from assay import evasion, targets
from assay.evasion.threat import BUDGETS, MISCLASSIFY, TARGETED
from assay.numerics.seeds import Stream

INF = float("inf")
FARTHER = 0.02
"""How much farther our median may be than the best peer's."""

TIE = 0.001
"""Medians nearer to each other than this are equal: then the peer with the fewest gradients is the best."""


@dataclass(frozen=True)
class Contest:
    """One attack in one norm: our parameters, and who else has it.

    Attributes:
        attack: its name in ``assay.evasion``.
        goal: with ``"targeted"``, each point is to get the label after its own.
    """

    attack: str
    norm: str
    ours: Mapping[str, object]
    peers: Sequence[Peer]
    goal: str = MISCLASSIFY


STEPS, SEARCHES = 100, 9
"""Gradient steps of one search, and searches for a constant. Ours, where nothing is said, has its defaults."""

BRENDEL_BETHGE = {
    "linf": "LinfinityBrendelBethgeAttack",
    "l2": "L2BrendelBethgeAttack",
    "l1": "L1BrendelBethgeAttack",
    "l0": "L0BrendelBethgeAttack",
}

CONTESTS: Sequence[Contest] = (
    Contest("DeepFool", "l2", {}, (
        foolbox("L2DeepFoolAttack"), art("DeepFool", labels=False), torchattacks("DeepFool"), adv_lib("df", norm=2),
    )),
    Contest("DeepFool", "linf", {}, (foolbox("LinfDeepFoolAttack"), adv_lib("df", norm=INF))),
    Contest("DDN", "l2", {"steps": STEPS}, (
        foolbox("DDNAttack", steps=STEPS), adv_lib("ddn", steps=STEPS, levels=None),
    )),
    Contest("FMN", "linf", {"steps": STEPS}, (
        foolbox("LInfFMNAttack", steps=STEPS), adv_lib("fmn", norm=INF, steps=STEPS),
    )),
    Contest("FMN", "l2", {"steps": STEPS}, (foolbox("L2FMNAttack", steps=STEPS), adv_lib("fmn", norm=2, steps=STEPS))),
    Contest("FMN", "l1", {"steps": STEPS}, (foolbox("L1FMNAttack", steps=STEPS), adv_lib("fmn", norm=1, steps=STEPS))),
    Contest("FMN", "l0", {"steps": STEPS}, (foolbox("L0FMNAttack", steps=STEPS), adv_lib("fmn", norm=0, steps=STEPS))),
    Contest("FAB", "linf", {}, (adv_lib("fab", norm=INF, n_iter=STEPS),)),
    Contest("FAB", "l2", {}, (adv_lib("fab", norm=2, n_iter=STEPS),)),
    Contest("FAB", "l1", {}, (adv_lib("fab", norm=1, n_iter=STEPS),)),
    Contest("CarliniWagner", "l2", {}, (
        foolbox("L2CarliniWagnerAttack", steps=STEPS, binary_search_steps=SEARCHES), art("CarliniL2Method"),
        torchattacks("CW"), adv_lib("carlini_wagner_l2", max_iterations=STEPS, binary_search_steps=SEARCHES),
    )),
    Contest("CarliniWagner", "linf", {}, (
        art("CarliniLInfMethod"), adv_lib("carlini_wagner_linf", max_iterations=STEPS),
    )),
    Contest("ElasticNet", "l1", {}, (
        foolbox("EADAttack", steps=STEPS, binary_search_steps=SEARCHES, decision_rule="L1"),
        art("ElasticNet", max_iter=STEPS, binary_search_steps=SEARCHES, decision_rule="L1"), torchattacks("EADL1"),
    )),
    Contest("NewtonFool", "l2", {}, (
        foolbox("NewtonFoolAttack", steps=STEPS), art("NewtonFool", labels=False, softmax=True, max_iter=STEPS),
    )),
    *(Contest("BrendelBethge", norm, {}, (foolbox(name, steps=STEPS), foolbox(name, starts=True, steps=STEPS)))
      for norm, name in BRENDEL_BETHGE.items()),
    Contest("SigmaZero", "l0", {"steps": STEPS}, (adv_lib("sigma_zero", num_steps=STEPS),)),
    Contest("JSMA", "l0", {}, (
        art("SaliencyMapMethod", theta=1.0, gamma=0.1), torchattacks("JSMA", targeted=True, theta=1.0, gamma=0.1),
    ), TARGETED),
)


@dataclass(frozen=True)
class Points:
    """A network and images that it gets right; ``wanted`` is the label after each one's own."""

    target: targets.TorchTarget
    x: Tensor
    y: Tensor
    wanted: Tensor


@dataclass(frozen=True)
class Result:
    """What one side found and spent; passes are per point."""

    lengths: NDArray[np.float64]
    forwards: float
    backwards: float
    seconds: float

    @property
    def success(self) -> float:
        """The share of points for which an adversarial input was found."""
        return float(np.isfinite(self.lengths).mean())

    @property
    def median(self) -> float:
        """The median distance; ``inf`` where half of the points were not broken."""
        return float(np.median(self.lengths))


@dataclass
class Row:
    """One contest on one network, and in what ours fell short."""

    contest: Contest
    network: str
    ours: Result | None
    theirs: list[tuple[Peer, Result | str]]
    missed: list[str] = field(default_factory=list)


def points(loaded: zoo.Loaded, count: int) -> Points:
    """The first images that the network gets right."""
    target, images, labels = loaded
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    right = (target.labels(x) == y).nonzero()[:count, 0]
    classes = target.scores(x[:1]).shape[1]
    return Points(target, x[right], y[right], (y[right] + 1) % classes)


def lengths(on: Points, contest: Contest, z: Tensor) -> NDArray[np.float64]:
    """How far each returned input is, ``inf`` where it does not reach the goal."""
    z = torch.nan_to_num(z.detach().to(on.x.dtype)).clamp(0, 1)
    if contest.norm == "l0":  # a coordinate that moved by less than any image can is one that did not
        z = torch.where((z - on.x).abs() < 1e-6, on.x, z)
    labels = on.target.labels(z)
    reached = labels == on.wanted if contest.goal == TARGETED else labels != on.y
    far = BUDGETS[contest.norm](INF).distance((z - on.x).double(), torch.zeros_like(on.x).double())
    return torch.where(reached, far, INF).numpy()


def ours(on: Points, contest: Contest) -> Result | None:
    """Our attack with an infinite radius; ``None`` where this version has none of the name."""
    try:
        attack = getattr(evasion, contest.attack)(**contest.ours)
    except AttributeError:
        return None
    budget = BUDGETS[contest.norm](INF)
    view = budget.threat(goal=contest.goal).grant(on.target, len(on.x))
    labels = on.wanted if contest.goal == TARGETED else on.y
    began = time.process_time()
    z = attack.perturb(view, on.x, labels, budget, Stream.seeded(0, torch.arange(len(on.x))))
    seconds = time.process_time() - began
    spent = view.meter
    return Result(lengths(on, contest, z), float(spent.forwards.double().mean()),
                  float(spent.backwards.double().mean()), seconds)


def theirs(on: Points, contest: Contest, peer: Peer, limit: int) -> Result | str:
    """A peer's attack, weights frozen as its careful users do; in words what went wrong."""
    model = Net(on.target.module()).eval()
    labels = on.wanted if contest.goal == TARGETED else on.y
    torch.manual_seed(0)
    np.random.seed(0)
    with counted(model) as count, frozen(model), quiet(), alarm(limit):
        began = time.process_time()
        try:
            z = peer.run(model, on.x.clone(), labels.clone())
        except Exception as error:  # what a peer raises is its result
            return f"{type(error).__name__}: {error}".splitlines()[0][:80]
        seconds = time.process_time() - began
    n = len(on.x)
    return Result(lengths(on, contest, z), count.forwards / n, count.backwards / n, seconds)


@contextlib.contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """No gradient of weights is computed while the block runs."""
    asked = [(p, p.requires_grad) for p in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, was in asked:
            parameter.requires_grad_(was)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the block prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Raises ``TimeoutError`` in the block when its processor time is up."""
    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"over {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def best(results: Sequence[Result]) -> Result:
    """The nearest; among equals the one with the fewest gradients."""
    least = min(result.median for result in results)
    return min((r for r in results if r.median <= least * (1 + TIE)), key=lambda r: r.backwards)


def judged(row: Row) -> Row:
    """The row with what ours missed: the best peer's median, or its gradients."""
    results = [result for _, result in row.theirs if isinstance(result, Result)]
    bar = best(results) if results else None
    if row.ours is None or bar is None or bar.median == INF:
        return row
    if row.ours.median > bar.median * (1 + FARTHER):
        row.missed.append(f"median {row.ours.median:.4g} > {bar.median:.4g}")
    if row.ours.backwards > bar.backwards:
        row.missed.append(f"gradients {row.ours.backwards:.0f} > {bar.backwards:.0f}")
    return row


HEADER = """\
| network | norm | attack | library | parameters | success | median | forwards | backwards | CPU s |
|---|---|---|---|---|---:|---:|---:|---:|---:|"""


def lines(row: Row) -> Iterator[str]:
    """Ours, then the peers, as lines of a Markdown table."""
    head = f"| {row.network} | {row.contest.norm} | {row.contest.attack} |"
    if row.ours is None:
        yield f"{head} **ours** | not in this version | | | | | |"
    else:
        yield f"{head} **ours** | {peers.words(dict(row.contest.ours))} | {figures(row.ours)} |"
    for peer, result in row.theirs:
        told = figures(result) if isinstance(result, Result) else f"{result} | | | |"
        yield f"{head} {peer.library} {peer.name} | {peer.settings} | {told} |"


def figures(result: Result) -> str:
    """The right half of a line."""
    return (f"{result.success:.0%} | {result.median:.4g} | {result.forwards:,.1f} | {result.backwards:,.1f} "
            f"| {result.seconds:.1f}")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("attacks", nargs="*", help="only these, by our names")
    parser.add_argument("--points", type=int, default=100, help="images per network")
    parser.add_argument("--limit", type=int, default=120, help="processor seconds that a peer may take")
    return parser.parse_args()


def main() -> int:
    """Prints the table; 1 where ours fell short."""
    if reason := zoo.missing():
        raise SystemExit(reason)
    asked, absent = arguments(), peers.missing()
    torch.set_num_threads(1)
    found = ", ".join(f"{name} {number}" for name, number in peers.versions().items())
    print(f"torch {torch.__version__}, CPU, 1 thread; passes per point; peers: {found or 'none'}")
    for library, why in absent.items():
        print(f"Not measured: {library} ({why}).")
    print(f"\n{HEADER}", flush=True)
    missed = []
    for loaded in (zoo.undefended(), zoo.sdp("cifar_cnn_a_adv")):
        on = points(loaded, asked.points)
        for contest in CONTESTS:
            if asked.attacks and contest.attack not in asked.attacks:
                continue
            present = [peer for peer in contest.peers if peer.library not in absent]
            results = [(peer, theirs(on, contest, peer, asked.limit)) for peer in present]
            row = judged(Row(contest, on.target.name, ours(on, contest), results))
            print("\n".join(lines(row)), flush=True)
            missed += [f"{row.network} {contest.norm} {contest.attack}: {what}" for what in row.missed]
    print(f"\nBars: median +{FARTHER:.0%}, no more gradients than the best of the name. "
          f"Missed: {'; '.join(missed) or 'none'}.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
