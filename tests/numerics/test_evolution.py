"""Evolutionary search against known optima and the evaluations that reference implementations need."""

from __future__ import annotations

import math

import pytest
import torch

from assay.numerics.evolution import CMAES, DifferentialEvolution, _Rates
from assay.numerics.seeds import Stream

ROWS = 11


def sphere(x):
    return x.square().sum(-1)


def rosenbrock(x):
    return (100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


def ellipsoid(x):
    return (10 ** (6 * torch.arange(x.shape[-1]) / (x.shape[-1] - 1)) * x.square()).sum(-1)


def evaluations(search, f, target, most):
    """The median over the rows of how many evaluations it took to get below the target; ``inf`` where it did not."""
    rng = Stream.seeded(0, torch.arange(ROWS))
    taken = torch.full((ROWS,), torch.inf)
    for generation in range(most // search.members):
        candidates = search.ask(rng.fold(generation))
        losses = f(candidates)
        arrived = (losses.min(1).values < target) & torch.isinf(taken)
        taken[arrived] = (generation + 1.0) * search.members
        search = search.tell(candidates, losses)
        if torch.isfinite(taken).all():
            break
    return float(taken.median())


# Of pycma 4.5.0, CMAEvolutionStrategy(n * [start], 0.5, {"ftarget": 1e-9, "CMA_diagonal": separable}): the median number
# of evaluations over 11 seeds.
PYCMA = [(sphere, 10, 3.0, False, 1650), (sphere, 10, 3.0, True, 1400), (ellipsoid, 10, 3.0, False, 4240),
         (ellipsoid, 10, 3.0, True, 2490), (rosenbrock, 8, 0.0, False, 3640)]


@pytest.mark.parametrize(("f", "n", "start", "separable", "pycma"), PYCMA)
def test_cma_es_needs_no_more_evaluations_than_pycma(f, n, start, separable, pycma):
    search = CMAES.start(torch.full((ROWS, n), start), 0.5, separable=separable)
    assert evaluations(search, f, 1e-9, 8000) < 1.1 * pycma


# Of scipy 1.17.1, differential_evolution(recombination=1, mutation=(0.5, 1), init="random", updating="deferred"): the
# median number of evaluations to a loss of 1e-6 over 11 seeds; "rand1bin" with 40 members, "best1bin" with 100.
SCIPY = [(lambda x: sphere(x - 0.3), 10, 40, False, 10_416), (lambda x: sphere(x - 0.3), 10, 100, True, 6239),
         (lambda x: rosenbrock(4 * x - 2), 5, 40, False, 8273), (lambda x: rosenbrock(4 * x - 2), 5, 100, True, 6577)]


@pytest.mark.parametrize(("f", "n", "members", "greedy", "scipy"), SCIPY)
def test_differential_evolution_needs_no_more_evaluations_than_scipy(f, n, members, greedy, scipy):
    population = Stream.seeded(1, torch.arange(ROWS)).uniform(members, n, dtype=torch.float64)
    search = DifferentialEvolution.start(population, greedy=greedy)
    assert evaluations(search, f, 1e-6, 20_000) < 1.1 * scipy


def searches(n=6):
    population = Stream.seeded(1, torch.arange(ROWS)).uniform(12, n, dtype=torch.float64)
    return [DifferentialEvolution.start(population), CMAES.start(torch.zeros(ROWS, n), 0.5),
            CMAES.start(torch.zeros(ROWS, n), 0.5, separable=True)]


@pytest.mark.parametrize("which", range(3), ids=["de", "cma-es", "separable"])
def test_rows_do_not_influence_each_other(which):
    together, alone = searches()[which], searches()[which].keep(torch.tensor([4]))
    rng = Stream.seeded(0, torch.arange(ROWS))
    for generation in range(60):
        candidates, own = together.ask(rng.fold(generation)), alone.ask(rng.select(torch.tensor([4])).fold(generation))
        torch.testing.assert_close(own[0], candidates[4], rtol=0, atol=1e-9)
        together, alone = together.tell(candidates, rosenbrock(candidates)), alone.tell(own, rosenbrock(own))


@pytest.mark.parametrize("which", range(3), ids=["de", "cma-es", "separable"])
def test_only_the_order_of_the_losses_matters(which):
    plain = warped = searches()[which]
    rng = Stream.seeded(0, torch.arange(ROWS))
    for generation in range(20):
        a, b = plain.ask(rng.fold(generation)), warped.ask(rng.fold(generation))
        plain, warped = plain.tell(a, sphere(a)), warped.tell(b, sphere(b).log() * 7 - 100)
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("members", [4, 5, 40])
def test_mutants_are_made_of_three_different_others(members):
    search = DifferentialEvolution.start(torch.rand(500, members, 2, generator=torch.Generator().manual_seed(0)))
    others = torch.stack(search._others(Stream.seeded(0, torch.arange(500))))
    everyone = torch.cat([others, torch.arange(members).expand(1, 500, members)])
    assert ((others >= 0) & (others < members)).all()
    for i in range(4):
        for j in range(i):
            assert (everyone[i] != everyone[j]).all()
    counts = torch.bincount(((others[0] - torch.arange(members)) % members).flatten(), minlength=members)
    assert counts[0] == 0
    assert counts[1:].double().std() < 4 * math.sqrt(500 * members / (members - 1))  # each as likely as the others


def test_mutants_stay_in_the_cube_and_unjudged_ones_change_nothing():
    search = searches()[0]
    judged = search.tell(search.population, sphere(search.population))
    mutants = judged.ask(Stream.seeded(0, torch.arange(ROWS)))
    assert ((mutants >= 0) & (mutants <= 1)).all()
    after = judged.tell(mutants, torch.full((ROWS, 12), torch.inf))
    assert torch.equal(after.population, judged.population)


@pytest.mark.parametrize(("n", "members"), [(1, 4), (2, 6), (10, 10), (10, 100), (500, 25)])
@pytest.mark.parametrize("separable", [False, True])
def test_rates_are_those_of_the_tutorial(n, members, separable):
    rates = _Rates.of(n, members, separable)
    positive = [w for w in rates.weights if w > 0]
    assert sum(positive) == pytest.approx(1)
    assert rates.mass == pytest.approx(1 / sum(w * w for w in positive))
    assert 0 < rates.c_1 + rates.c_mu <= 1
    # Eq. 52: a sample of negative weight cannot make the covariance indefinite.
    assert rates.c_mu * n * -sum(w for w in rates.weights if w < 0) <= 1 - rates.c_1 - rates.c_mu + 1e-12
    if (n, members, separable) == (10, 10, False):  # the tutorial's defaults, by hand
        assert (rates.mass, rates.c_sigma, rates.c_c) == pytest.approx((3.1673, 0.28443, 0.29499), rel=1e-4)


def test_a_search_of_too_few_members_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        CMAES.start(torch.zeros(1, 3), 1.0, members=3)
    with pytest.raises(ValueError, match="at least 4"):
        DifferentialEvolution.start(torch.zeros(1, 3, 3))
