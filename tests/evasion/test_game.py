"""The evasion game: exact on linear models, honest about liars and crashes, resumable, replayable, repeatable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay import evasion, targets
from assay.errors import ConfigError
from assay.evasion.threat import BUDGETS
from assay.evidence.claim import Claim
from assay.evidence.contradiction import with_contradictions
from assay.evidence.ledger import Ledger
from assay.evidence.record import Evidence
from assay.targets.access import Access

INF = float("inf")
ROBUST, CLEAN = "robust accuracy", "clean accuracy"


def plane(norm: float, n: int = 40) -> tuple[Any, Tensor, Tensor, float, int]:
    """A linear model, points, labels (five of them wrong), a radius, and the exact number of points robust at it."""
    generator = torch.Generator().manual_seed(5)
    layer = nn.Linear(8, 2, bias=False, device="meta", dtype=torch.float64)
    layer.weight = nn.Parameter(torch.randn(2, 8, generator=generator, dtype=torch.float64))
    x = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    target = targets.torch(nn.Sequential(layer), bounds=(-50, 50), name="plane")
    y = target.labels(x).clone()
    y[:5] = 1 - y[:5]
    normal = (layer.weight[0] - layer.weight[1]).detach()
    dual = {INF: 1.0, 2.0: 2.0, 1.0: INF}[norm]
    exact = (x @ normal).abs() / torch.linalg.vector_norm(normal, ord=dual)
    ordered = exact[5:].sort().values
    radius = float(ordered[15] + ordered[16]) / 2  # between two points, so that rounding decides nothing
    return target, x, y, radius, int((exact[5:] > radius).sum())


def network(seed: int = 0, *, inputs: int = 6, classes: int = 3) -> nn.Sequential:
    """A small ReLU network in float64."""
    generator = torch.Generator().manual_seed(seed)
    first, last = (nn.Linear(a, b, device="meta") for a, b in ((inputs, 12), (12, classes)))
    for layer in (first, last):
        shape = layer.weight.shape
        layer.weight = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1] ** 0.5)
        layer.bias = nn.Parameter(0.3 * torch.randn(shape[0], generator=generator, dtype=torch.float64))
    return nn.Sequential(first, nn.ReLU(), last)


def unit(n: int = 30, inputs: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def playing(n: int = 30, radius: float = 0.25, **options: Any) -> tuple[evasion.EvasionGame, Any, Tensor, Tensor]:
    """A game on the network's own labels."""
    target, x = targets.torch(network(), name="net"), unit(n)
    y = target.labels(x).clone()
    return evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat(), **options), target, x, y


def plain(found: Evidence) -> str:
    """Evidence as JSON, but for the time it took."""
    data = found.to_json()
    data["cost"] = {k: v for k, v in data["cost"].items() if k != "seconds"}  # type: ignore[attr-defined]
    return json.dumps(data)


@dataclass(frozen=True)
class Scripted:
    """An attack that does what it is told."""

    does: Callable[..., Tensor]
    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({INF, 2.0, 1.0})

    def perturb(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        return self.does(view, x, y, budget)


@dataclass(frozen=True)
class Credulous:
    """A proof that certifies everything."""

    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({INF})
    failure: float = 0.0

    def certify(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        return torch.full((len(x),), budget.radius, dtype=torch.float64)


@pytest.mark.parametrize("norm", [INF, 2.0, 1.0])
@pytest.mark.parametrize("attack", [evasion.PGD(steps=40), evasion.APGD(steps=40)], ids=["pgd", "apgd"])
def test_attack_and_proof_meet_at_the_truth(norm: float, attack: Any) -> None:
    target, x, y, radius, exact = plane(norm)
    budget = {b.norm: b for b in BUDGETS.values()}[norm](radius)
    game = evasion.EvasionGame(x, y, threat=budget.threat())
    high, low = game.bracket([attack], [evasion.CROWN()], target, seed=0)
    assert high[CLEAN].estimate == 35 / 40
    assert high[ROBUST].estimate == exact / 40 == low[ROBUST].estimate
    assert (high[ROBUST].side, low[ROBUST].side) == ("at most", "at least")
    assert game.prove(evasion.CROWN(), target, seed=0)[ROBUST].estimate == exact / 40
    assert game.play(attack, target, seed=0)[ROBUST].estimate == exact / 40


def test_what_is_settled_costs_nothing_more() -> None:
    target, x, y, radius, exact = plane(INF)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat())
    first, second, proof = game.bracket([evasion.FGSM(), evasion.APGD(steps=10)], [evasion.CROWN()], target, seed=0)
    spent = {e.attack: e.artefacts["points"].arrays for e in (first, second, proof)}
    broken = np.isfinite(spent["FGSM()"]["broken_at"])
    assert broken.sum() == 35 - exact
    assert (spent["CROWN()"]["forwards"] == np.where(broken | (np.arange(40) < 5), 0, 1)).all()
    assert (spent["FGSM()"]["forwards"] == np.where(np.arange(40) < 5, 0, 2)).all()
    assert second.cost.forwards == second.cost.queries == second.cost.backwards == 0
    assert second[ROBUST].estimate == exact / 40  # what came before it counts
    assert "adversarial" not in second.artefacts


@pytest.mark.parametrize(
    ("does", "codes"),
    [
        (lambda view, x, y, budget: x + 3 * budget.radius, ["DBT107"]),
        (lambda view, x, y, budget: x, []),
        (lambda view, x, y, budget: budget.project(x + 1e-9, x, view.bounds), []),
        (lambda view, x, y, budget: torch.full_like(x, torch.nan), ["DBT107"]),
    ],
    ids=["leaves", "clean", "lies", "nan"],
)
def test_the_referee_gives_no_credit(does: Callable[..., Tensor], codes: list[str]) -> None:
    game, target, _, _ = playing()
    found = game.play(Scripted(does), target, seed=0)
    assert found.kind == "played"
    assert found[ROBUST].estimate == 1.0
    assert [d.code for d in found.doubts] == codes
    assert "adversarial" not in found.artefacts
    if codes:
        assert "30 of its inputs" in found.doubts[0].text


def test_only_the_inputs_that_left_are_discounted() -> None:
    game, target, _, _ = playing()
    honest = game.play(evasion.PGD(steps=10), target, seed=0)
    lost = round(30 * (1 - honest[ROBUST].estimate))
    assert lost > 3

    def half(view, x: Tensor, y: Tensor, budget) -> Tensor:
        z = torch.zeros_like(x)
        index = honest.artefacts["adversarial"].arrays
        z.copy_(x)
        z[torch.as_tensor(index["index"])] = torch.as_tensor(index["x"])
        z[index["index"][0]] = x[index["index"][0]] + 1
        return z

    found = game.play(Scripted(half), target, seed=0)
    assert round(30 * (1 - found[ROBUST].estimate)) == lost - 1
    assert [d.code for d in found.doubts] == ["DBT107"]


def test_an_attack_that_raises_is_not_run_and_the_others_go_on() -> None:
    game, target, _, _ = playing()

    def fails(view, x: Tensor, y: Tensor, budget) -> Tensor:
        raise ZeroDivisionError("mine")

    alone = game.play(evasion.PGD(steps=10), target, seed=0)
    lost, found, proof = game.bracket([Scripted(fails), evasion.PGD(steps=10)], [evasion.IBP()], target, seed=0)
    assert (lost.kind, lost.error, lost.error_exit, lost.bounds) == ("not run", "RUN101  ZeroDivisionError: mine", 3, ())
    assert found.kind == "played"
    assert found[ROBUST].estimate == alone[ROBUST].estimate < 1
    assert proof.kind == "proved"


def test_wrong_shapes_and_norms_are_not_run() -> None:
    game, target, _, _ = playing()
    found = game.play(Scripted(lambda view, x, y, budget: x[:, :2]), target, seed=0)
    assert (found.kind, found.error[:6], found.error_exit) == ("not run", "ATK101", 2)
    zero = replace(game, threat=evasion.L0(1).threat())
    assert zero.play(evasion.APGD(), target, seed=0).error[:6] == "THR105"
    with pytest.raises(ConfigError) as caught:
        replace(game, threat=replace(game.threat, goal="win"))
    assert caught.value.code == "THR106"


def test_a_weaker_threat_denies_a_stronger_attack() -> None:
    game, target, _, _ = playing()
    blind = replace(game, threat=evasion.Linf(0.25).threat(access="scores"))
    found = blind.play(evasion.PGD(steps=5), target, seed=0)
    assert (found.kind, found.error[:6]) == ("not run", "THR102")


class Fragile(nn.Module):
    """Counts its forwards, and raises in one of them."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.net = network()
        self.calls = 0
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fails:
            raise RuntimeError("out of memory")
        out: Tensor = self.net(x)
        return out


class Watched:
    """A ledger that notes how many forwards the model had run when each part was kept."""

    def __init__(self, ledger: Ledger, model: Fragile) -> None:
        self.ledger, self.model, self.at = ledger, model, {}

    def recall(self, trial: str, part: str):
        return self.ledger.recall(trial, part)

    def keep(self, trial: str, part: str, arrays) -> None:
        self.ledger.keep(trial, part, arrays)
        self.at[part] = self.model.calls


LOOKS = 10
"""Forwards before the first chunk: shape and steadiness, then the probes of an undeclared defense."""


@pytest.mark.parametrize("fails", [2, 4, 5, 8, 11, 18, 43, 44, 45, 46, 47, 48, 49, 50, 51])
def test_a_run_that_broke_off_is_resumed(tmp_path: Path, fails: int) -> None:
    x = unit(30)
    y = targets.torch(network()).labels(x)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.02).threat(), chunk=5)
    attack = evasion.PGD(steps=5)

    def run(folder: str, model: Fragile) -> tuple[Evidence, Watched]:
        with Ledger.open(tmp_path / folder) as ledger:
            memory = Watched(ledger, model)
            return game.play(attack, targets.torch(model, name="net"), seed=0, memory=memory), memory

    sound, sick, healed = Fragile(), Fragile(fails), Fragile()
    whole, undisturbed = run("whole", sound)
    broken, before = run("broken", sick)
    assert broken.kind == "not run"
    assert "out of memory" in broken.error
    resumed, _ = run("broken", healed)
    assert plain(resumed) == plain(whole)
    assert resumed.artefacts["points"].sha256 == whole.artefacts["points"].sha256
    cost = dict(zip(undisturbed.at, np.diff([LOOKS, *undisturbed.at.values()])))
    assert before.at.keys() <= cost.keys()
    assert bool(before.at) == (fails >= LOOKS + 2)
    assert healed.calls == sound.calls - sum(cost[part] for part in before.at)


@pytest.mark.parametrize("fails", [13, 36, 66])
def test_a_method_played_without_another_is_not_taken_for_one_played_after_it(tmp_path: Path, fails: int) -> None:
    x = unit(20)
    y = targets.torch(network()).labels(x)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.25).threat(), chunk=5)
    attacks, proofs = [evasion.FGSM(), evasion.PGD(steps=5)], [evasion.IBP()]

    def run(folder: str, model: Fragile) -> tuple[Evidence, ...]:
        with Ledger.open(tmp_path / folder) as ledger:
            return game.bracket(attacks, proofs, targets.torch(model, name="net"), seed=0, memory=ledger)

    whole, sick, healed = run("whole", Fragile()), run("broken", Fragile(fails)), run("broken", Fragile())
    assert "not run" in [e.kind for e in sick]
    assert [plain(e) for e in healed] == [plain(e) for e in whole]


def test_a_model_that_fails_while_doubts_are_sought_is_not_run() -> None:
    x = unit(10)
    game = evasion.EvasionGame(x, targets.torch(network()).labels(x), threat=evasion.Linf(1e-6).threat())
    sound = Fragile()
    assert game.play(evasion.PGD(steps=5), targets.torch(sound), seed=0).kind == "played"
    for fails in (12, sound.calls - 1, sound.calls):
        found = game.play(evasion.PGD(steps=5), targets.torch(Fragile(fails)), seed=0)
        assert (found.kind, found.error) == ("not run", "RUN101  RuntimeError: out of memory")


def test_a_finished_trial_is_only_recalled(tmp_path: Path) -> None:
    model = Fragile()
    game, _, _, _ = playing(chunk=10)
    with Ledger.open(tmp_path) as ledger:
        first = game.play(evasion.PGD(steps=5), targets.torch(model, name="net"), seed=0, memory=ledger)
        parts = len(list(ledger.entries("part")))
        assert parts == 6  # a clean look and an attack for each of 3 chunks
        second = game.play(evasion.PGD(steps=5), targets.torch(model, name="net"), seed=0, memory=ledger)
        assert len(list(ledger.entries("part"))) == parts
        assert plain(second) == plain(first)
        game.play(evasion.PGD(steps=5), targets.torch(model, name="net"), seed=1, memory=ledger)
        assert len(list(ledger.entries("part"))) == 2 * parts


def test_curves_fall() -> None:
    radii = (0.02, 0.05, 0.2, 0.4)
    game, target, _, _ = playing(curve=radii)
    high, low = game.bracket([evasion.PGD(steps=20)], [evasion.CROWN()], target, seed=0)
    names = [f"{ROBUST} @ linf {r:g}" for r in radii[:3]] + [ROBUST] + [f"{ROBUST} @ linf {r:g}" for r in radii[3:]]
    demonstrated, certified = ([e[name].estimate for name in names] for e in (high, low))
    assert demonstrated == sorted(demonstrated, reverse=True)
    assert certified == sorted(certified, reverse=True)
    assert all(a <= b for a, b in zip(certified, demonstrated))
    assert demonstrated[0] > demonstrated[-1]
    assert certified[0] > certified[-1]
    lone = replace(game, curve=()).play(evasion.PGD(steps=20), target, seed=0)
    assert abs(lone[ROBUST].estimate - high[ROBUST].estimate) <= 1 / 30


def test_a_targeted_goal_is_to_reach_the_label() -> None:
    _, target, x, y = playing()
    wanted = (y + 1) % 3
    aimed = evasion.EvasionGame(x, wanted, threat=evasion.Linf(0.3).threat(goal="targeted"))
    found = aimed.play(evasion.PGD(steps=20, loss="margin"), target, seed=0)
    arrays = found.artefacts["adversarial"].arrays
    assert found[CLEAN].estimate == 1.0
    assert found[ROBUST].estimate == 1 - len(arrays["index"]) / 30 < 1
    assert (arrays["predicted"] == wanted.numpy()[arrays["index"]]).all()
    assert torch.equal(target.labels(torch.as_tensor(arrays["x"])), wanted[torch.as_tensor(arrays["index"])])
    reached = evasion.EvasionGame(x, y, threat=aimed.threat).play(evasion.PGD(steps=5), target, seed=0)
    assert (reached[CLEAN].estimate, reached[ROBUST].estimate) == (0.0, 0.0)


@pytest.mark.parametrize("kind", [evasion.Linf, evasion.L2, evasion.L1], ids=lambda k: k.__name__)
def test_on_the_lattice_of_images(kind: Any) -> None:
    target = targets.torch(network(inputs=12).float(), name="net")
    x = (unit(30, 12) * 255).round().to(torch.float32) / 255
    y = target.labels(x).clone()
    budget = kind({evasion.Linf: 24 / 255, evasion.L2: 0.3, evasion.L1: 3.0}[kind], lattice=255)
    game = evasion.EvasionGame(x, y, threat=budget.threat())
    found = game.play(evasion.PGD(steps=20), target, seed=0)
    arrays = found.artefacts["adversarial"].arrays
    assert 3 <= len(arrays["index"]) < 30
    levels = arrays["x"].astype(np.float64) * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    moved = (levels.round() - x.numpy()[arrays["index"]].astype(np.float64) * 255).round() / 255
    assert np.linalg.norm(moved, ord=budget.norm, axis=1).max() <= budget.radius * (1 + 1e-9)
    images = torch.as_tensor(levels.round().astype(np.uint8))  # what a file would hold
    assert bool((target.labels(images.float() / 255) != y[torch.as_tensor(arrays["index"])]).all())
    assert game.replay(found, target)[:2] == (len(arrays["index"]),) * 2


def test_replay_holds_until_something_changes() -> None:
    game, target, x, y = playing()
    found = game.play(evasion.PGD(steps=20), target, seed=0)
    total = round(30 * (1 - found[ROBUST].estimate))
    assert game.replay(found, target) == (total, total, "")
    assert total > 3
    other = targets.torch(network(7), name="net")
    assert game.replay(found, other).held < total
    moved = evasion.EvasionGame(x + 1e-3, y, threat=game.threat).replay(found, target)
    assert moved == (0, total, "the data are not those of the evidence")
    smaller = replace(game, threat=evasion.Linf(0.01).threat()).replay(found, target)
    assert smaller.held == 0
    stand = replace(game, threat=evasion.Linf(1e-6).threat())
    assert stand.replay(stand.play(evasion.PGD(steps=2), target, seed=0), target) == (0, 0, "nothing was broken")


def test_the_seed_decides_everything() -> None:
    game, target, _, _ = playing(chunk=7)
    attack = evasion.PGD(steps=5, restarts=2)
    before = torch.random.get_rng_state()
    first, again, other = (game.play(attack, target, seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert plain(first) == plain(again)
    assert first.artefacts["adversarial"].data == again.artefacts["adversarial"].data
    assert first.artefacts["adversarial"].data != other.artefacts["adversarial"].data
    assert first.trial != other.trial
    whole = replace(game, chunk=30).play(attack, target, seed=3)
    assert np.allclose(whole.artefacts["adversarial"].arrays["x"], first.artefacts["adversarial"].arrays["x"], atol=1e-9)


def test_a_proof_that_is_refuted_is_marked() -> None:
    game, target, _, _ = playing()
    attack, proof = game.play(evasion.PGD(steps=20), target, seed=0), game.prove(Credulous(), target, seed=0)
    assert proof[ROBUST].estimate == 1.0 > attack[ROBUST].estimate
    marked = with_contradictions([attack, proof])
    assert [[d.code for d in e.doubts] for e in marked] == [["DBT120"], ["DBT120"]]
    lost = round(30 * (1 - attack[ROBUST].estimate))
    assert f"broke {lost} points that are proved safe" in marked[0].doubts[0].text
    assert Claim.parse("robust accuracy >= 0.9").judge(marked).verdict == "undecided"
    honest = game.prove(evasion.CROWN(), target, seed=0)
    assert with_contradictions([attack, honest]) == [attack, honest]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.001, 0.3), kind=st.sampled_from([evasion.Linf, evasion.L2, evasion.L1]))
def test_what_is_proved_never_exceeds_what_is_demonstrated(seed: int, radius: float, kind: Any) -> None:
    target, x = targets.torch(network(seed), name="net"), unit(10, seed=seed)
    game = evasion.EvasionGame(x, target.labels(x), threat=kind(radius).threat(), curve=(radius / 2,))
    high = game.play(evasion.PGD(steps=10, loss="margin"), target, seed=seed)
    low = game.prove(evasion.CROWN(), target, seed=seed)
    for name in (ROBUST, f"{ROBUST} @ {kind(radius / 2)}"):
        assert low[name].estimate <= high[name].estimate
        assert low[name].value <= low[name].estimate <= high[name].estimate <= high[name].value
    assert all("DBT120" not in [d.code for d in e.doubts] for e in with_contradictions([high, low]))


@dataclass(frozen=True)
class Bare:
    """An attack that declares nothing but its verb."""

    def perturb(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        graded = view.gradient(x, torch.arange(len(x)), lambda scores, labels: -scores.gather(1, labels[:, None])[:, 0], y)
        return budget.project(x + budget.radius * graded.gradient.sign(), x, view.bounds)


def test_an_attack_needs_to_declare_nothing() -> None:
    x = unit(30)
    target = targets.torch(network())
    y = target.labels(x)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.3).threat())
    bare, same = (game.play(attack, target, seed=0) for attack in (Bare(), evasion.FGSM(loss="margin")))
    assert bare.kind == "played"
    assert bare.cost.forwards == bare.cost.backwards == 30
    assert 0 < same["robust accuracy"].estimate <= bare["robust accuracy"].estimate < 1
