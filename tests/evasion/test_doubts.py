"""One planted defect for each doubt, and models without a defect that raise none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from assay import evasion, targets
from assay.evidence.claim import Claim
from assay.evidence.record import Evidence
from assay.targets.access import Access

INPUTS, CLASSES = 10, 3


def network(seed: int = 0) -> nn.Sequential:
    """A small ReLU network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(INPUTS, 16), nn.ReLU(), nn.Linear(16, CLASSES)).eval()


class Before(nn.Module):
    """A network behind something that happens to its input or output."""

    def __init__(self, change: Callable[[Tensor], Tensor] | None = None, after: Callable[[Tensor], Tensor] | None = None, seed: int = 0) -> None:
        super().__init__()
        self.net, self.change, self.after = network(seed), change, after

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x if self.change is None else self.change(x))
        return scores if self.after is None else self.after(scores)


def found(model: nn.Module, attack: Any = None, *, radius: float = 0.05, seed: int = 0, n: int = 40,
          rest: tuple[Any, ...] = (), **options: Any) -> tuple[Evidence, ...]:
    """The game on points that the model gets right."""
    target = targets.torch(model, name="net", **options)
    x = torch.rand(n, INPUTS, generator=torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = target.labels(x).clone()
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(radius).threat())
    return game.bracket([attack or evasion.PGD(steps=10), *rest], [], target, seed=0)


def codes(evidence: Evidence) -> list[str]:
    return sorted(d.code for d in evidence.doubts)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("attack", [evasion.PGD(steps=10), evasion.APGD(steps=10), evasion.FAB(steps=10), evasion.Square(queries=50)],
                         ids=lambda a: type(a).__name__)
def test_a_sound_model_raises_no_doubt(seed: int, attack: Any) -> None:
    (evidence,) = found(network(seed), attack, seed=seed)
    assert codes(evidence) == []
    assert evidence.kind == "played"


@pytest.mark.parametrize("kind", [evasion.L2, evasion.L1, evasion.L0], ids=lambda k: k.__name__)
def test_a_sound_model_raises_no_doubt_in_other_norms(kind: Any) -> None:
    target = targets.torch(network(), name="net")
    x = torch.rand(40, INPUTS, generator=torch.Generator().manual_seed(0))
    game = evasion.EvasionGame(x, target.labels(x), threat=kind({evasion.L2: 0.2, evasion.L1: 0.3, evasion.L0: 1}[kind]).threat())
    assert codes(game.play(evasion.PGD(steps=10), target, seed=0)) == []


def test_random_outputs() -> None:
    def noise(x: Tensor) -> Tensor:
        return x + 0.02 * torch.randn_like(x)

    (evidence,) = found(Before(noise))
    assert "DBT101" in codes(evidence)
    assert "11 looks" in next(d.text for d in evidence.doubts if d.code == "DBT101")


def test_probabilities_that_cannot_be_taken_apart() -> None:
    def softened(scores: Tensor) -> Tensor:
        return scores.softmax(1) * 0.9 + 0.1 / CLASSES

    (evidence,) = found(Before(after=softened), outputs="probabilities")
    assert codes(evidence) == ["DBT102"]
    (stripped,) = found(nn.Sequential(network(), nn.Softmax(1)), outputs="probabilities")
    assert codes(stripped) == []


def test_gradients_that_are_rounded_away() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            net = network()
            self.first, self.last = net[0], net[2]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last((self.first(x).relu() * 50).round() / 50)
            return out

    (evidence,) = found(Rounded(), radius=0.02)
    assert "DBT103" in codes(evidence)
    assert "100% of 40 points" in next(d.text for d in evidence.doubts if d.code == "DBT103")
    assert Claim.parse("robust accuracy >= 0.5", about="points").judge([evidence]).verdict == "undecided"


def test_cross_entropy_that_saturates_is_said_of_the_attack_that_climbs_it() -> None:
    scaled = Before(after=lambda scores: 1e5 * scores)
    ce, margin = found(scaled, evasion.PGD(steps=5), rest=(evasion.PGD(steps=5, loss="margin"),), radius=0.001)
    assert codes(ce) == ["DBT103"]
    assert "cross-entropy" in ce.doubts[0].text
    assert codes(margin) == []


class _Misled(torch.autograd.Function):
    """The identity, whose gradient points the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def test_a_black_box_that_beats_the_white_box() -> None:
    misled = Before(_Misled.apply)
    white, black = found(misled, evasion.PGD(steps=10, random_start=False), rest=(evasion.Square(queries=200),), radius=0.1)
    assert white["robust accuracy"].estimate > black["robust accuracy"].estimate
    assert "DBT104" not in codes(white)
    assert "DBT104" in codes(black)
    lost = round(40 * (white["robust accuracy"].estimate - black["robust accuracy"].estimate))
    assert next(d.text for d in black.doubts if d.code == "DBT104").startswith(f"{lost} points")


def test_a_larger_radius_that_does_worse() -> None:
    class Trap(nn.Module):
        """One coordinate decides; its gradient leads into a narrow valley, and past it back to safety."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            low = x[:, 0] - 0.5
            inside = (low > 0.04) & (low < 0.06)  # broken in between only
            safe = self.scale * torch.where(inside, -torch.ones_like(low), 2 - low)
            return torch.stack([safe, torch.zeros_like(safe)], 1)

    x = torch.full((40, INPUTS), 0.5)
    target = targets.torch(Trap(), name="trap")
    game = evasion.EvasionGame(x, torch.zeros(40, dtype=torch.int64), threat=evasion.Linf(0.05).threat())
    evidence = game.play(evasion.PGD(steps=10), target, seed=0)
    assert evidence["robust accuracy"].estimate == 0.0
    assert "DBT105" in codes(evidence)
    assert any("twice the radius" in d.text for d in evidence.doubts if d.code == "DBT105")


def test_an_attack_without_bound_that_does_not_reach_chance() -> None:
    def shattered(x: Tensor) -> Tensor:
        return x + 0.0 * x.sum() + 1e-3 * torch.sin(1e5 * x)  # the gradient is that of the ripple

    (evidence,) = found(Before(shattered), radius=0.02)
    assert "DBT106" in codes(evidence)
    (negated,) = found(Before(_Misled.apply), radius=0.02)
    assert "DBT106" in codes(negated)


@dataclass(frozen=True)
class Strays:
    """An attack that leaves its budget."""

    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})

    def perturb(self, view: Any, x: Tensor, y: Tensor, budget: Any, rng: Any) -> Tensor:
        return (x + 1.01 * budget.radius).clamp(0, 1.5)


def test_an_attack_that_left_its_budget() -> None:
    (evidence,) = found(network(), Strays())
    assert codes(evidence) == ["DBT107"]
    assert evidence.doubts[0].text == "40 of its inputs left linf 0.05 and were not counted"
    assert evidence["robust accuracy"].estimate == 1.0


def test_a_forward_that_optimizes() -> None:
    def purified(x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = nn.Parameter(x.detach().clone())
            optimizer = torch.optim.SGD([z], lr=1e-3)
            z.grad = torch.zeros_like(z)
            optimizer.step()
        return x

    (evidence,) = found(Before(purified))
    assert codes(evidence) == ["DBT108"]
    assert "an optimizer" in evidence.doubts[0].text


def test_a_forward_that_takes_gradients() -> None:
    def purified(x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad((z**2).sum(), z)
        return x - 1e-3 * gradient.detach()

    (evidence,) = found(Before(purified))
    assert codes(evidence) == ["DBT108"]
    assert "autograd.grad" in evidence.doubts[0].text


@pytest.mark.parametrize("layer", [nn.Dropout(0.1), nn.BatchNorm1d(INPUTS)], ids=lambda v: type(v).__name__)
def test_layers_in_training_mode(layer: nn.Module) -> None:
    model = nn.Sequential(layer.train(), network())
    model.training = False  # the flag of the whole says nothing of its parts
    (evidence,) = found(model, radius=1e-6)
    assert "DBT110" in codes(evidence)
    assert ("DBT101" in codes(evidence)) == isinstance(layer, nn.Dropout)
    layer.eval()
    (sound,) = found(model)
    assert codes(sound) == []


def test_looking_for_doubts_is_not_charged() -> None:
    (evidence,) = found(network(), evasion.FGSM())
    assert (evidence.cost.forwards, evidence.cost.backwards) == (80, 40)
