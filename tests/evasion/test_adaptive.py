"""Attacks adapt to what a defense declares, and to what probing finds where it declares nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from assay import Claim, demo, evasion, targets
from assay.evasion.adaptive import compose
from assay.evasion.probes import diagnose
from assay.evasion.referee import Referee, enough
from assay.evasion.sights import Averaged, Softened, straightened
from assay.evidence.bound import NAIVE
from assay.numerics.seeds import Stream
from assay.targets.defended import Parts
from assay.targets.pytorch import TorchTarget

RADIUS = 0.2
COUNT = 60


class Quantized(nn.Module):
    """Rounds what comes in: no gradient anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 7).round() / 7


class Noisy(nn.Module):
    """Adds fresh noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * torch.randn_like(x)


class Ripples(nn.Module):
    """Adds fine, steep waves to the scores: gradients are right, and of no use over any distance."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.4 * torch.sin(1500 * x)


class Saturated(nn.Module):
    """Scores a thousand times too large."""

    def forward(self, scores: Tensor) -> Tensor:
        return 1000 * scores


def in_front(layer: nn.Module) -> TorchTarget:
    return targets.torch(nn.Sequential(layer, demo.target().module()))


def game(knows: tuple[str, ...] = ("model", "defense"), radius: float = RADIUS) -> evasion.EvasionGame:
    x, y = demo.digits(f"test[:{COUNT}]")
    return evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat(knows=knows))


def found(target: TorchTarget, **about: object) -> tuple[float, float, list[str]]:
    evidence = game(**about).play(evasion.PGD(), target, seed=0)
    naive = [b.estimate for b in evidence.bounds if b.quantity == NAIVE]
    return evidence["robust accuracy"].estimate, naive[0] if naive else -1.0, [d.code for d in evidence.doubts]


def diagnosis(target: TorchTarget):
    x, y = demo.digits("test[:32]")
    return diagnose(target, x, y, evasion.Linf(RADIUS), Stream.seeded(0, torch.arange(32)))


# --- probing ---------------------------------------------------------------------------------------------------------


def test_an_honest_network_is_left_alone() -> None:
    seen = diagnosis(demo.target())
    assert seen.parts == Parts()
    assert (seen.dead_layers, seen.shattered) == ((), False)
    assert 0.5 < seen.kept < 1.6
    assert compose(demo.target(), game().threat, seen).adaptive == ()
    assert found(demo.target())[1] == -1.0


def test_a_dead_layer_is_named_and_walked_through() -> None:
    target = in_front(Quantized())
    assert diagnosis(target).dead_layers == ("0",)
    robust, naive, doubts = found(target)
    assert naive > 0.95  # PGD has no gradient to follow
    assert robust <= 0.1  # 6.7 % when first measured
    assert "DBT111" in doubts


def test_randomness_is_averaged_over() -> None:
    target = in_front(Noisy())
    assert diagnosis(target).parts == Parts(randomness=True)
    robust, naive, doubts = found(target)
    assert naive - robust > 0.5
    assert robust <= 0.15
    assert "DBT111" in doubts


def test_shattered_gradients_are_smoothed() -> None:
    target = in_front(Ripples())
    seen = diagnosis(target)
    assert seen.shattered
    assert seen.rugged > 0.3
    robust, naive, _ = found(target)
    assert robust < naive


def test_who_does_not_know_the_defense_does_not_adapt() -> None:
    robust, naive, doubts = found(in_front(Quantized()), knows=("model",))
    assert robust > 0.95
    assert naive == -1.0
    assert "DBT103" in doubts  # what the referee still says: there is no gradient


# --- sights ----------------------------------------------------------------------------------------------------------


def test_averaged_gradients_are_means_and_scores_are_votes() -> None:
    net = demo.target()
    x, y = demo.digits("test[:5]")
    averaged = Averaged(net, 4)  # of a target that does not vary, the mean is the thing itself
    one, many = net.graded(x, evasion_margin, y), averaged.graded(x, evasion_margin, y)
    torch.testing.assert_close(many.gradient, one.gradient, rtol=1e-4, atol=1e-6)
    assert torch.equal(many.scores.argmax(1), one.scores.argmax(1))
    assert float(many.scores.exp().sum(1).sub(1).abs().max()) < 1e-5
    assert averaged.passes(1) == (4, 4)
    assert averaged.forwards_per_query == 4


def test_soft_gradients_are_those_of_the_blurred_function() -> None:
    linear = targets.torch(nn.Sequential(nn.Linear(6, 3)).double())
    x, y = torch.full((3, 6), 0.5, dtype=torch.float64), torch.tensor([0, 1, 2])
    soft = Softened(linear, 0.01, 8).graded(x, first_score, y)
    torch.testing.assert_close(soft.gradient, linear.graded(x, first_score, y).gradient)  # of a plane: its slope


def test_straightening_changes_no_score_and_gives_the_gradient_behind_the_layer() -> None:
    target = in_front(Quantized())
    x, y = demo.digits("test[:5]")
    straight = straightened(target, ("0",))
    assert torch.equal(straight.scores(x), target.scores(x))
    behind = demo.target().graded((x * 7).round() / 7, evasion_margin, y).gradient
    torch.testing.assert_close(straight.graded(x, evasion_margin, y).gradient, behind)
    assert float(target.graded(x, evasion_margin, y).gradient.abs().max()) == 0


def evasion_margin(scores: Tensor, y: Tensor) -> Tensor:
    from assay.evasion.objectives import margin

    return margin(scores, y)


def first_score(scores: Tensor, y: Tensor) -> Tensor:
    return scores.gather(1, y[:, None])[:, 0]


# --- the referee -----------------------------------------------------------------------------------------------------


class Coin:
    """Errs with a known chance, row by row."""

    def __init__(self, chance: Tensor) -> None:
        self.chance, self.generator = chance, torch.Generator().manual_seed(0)

    def labels(self, x: Tensor) -> Tensor:
        return (torch.rand(len(x), generator=self.generator) < self.chance[x[:, 0].long()]).long()


@pytest.mark.parametrize(("chance", "least", "most"), [(0.4, 0.0, 0.01), (0.5, 0.0, 0.09), (0.65, 0.8, 1.0), (0.9, 0.999, 1.0)])
def test_success_is_a_probability_above_one_half(chance: float, least: float, most: float) -> None:
    coin = Coin(torch.full((1,), chance))
    z, y = torch.zeros(4000, 1), torch.zeros(4000, dtype=torch.int64)
    share = float(Referee(coin, "misclassify", 11).judge(z, y)[0].double().mean())
    assert least <= share <= most


def test_enough_is_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    for looks in (11, 121):
        k = enough(looks)
        assert binomtest(k, looks, 0.5, alternative="greater").pvalue <= 0.05
        assert binomtest(k - 1, looks, 0.5, alternative="greater").pvalue > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.5, 0.2])
def test_the_verdict_on_a_randomized_defense_does_not_depend_on_the_seed(level: float) -> None:
    """Twenty seeds, one verdict: the claim is broken in every run, or in none; the figures keep together too."""
    target, plan = in_front(Noisy()), game()
    runs = [plan.play(evasion.PGD(), target, seed=seed) for seed in range(20)]
    claim = Claim.parse(f"robust accuracy >= {level}", about="points")
    assert len({claim.judge([run]).verdict for run in runs}) == 1
    figures = [run["robust accuracy"].estimate for run in runs]
    assert max(figures) - min(figures) <= 0.15


# --- minimum-norm attacks in the game --------------------------------------------------------------------------------


def test_one_run_of_a_minimizer_gives_the_curve_and_the_median() -> None:
    net, (x, y) = demo.target(), demo.digits("test[:100]")
    free = evasion.EvasionGame(x, y, threat=evasion.L2(float("inf")).threat())
    evidence = free.play(evasion.FAB(steps=20), net, seed=0)
    far = evidence.artefacts["points"].arrays["broken_at"]
    right = evidence.artefacts["points"].arrays["correct"].astype(bool)
    curve = {b.quantity: b.estimate for b in evidence.bounds if " @ " in b.quantity}
    assert len(curve) == 7
    for name, estimate in curve.items():
        radius = float(name.rpartition(" ")[2])
        assert estimate == pytest.approx(float((right & (far > radius)).mean()))
    median = evidence["median l2 distance"]
    assert median.side == "at most"
    assert median.estimate == pytest.approx(0.416, abs=0.02)  # when first measured
    assert median.estimate < median.value < 0.6
    stored = evidence.artefacts["adversarial"].arrays
    moved = (torch.tensor(stored["x"]) - x[torch.tensor(stored["index"])]).flatten(1).norm(dim=1)
    assert torch.allclose(moved.double(), torch.tensor(stored["radius"]), rtol=1e-5)
    assert free.replay(evidence, net).held == len(stored["index"])


def test_a_curve_of_a_minimizer_is_that_of_its_single_radii() -> None:
    net, (x, y) = demo.target(), demo.digits("test[:60]")
    radii = (0.03, 0.06, 0.1)
    at_once = evasion.EvasionGame(x, y, threat=evasion.Linf(0.1).threat(), curve=radii).play(
        evasion.FAB(steps=40), net, seed=0)
    for radius in radii:
        name = "robust accuracy" if radius == 0.1 else f"robust accuracy @ linf {radius}"
        alone = evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat()).play(
            evasion.FAB(steps=40, patience=None), net, seed=0)
        assert at_once[name].estimate == pytest.approx(alone["robust accuracy"].estimate, abs=0.02)


def test_medians_are_bounded_by_order_statistics() -> None:
    from assay.evidence.bound import Bound

    rng = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        values = torch.rand(25, generator=rng).tolist()
        covered += Bound.of_median("median", "at most", values, method="").value >= 0.5
    assert covered / 400 >= 0.93  # 95 % or more by the binomial; exact: 97.8 %
    few = Bound.of_median("median", "at most", [1.0, 2.0], method="")
    assert few.value == float("inf")  # two values bound no median at 95 %


def test_the_game_hands_out_examples() -> None:
    held = {}

    class Looks(evasion.PGD):
        def perturb(self, view, x, y, budget, rng):
            held["examples"] = view.examples
            return x

    x, y = demo.digits("test[:20]")
    plan = evasion.EvasionGame(x, y, threat=evasion.Linf(0.1).threat(), examples=demo.digits("train[:30]"))
    plan.play(Looks(), demo.target(), seed=0)
    assert len(held["examples"].x) == 30
    replace(plan, examples=None).play(Looks(), demo.target(), seed=0)
    assert len(held["examples"].x) == 20
