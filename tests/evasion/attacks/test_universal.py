from __future__ import annotations

import pytest
import torch

from assay import demo, evasion
from assay.errors import Denied
from assay.numerics.seeds import Stream


@pytest.mark.parametrize(("radius", "peer"), [(0.2, 0.65), (0.25, 0.315)])
def test_it_leaves_less_than_half_of_what_art_leaves(radius: float, peer: float) -> None:
    """ART 1.20.1, UniversalPerturbation(attacker="fgsm", eps=radius, max_iter=5, norm=inf) on these digits."""
    x, y = demo.digits("test[:200]")
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat())
    found = game.play(evasion.UniversalPerturbation(), demo.target(), seed=0)
    assert found["robust accuracy"].estimate <= peer / 2


def test_it_is_one_perturbation_learned_from_the_examples_alone() -> None:
    x, y = demo.digits("test[:100]")
    natural = demo.digits("train[:200]")
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.25).threat(), examples=natural, chunk=40)
    found = game.play(evasion.UniversalPerturbation(epochs=10), demo.target(), seed=0).artefacts["adversarial"].arrays
    moved = torch.tensor(found["x"]) - x[torch.tensor(found["index"])]
    inside = (torch.tensor(found["x"]) > 0) & (torch.tensor(found["x"]) < 1)
    shared = torch.where(inside, moved, torch.nan).nanmedian(0).values
    assert float(torch.nan_to_num((moved - shared)[inside]).abs().max()) < 1e-6


def test_it_carries_over_to_points_that_it_did_not_see() -> None:
    x, y = demo.digits("test[:200]")
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.25).threat(), examples=demo.digits("train[:500]"))
    # 21 % when first measured; 10.5 % of the points that it was made from.
    assert game.play(evasion.UniversalPerturbation(), demo.target(), seed=0)["robust accuracy"].estimate <= 0.25


def test_the_examples_are_booked_on_the_points() -> None:
    net, (x, y), natural = demo.target(), demo.digits("test[:50]"), demo.digits("train[:64]")
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.25).threat(knows=("model",)), examples=natural)
    found = game.play(evasion.UniversalPerturbation(epochs=5), net, seed=0)
    right = int((net.labels(x) == y).sum())
    assert found.cost.backwards == right * -(-5 * 64 // right)
    assert found.cost.forwards == found.cost.backwards + right


def test_without_examples_it_is_denied() -> None:
    net, (x, y), budget = demo.target(), demo.digits("test[:5]"), evasion.Linf(0.2)
    with pytest.raises(Denied) as caught:
        evasion.UniversalPerturbation().perturb(budget.threat().grant(net, 5), x, y, budget,
                                                Stream.seeded(0, torch.arange(5)))
    assert caught.value.code == "THR107"
