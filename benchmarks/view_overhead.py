"""What the View costs: PGD-40 through it, beside the same calls without it, in turns, on a small CNN.

Both sides do the same forwards, backwards, projections and checks on the same points; the difference is the counting
and the checking of what is granted. Prints each pair and the median ratio; exits 1 above 2 %.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay import evasion, targets
from assay.evasion.objectives import cross_entropy
from assay.numerics.seeds import Stream
from assay.targets import TorchTarget
from assay.threats import View

ROWS, STEPS, PAIRS, BAR = 256, 40, 15, 0.02


def network() -> TorchTarget:
    """Two convolutions and two dense layers on 28 × 28 images, untrained: so no point falls and every step is paid."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
              nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    return targets.torch(nn.Sequential(*layers).eval(), name="cnn")


def climbed(x: Tensor, y: Tensor, look: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Forty steps of projected ascent along what ``look`` gives for inputs and points."""
    ball, bounds, at, z = evasion.Linf(1e-4), targets.Bounds(0.0, 1.0), torch.arange(len(x)), x
    for _ in range(STEPS):
        z = ball.project(z + 1e-5 * ball.steepest(look(z, at)), x, bounds)
    return z


def seconds(work: Callable[[], Tensor]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    """Alternating pairs; the exit status."""
    target = network()
    x = Stream.seeded(0, torch.arange(ROWS)).uniform(1, 28, 28)
    y = target.labels(x)

    def with_view() -> Tensor:
        view: View = evasion.Linf(1e-4).threat(queries=1000).grant(target, len(x), labels=y)
        return climbed(x, y, lambda z, at: view.gradient(z, at, cross_entropy, y).gradient)

    def without() -> Tensor:
        return climbed(x, y, lambda z, at: target.graded(z, cross_entropy, y).gradient)

    assert torch.equal(with_view(), without())
    ratios = []
    for pair in range(PAIRS):
        sides = (with_view, without) if pair % 2 else (without, with_view)
        spent = {side: seconds(side) for side in sides}
        ratios.append(spent[with_view] / spent[without] - 1)
        print(f"pair {pair + 1}: {spent[without]:.3f} s without, {ratios[-1]:+.2%} with the view", flush=True)
    overhead = statistics.median(ratios)
    print(f"median overhead of the view: {overhead:+.2%} of PGD-{STEPS} on {ROWS} points (bar {BAR:.0%})")
    return 0 if overhead < BAR else 1


if __name__ == "__main__":
    sys.exit(main())
