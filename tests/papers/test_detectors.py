"""Detectors before a published ResNet-20: they see what they are made to see, and fall to an attack that knows them.

The figures on 300 images are those of benchmarks/detectors.py; here 12 of them hold the code to the same.
"""

from __future__ import annotations

import pytest
import torch

from assay import evasion
from assay.evasion.defenses.detection import seeded
from assay.evasion.objectives import cross_entropy
from assay.evasion.threat import Linf
from assay.numerics.seeds import Stream
from assay.threats import Examples

BUDGET = Linf(8 / 255)


@pytest.fixture(scope="module")
def scene(zoo):
    """The network, 12 test images, 300 natural ones, and adversarial inputs of little and of high confidence."""
    target = zoo.resnet20()
    x, y = (torch.from_numpy(part) for part in zoo.cifar10("test", 12))
    rng, points = Stream.seeded(0, torch.arange(12)), torch.arange(12)
    little = evasion.PGD().perturb(BUDGET.threat().grant(target, 12), x, y, BUDGET, rng.select(points))
    high = BUDGET.random(x, target.bounds, rng)
    for _ in range(40):
        gradient = target.graded(high, cross_entropy, y).gradient
        high = BUDGET.project(high + BUDGET.radius / 16 * gradient.sign(), x, target.bounds)
    natural = tuple(torch.from_numpy(part) for part in zoo.cifar10("train", 300))
    return target, x, y, natural, {"little": little, "high": high}


# The area under the ROC curve, as measured on 60 images with 600 natural ones: 0.94, 0.96, 1.00 and 1.00.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "against", "area"),
    [
        pytest.param(evasion.FeatureSqueezing(means=(5, 3, 2.0)), "little", 0.85, id="squeezing"),
        pytest.param(evasion.LID(), "high", 0.85, id="lid"),
        pytest.param(evasion.Mahalanobis(), "high", 0.98, id="mahalanobis"),
        pytest.param(evasion.StatisticalOdds(draws=16), "high", 0.98, id="odds"),
    ],
)
def test_a_detector_sees_what_it_is_made_for_and_falls_to_an_attack_that_knows_it(recipe, against, area, scene) -> None:
    target, x, y, natural, adversarial = scene
    safe = recipe.fit(target, *natural).protect(target)
    with seeded(0, target):
        clean, caught = safe.suspicion(x), safe.suspicion(adversarial[against])
        assert float((caught[:, None] > clean).double().mean()) > area
        view = BUDGET.threat(access="weights").grant(safe.adapted(), 12, labels=y, examples=Examples(*natural))
        z = evasion.FeatureCollision(steps=60, refine=30).perturb(view, x, y, BUDGET, Stream.seeded(0, torch.arange(12)))
        labels = safe.labels(z)
    assert bool(BUDGET.contains(z, x, target.bounds).all())
    assert float(((labels != y) & (labels != safe.classes)).float().mean()) >= 0.95
