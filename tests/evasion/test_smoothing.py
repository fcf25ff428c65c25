"""Smoothing, checked where the truth is known: a linear classifier's smoothed radius is its distance to the plane."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from assay import demo, evasion, targets
from assay.errors import ConfigError, Denied
from assay.evasion.objectives import cross_entropy, margin
from assay.evasion.proofs.smoothing import _in_norm
from assay.evasion.threat import Ball
from assay.evidence.bound import Bound
from assay.evidence.record import Evidence
from assay.numerics.intervals import clopper_pearson_lower
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Bounds, Smoothed, WhiteBox
from assay.targets.pytorch import TorchTarget
from assay.threats import View

SIGMA, WIDTH = 0.25, 12
RADIUS = evasion.SmoothingRadius
INF = float("inf")


class Counting(nn.Module):
    """A module that counts the rows it sees."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        out: Tensor = self.inner(x)
        return out


@dataclass(frozen=True, eq=False)
class LabelsOnly:
    """A target that answers with labels and nothing else."""

    inner: TorchTarget
    name: str = "labels only"
    offers: Access = Access.LABELS
    bounds: Bounds = field(default_factory=lambda: Bounds(0, 1))
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    randomized: bool = False
    forwards_per_query: int = 1

    def labels(self, x: Tensor) -> Tensor:
        return self.inner.labels(x)

    def scores(self, x: Tensor) -> Tensor:
        raise AssertionError("labels only")

    def check(self, x: Tensor) -> None:
        self.inner.check(x)

    def fingerprint(self) -> dict[str, str]:
        return {}


def plane(seed: int = 0) -> tuple[nn.Linear, Tensor, float]:
    """A linear classifier of two classes: its module, the normal of its plane and the offset (through the box's center)."""
    w = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
    b = float(-0.5 * w.sum())
    layer = nn.Linear(WIDTH, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-w / 2, w / 2]))
        layer.bias.copy_(torch.tensor([-b / 2, b / 2]))
    return layer, w, b


def points(n: int, w: Tensor, b: float, seed: int, reach: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the box, their labels, and how far each is from the plane: evenly up to ``reach`` sigma."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, WIDTH, generator=g) * 0.2 + 0.4
    unit = w / w.norm()
    wanted = torch.linspace(-reach, reach, n) * SIGMA
    x = x + (wanted - (x @ unit + b / w.norm()))[:, None] * unit
    signed = (x.double() @ w.double() + b) / w.double().norm()
    return x, (signed > 0).long(), signed.abs()


def certified(proof: RADIUS, layer: nn.Module, x: Tensor, y: Tensor, seed: int, budget: Ball | None = None) -> Tensor:
    """What the proof says of these points, outside any game."""
    safe = evasion.Smoothing(sigma=SIGMA).protect(targets.torch(layer, bounds=(-9, 9)))
    ball = budget or evasion.L2(0.1)
    view = replace(ball.threat(), access=Access.LABELS).grant(safe, len(x), proving=True)
    return proof.certify(view, x, y, ball, Stream.seeded(seed, torch.arange(len(x))))


# --- the certificate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_radii_on_a_linear_model_reach_the_closed_form_from_below(seed: int) -> None:
    layer, w, b = plane(seed)
    x, y, truth = points(60, w, b, seed)
    radii = certified(RADIUS(n=10_000), layer, x, y, seed)
    assert bool((radii <= truth).all())
    middle = (truth > 0.75 * SIGMA) & (truth < 1.5 * SIGMA)
    share = (radii / truth)[middle]
    assert len(share) > 15
    assert float(share.min()) > 0.88
    assert float(share.mean()) > 0.93


def test_the_radius_does_not_depend_on_sigma_where_the_model_is_linear() -> None:
    layer, w, b = plane()
    x, y, truth = points(20, w, b, 0, reach=1.2)
    safe = [evasion.Smoothing(sigma=s).protect(targets.torch(layer, bounds=(-9, 9))) for s in (0.2, 0.4)]
    ball, rng = evasion.L2(0.1), Stream.seeded(0, torch.arange(20))
    radii = [RADIUS().certify(ball.threat().grant(s, 20), x, y, ball, rng) for s in safe]
    far = truth > 0.8 * SIGMA
    assert torch.allclose(radii[0][far], radii[1][far], rtol=0.25)
    assert all(bool((r <= truth).all()) for r in radii)


def test_known_counts_give_the_papers_radii() -> None:
    proof = RADIUS(n=100_000, alpha=0.001)
    # All agree: the lower bound is alpha^(1/n) exactly, and the radius about 3.81 sigma (Cohen et al., Figure 6).
    assert proof.radius(100_000, 1.0) == pytest.approx(norm.ppf(0.001 ** (1 / 100_000)), rel=1e-8)
    assert proof.radius(100_000, 0.5) == pytest.approx(0.5 * 3.8115, rel=1e-4)
    assert proof.radius(90_000, 1.0) == pytest.approx(norm.ppf(clopper_pearson_lower(90_000, 100_000, 0.999)), rel=1e-8)
    assert proof.radius(90_000, 1.0) < norm.ppf(0.9)
    assert proof.radius(50_000, 1.0) == -math.inf
    assert RADIUS(n=9, alpha=0.001).radius(9, 1.0) == -math.inf  # 0.001^(1/9) < 1/2
    assert RADIUS(n=10, alpha=0.001).radius(10, 1.0) > 0


def test_radii_grow_with_votes() -> None:
    proof = RADIUS(n=1000)
    radii = [proof.radius(k, 1.0) for k in range(0, 1001, 10)]
    assert radii == sorted(radii)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_it_errs_no_more_often_than_alpha(alpha: float) -> None:
    wrong = total = 0
    proof = RADIUS(n=500, n0=20, alpha=alpha)
    for seed in range(8):
        layer, w, b = plane(seed)
        x, y, truth = points(100, w, b, seed, reach=1.5)
        wrong += int((certified(proof, layer, x, y, seed + 100) > truth).sum())
        total += len(x)
    assert binomtest(wrong, total, alpha, alternative="greater").pvalue > 0.01
    if alpha == 0.05:
        assert wrong > 0.2 * alpha * total  # and it does not buy that by being slack


def test_a_wrong_class_is_never_certified_and_costs_no_second_sample() -> None:
    layer, w, b = plane()
    x, y, _ = points(30, w, b, 0)
    safe = evasion.Smoothing(sigma=SIGMA).protect(targets.torch(layer, bounds=(-9, 9)))
    ball = evasion.L2(0.1)
    view = ball.threat().grant(safe, len(x), proving=True)
    radii = RADIUS(n=1000, n0=50).certify(view, x, 1 - y, ball, Stream.seeded(0, torch.arange(30)))
    far = (x @ w + b).abs() / w.norm() > SIGMA
    assert bool((radii[far] == -INF).all())
    assert view.meter.forwards[far].unique().tolist() == [50]
    assert bool((radii < 0.2).all())


def test_for_a_targeted_goal_it_proves_that_the_target_is_not_reached() -> None:
    layer, w, b = plane()
    x, y, truth = points(30, w, b, 0)
    safe = evasion.Smoothing(sigma=SIGMA).protect(targets.torch(layer, bounds=(-9, 9)))
    ball, rng = evasion.L2(0.1), Stream.seeded(0, torch.arange(30))
    away = RADIUS(n=1000).certify(ball.threat(goal="targeted").grant(safe, 30), x, 1 - y, ball, rng)
    assert torch.equal(away, RADIUS(n=1000).certify(ball.threat().grant(safe, 30), x, y, ball, rng))
    assert bool((away <= truth).all())


def test_other_norms_follow_from_the_l2_radius() -> None:
    layer, w, b = plane()
    x, y, _ = points(40, w, b, 0, reach=3)
    l2, l1, linf = (certified(RADIUS(n=2000), layer, x, y, 0, ball) for ball in (evasion.L2(1), evasion.L1(1), evasion.Linf(1)))
    assert torch.equal(l2, l1)
    assert torch.allclose(linf, l2 / math.sqrt(WIDTH), rtol=1e-12)


def test_in_l0_the_worst_coordinates_must_fit_into_the_radius() -> None:
    layer, w, b = plane()
    x, y, truth = points(20, w, b, 0)
    safe = evasion.Smoothing(sigma=SIGMA).protect(targets.torch(layer, bounds=(0, 1)))
    rng, ball = Stream.seeded(0, torch.arange(20)), evasion.L0(1)
    none = RADIUS(n=500).certify(ball.threat().grant(safe, 20), x, y, ball, rng)
    assert set(none.tolist()) <= {0.0, -INF}  # a coordinate has room for 0.5 at least
    assert bool((none[truth > SIGMA] == 0).all())
    values = [0.9, 0.05, 0.2, 0.6]  # whose rooms are 0.9, 0.95, 0.8, 0.6
    x = torch.tensor([values] * 5)
    lengths = torch.tensor([-INF, 0.0, 0.951, 1.31, 9.0], dtype=torch.float64)
    assert _in_norm(lengths, 0, x, Bounds(0, 1)).tolist() == [-INF, 0, 1, 2, 4]


def test_a_point_is_certified_the_same_alone_and_in_company() -> None:
    layer, w, b = plane()
    x, y, _ = points(20, w, b, 0)
    safe = evasion.Smoothing(sigma=SIGMA, batch=64).protect(targets.torch(layer, bounds=(-9, 9)))
    ball, rng, proof = evasion.L2(0.1), Stream.seeded(5, torch.arange(20)), RADIUS(n=300, n0=30)
    together = proof.certify(ball.threat().grant(safe, 20), x, y, ball, rng)
    alone = [proof.certify(ball.threat().grant(safe, 1), x[i:i + 1], y[i:i + 1], ball, rng.select(torch.tensor([i]))) for i in range(20)]
    assert torch.equal(together, torch.cat(alone))


def test_a_label_only_model_can_be_certified() -> None:
    layer, w, b = plane()
    x, y, truth = points(30, w, b, 0)
    inner = targets.torch(layer, bounds=(-9, 9))
    rng, ball = Stream.seeded(0, torch.arange(30)), evasion.L2(0.1)
    threat = ball.threat(access="labels")
    safe = evasion.Smoothing(sigma=SIGMA).protect(LabelsOnly(inner))
    assert safe.offers == Access.LABELS
    radii = RADIUS(n=1000).certify(threat.grant(safe, 30, proving=True), x, y, ball, rng)
    assert bool((radii <= truth).all())
    assert torch.equal(radii, certified(RADIUS(n=1000), layer, x, y, 0))
    assert bool((safe.labels(x) == y)[truth > 0.3 * SIGMA].all())


# --- in the game -------------------------------------------------------------------------------------------------


def linear_game(n: int = 60, seed: int = 0, **options: Any) -> tuple[evasion.EvasionGame, Any, Tensor]:
    layer, w, b = plane(seed)
    x, y, truth = points(n, w, b, seed)
    safe = evasion.Smoothing(sigma=SIGMA, n=100).protect(targets.torch(layer, bounds=(-9, 9)))
    return evasion.EvasionGame(x, y, threat=evasion.L2(SIGMA).threat(), **options), safe, truth


def stripped(evidence: Evidence) -> str:
    """The evidence's bytes, but for the wall clock."""
    return json.dumps(replace(evidence, cost=replace(evidence.cost, seconds=0.0)).to_json(), sort_keys=True)


def test_evidence_is_proved_and_discounted_by_alpha() -> None:
    game, safe, truth = linear_game()
    proof = RADIUS(n=2000, alpha=0.01)
    found = game.prove(proof, safe, seed=0)
    bound = found["robust accuracy"]
    held = round(bound.estimate * 60)
    assert (found.kind, bound.side, bound.n) == ("proved", "at least", 60)
    assert bound.value == pytest.approx(Bound.of_count("", "at least", held, 60, method="").value - 0.01)
    assert 0.7 * int((truth > SIGMA).sum()) <= held <= int((truth > SIGMA).sum())


def test_the_cost_is_exact_and_a_curve_is_free() -> None:
    game, safe, _ = linear_game()
    found = game.prove(RADIUS(n=1000, n0=50), safe, seed=0)
    spent = found.artefacts["points"].arrays
    assert set(spent["forwards"][spent["correct"] == 1].tolist()) <= {50, 1050}
    assert (spent["forwards"] == spent["queries"]).all()
    assert found.cost.forwards == int(spent["forwards"].sum())
    curve = replace(game, curve=(0.01, 0.05, 0.1, 0.2)).prove(RADIUS(n=1000, n0=50), safe, seed=0)
    assert curve.cost.forwards == found.cost.forwards


def test_certified_accuracy_does_not_rise_with_the_radius() -> None:
    game, safe, truth = linear_game(curve=(0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4))
    found = game.prove(RADIUS(n=1000), safe, seed=0)
    curve = [b.estimate for b in sorted((b for b in found.bounds if "@" in b.quantity), key=lambda b: float(b.quantity.split()[-1]))]
    assert curve == sorted(curve, reverse=True)
    assert curve[0] > curve[3] > curve[-1]
    assert found["robust accuracy @ l2 0.1"].estimate <= float((truth > 0.1).double().mean())


def test_an_abstention_counts_as_a_failure() -> None:
    layer, w, b = plane()
    x, y, _ = points(10, w, b, 0, reach=3)
    edge = x - ((x @ w + b) / w.norm())[:, None] * w / w.norm()
    both, labels = torch.cat([x, edge]), torch.cat([y, y])
    safe = evasion.Smoothing(sigma=SIGMA, n=100).protect(targets.torch(layer, bounds=(-9, 9)))
    found = evasion.EvasionGame(both, labels, threat=evasion.L2(0.0).threat()).prove(RADIUS(n=1000), safe, seed=0)
    assert found["robust accuracy"].estimate == 0.5
    assert found["robust accuracy"].n == 20
    at = found.artefacts["points"].arrays["certified_at"]
    assert (at[10:] == -np.inf).all()
    assert (at[:10] > 0).all()


def test_the_same_seed_gives_the_same_evidence_and_leaves_the_global_random_state() -> None:
    game, safe, _ = linear_game()
    before = torch.random.get_rng_state()
    first, again, other = (game.prove(RADIUS(n=500), safe, seed=seed) for seed in (3, 3, 4))
    assert stripped(first) == stripped(again)
    assert first.artefacts["points"].data == again.artefacts["points"].data
    assert first.artefacts["points"].data != other.artefacts["points"].data
    played = [game.play(evasion.PGD(steps=4), safe, seed=1) for _ in range(2)]
    assert stripped(played[0]) == stripped(played[1])
    assert torch.equal(before, torch.random.get_rng_state())


def test_attack_and_proof_do_not_contradict_and_bracket_the_truth() -> None:
    game, safe, truth = linear_game(draws=3)
    attacked, proved = game.bracket([evasion.PGD(steps=10)], [RADIUS(n=2000)], safe, seed=0)
    true = float((truth > SIGMA).double().mean())
    assert proved["robust accuracy"].estimate <= true <= attacked["robust accuracy"].estimate
    assert attacked["robust accuracy"].estimate - proved["robust accuracy"].estimate < 0.25
    assert [d.code for d in attacked.doubts] == ["DBT101"]


def test_a_target_without_noise_is_refused_with_a_code() -> None:
    x, y = demo.digits("test[:4]")
    found = evasion.EvasionGame(x, y, threat=evasion.L2(0.1).threat()).prove(RADIUS(), demo.target(), seed=0)
    assert found.kind == "not run"
    assert "PRF120" in found.error


# --- what the view grants and counts -----------------------------------------------------------------------------


def small(gradient_draws: int = 4, batch: int = 1024, below: int = 512) -> tuple[Counting, Any]:
    model = Counting(demo.target().model)
    return model, evasion.Smoothing(sigma=0.2, n=30, gradient_draws=gradient_draws, batch=batch).protect(targets.torch(model, batch=below))


@pytest.mark.parametrize("batch", [7, 1024])
def test_every_forward_is_on_the_meter(batch: int) -> None:
    model, safe = small(batch=batch)
    x, y = demo.digits("test[:5]")
    at, rng = torch.arange(5), Stream.seeded(0, torch.arange(5))
    calls: list[tuple[str, int, int]] = []

    def spends(view: View, name: str, forwards: int, backwards: int, queries: int) -> None:
        assert model.rows == 5 * forwards, name
        assert view.meter.forwards.tolist() == [forwards] * 5
        assert view.meter.backwards.tolist() == [backwards] * 5
        assert view.meter.queries.tolist() == [queries] * 5
        calls.append((name, forwards, backwards))
        model.rows = 0

    def view() -> View:
        return evasion.L2(0.1).threat().grant(safe, 5)

    (v := view()).labels(x, at)
    spends(v, "labels", 30, 0, 1)
    (v := view()).scores(x, at)
    spends(v, "scores", 30, 0, 1)
    (v := view()).gradient(x, at, cross_entropy, y)
    spends(v, "gradient", 4, 4, 1)
    (v := view()).jacobian(x, at, torch.tensor([[0, 1, 2]] * 5))
    spends(v, "jacobian", 12, 12, 1)
    (v := view()).votes(x, at, 11, rng)
    spends(v, "votes", 11, 0, 11)
    assert len(calls) == 5


def test_votes_are_scores_to_an_adversary_and_labels_to_a_prover() -> None:
    _, safe = small()
    x, _ = demo.digits("test[:3]")
    at, rng = torch.arange(3), Stream.seeded(0, torch.arange(3))
    threat = evasion.L2(0.1).threat(access="labels")
    with pytest.raises(Denied, match="THR102"):
        threat.grant(safe, 3).votes(x, at, 5, rng)
    assert threat.grant(safe, 3, proving=True).select(at).votes(x, at, 5, rng).sum(1).tolist() == [5, 5, 5]
    limited = evasion.L2(0.1).threat(access="scores", queries=7).grant(safe, 3)
    limited.votes(x, at, 5, rng)
    with pytest.raises(Denied, match="THR103"):
        limited.votes(x, at, 5, rng)


def test_it_offers_no_weights() -> None:
    _, safe = small()
    assert isinstance(safe, WhiteBox)
    assert isinstance(safe, Smoothed)
    assert not isinstance(demo.target(), Smoothed)
    assert safe.offers == Access.GRADIENTS
    with pytest.raises(Denied, match="THR101"):
        evasion.L2(0.1).threat(access="weights").grant(safe, 1)
    with pytest.raises(Denied, match="THR101"):
        safe.module()


# --- the smoothed target ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_labels_are_the_argmax_of_scores_and_of_votes(n: int) -> None:
    x, _ = demo.digits("test[:60]")
    safe = evasion.Smoothing(sigma=0.5, n=n, batch=16).protect(demo.target())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scores = safe.scores(x)
        torch.manual_seed(0)
        labels = safe.labels(x)
        torch.manual_seed(0)
        votes = safe._votes(x, n, torch.randint(1 << 62, (60,)).tolist())
    assert torch.equal(labels, scores.argmax(1))
    assert torch.allclose(scores.exp().sum(1), torch.ones(60), atol=1e-5)
    assert bool((votes.gather(1, labels[:, None])[:, 0] == votes.max(1).values).all())
    assert votes.sum(1).tolist() == [n] * 60


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_the_gradient_is_that_of_the_loss_of_the_mean_softmax(loss: Any) -> None:
    x, y = demo.digits("test[:4]")
    net = targets.torch(demo.target().model.double())
    safe = evasion.Smoothing(sigma=0.3, gradient_draws=8, batch=5).protect(net)  # copies over several batches
    whole = evasion.Smoothing(sigma=0.3, gradient_draws=8).protect(net)
    x = x.double()

    def look(z: Tensor) -> Any:
        torch.manual_seed(0)
        return whole.graded(z, loss, y)

    with torch.random.fork_rng():
        graded = look(x)
        direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        h = 1e-6
        slope = (look(x + h * direction).loss - look(x - h * direction).loss) / (2 * h)
        torch.manual_seed(0)
        parts = safe.graded(x, loss, y).gradient
    assert torch.allclose((graded.gradient * direction).flatten(1).sum(1), slope, rtol=1e-4, atol=1e-6)
    cosine = torch.cosine_similarity(parts.flatten(1), graded.gradient.flatten(1))
    assert float(cosine.min()) > 0.3  # another noise, another partition: the same direction
    assert graded.scores.shape == (4, 10)


def test_a_base_that_splits_the_copies_averages_over_the_parts() -> None:
    x, y = demo.digits("test[:6]")
    gradients = []
    with torch.random.fork_rng():
        for below in (512, 24):
            torch.manual_seed(0)
            _, safe = small(gradient_draws=16, below=below)
            gradients.append(safe.graded(x, margin, y).gradient.flatten(1))
    assert float(torch.cosine_similarity(*gradients).min()) > 0.8


def test_the_jacobian_holds_the_gradients_of_its_scores() -> None:
    x, _ = demo.digits("test[:3]")
    net = targets.torch(demo.target().model.double())
    safe = evasion.Smoothing(sigma=0.3, gradient_draws=8).protect(net)
    x, classes = x.double(), torch.tensor([[0, 4], [1, 2], [9, 3]])

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return safe.jacobian(z, classes)

    with torch.random.fork_rng():
        scores, rows = look(x)
        direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        h = 1e-6
        slope = (look(x + h * direction)[0] - look(x - h * direction)[0]).gather(1, classes) / (2 * h)
    assert rows.shape == (3, 2, 1, 8, 8)
    assert torch.allclose((rows * direction[:, None]).flatten(2).sum(2), slope, rtol=1e-4, atol=1e-6)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3, dtype=torch.float64))


def test_confident_models_keep_their_gradients() -> None:
    layer, w, b = plane()
    with torch.no_grad():
        layer.weight.mul_(1000)
        layer.bias.mul_(1000)
    x, y, _ = points(8, w, b, 0)
    graded = evasion.Smoothing(sigma=0.01).protect(targets.torch(layer, bounds=(-9, 9))).graded(x, margin, y)
    assert bool(torch.isfinite(graded.gradient).all())
    assert bool((graded.gradient.flatten(1).norm(dim=1) > 1).all())


def test_no_rows_are_no_problem() -> None:
    _, safe = small()
    x, y = demo.digits("test[:1]")
    assert safe.labels(x[:0]).shape == (0,)
    assert safe.graded(x[:0], cross_entropy, y[:0]).scores.shape == (0, 10)
    assert safe.votes(x[:0], 5, Stream.seeded(0, torch.arange(0))).shape[0] == 0


def test_the_model_below_stays_as_it_was() -> None:
    model = demo.network().train()
    x, y = demo.digits("test[:4]")
    weights = [p.clone() for p in model.parameters()]
    evasion.Smoothing(n=10).protect(targets.torch(model)).graded(x, cross_entropy, y)
    assert model.training
    assert all(torch.equal(p, w) and p.grad is None for p, w in zip(model.parameters(), weights))


def test_settings_without_meaning_are_refused() -> None:
    for bad in ({"sigma": 0.0}, {"sigma": -1.0}, {"sigma": INF}, {"n": 0}, {"gradient_draws": 0}, {"batch": 0}):
        with pytest.raises(ConfigError, match="PRF121"):
            evasion.Smoothing(**bad)
    for worse in ({"n": 0}, {"n0": 0}, {"alpha": 0.0}, {"alpha": 1.0}):
        with pytest.raises(ConfigError, match="PRF121"):
            RADIUS(**worse)


def test_smoothing_is_part_of_the_targets_identity() -> None:
    prints = [evasion.Smoothing(sigma=s).protect(demo.target()).fingerprint() for s in (0.25, 0.5)]
    assert prints[0]["model"] == prints[1]["model"]
    assert prints[0] != prints[1]


# --- attacks on a vote ---------------------------------------------------------------------------------------------


def test_a_lucky_look_is_not_taken_for_a_success() -> None:
    x, y = demo.digits("test[:120]")
    safe = evasion.Smoothing(sigma=0.25, n=300).protect(demo.target())
    threat = evasion.L2(0.3).threat()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        correct = safe.labels(x) == y
        z = evasion.PGD(steps=15).perturb(threat.grant(safe, 120), x, y, threat.budget, Stream.seeded(0, torch.arange(120)))
        claimed, fell = (z != x).flatten(1).any(1) & correct, (safe.labels(z) != y) & correct
    assert int(claimed.sum()) >= 8
    assert int((claimed & fell).sum()) >= 0.6 * int(claimed.sum())


# --- the face (design.md, §6, the first user) -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MyAttack:
    """A third party's attack."""

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({INF})
    steps: int = 5

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        z, at = budget.random(x, view.bounds, rng), torch.arange(len(x))
        for _ in range(self.steps):
            gradient = view.gradient(z, at, margin, y).gradient
            z = budget.project(z + budget.radius / 2 * budget.steepest(gradient), x, view.bounds)
        return z


def test_ten_lines_for_a_robustness_researcher() -> None:
    x, y = demo.digits("test[:16]")
    net = targets.torch(demo.target(noise=0.25).model, bounds=(0, 1))
    safe = evasion.Smoothing(sigma=0.25, n=200).protect(net)
    threat = evasion.Linf(8 / 255).threat(access="gradients", knows={"model", "defense"})
    game = evasion.EvasionGame(x, y, threat=threat)
    mine = game.play(MyAttack(steps=5), safe, seed=0)
    base = game.play(evasion.APGD(steps=10), safe, seed=0)
    proof = game.prove(evasion.SmoothingRadius(n=10_000), safe, seed=0)
    assert proof["robust accuracy"].estimate >= 0.75
    assert max(proof["robust accuracy"].estimate, 0.8) <= min(m["robust accuracy"].estimate for m in (mine, base))
    assert "robust accuracy at least" in str(proof)
    assert mine.cost.backwards <= 16 * 5 * 16
