"""JSMA against linear models, of which the fewest changes are known, and against the figures of its peers."""

from __future__ import annotations

import torch
from adversarial_cifar import found
from test_sigma_zero import planes

from assay.evasion import JSMA, L0
from assay.evasion.attacks.jsma import _most_salient
from assay.numerics.balls import distance
from assay.numerics.seeds import Stream

INF = float("inf")


def perturbed(target, x, y, radius: float = INF, **goal):
    view = L0(radius).threat(**goal).grant(target, len(x))
    return JSMA(share=1.0).perturb(view, x, y, L0(radius), Stream.seeded(0, torch.arange(len(x)))), view


def test_changes_at_most_a_pair_more_than_suffices():
    target, x, y, fewest = planes()
    z, _ = perturbed(target, x, y)
    count = distance(z - x, 0)
    assert (target.labels(z) != y).all()
    assert (count >= fewest).all()
    # Pairs, chosen by slope and not by how far each value may go: a little more than the best choice.
    assert float((count - fewest).mean()) <= 2.5


def test_keeps_to_an_odd_budget_and_reaches_a_given_label():
    target, x, y, fewest = planes()
    z, _ = perturbed(target, x, y, radius=3)
    broken = target.labels(z) != y
    assert (distance(z - x, 0) <= 3).all()
    assert not broken[fewest > 3].any()
    assert torch.equal(z[~broken], x[~broken])
    z, _ = perturbed(target, x, 1 - y, goal="targeted")
    assert (target.labels(z) == 1 - y).all()


def test_the_most_salient_pair_is_that_of_an_exhaustive_search():
    gen = torch.Generator().manual_seed(0)
    alpha, beta = (torch.randn(6, 15, generator=gen, dtype=torch.float64) for _ in range(2))
    free = torch.rand(6, 15, generator=gen) > 0.2
    value, pair = _most_salient(alpha, beta, free, True)
    for row in range(6):
        best = max(-(alpha[row, p] + alpha[row, q]) * (beta[row, p] + beta[row, q])
                   for p in range(15) for q in range(p)
                   if free[row, p] and free[row, q] and alpha[row, p] + alpha[row, q] > 0 > beta[row, p] + beta[row, q])
        assert float(value[row]) == float(best)
        assert pair[row, 0] != pair[row, 1]
        assert free[row, pair[row]].all()


def test_changes_fewer_values_than_its_peers():
    """ART 1.20.1, theta 1, gamma 0.1, targeted at the next class: median 214, 62 % broken, of these 100 points."""
    ours = found(JSMA(), "l0")
    assert ours.success == 1
    assert ours.median <= 40  # 32 when first measured
