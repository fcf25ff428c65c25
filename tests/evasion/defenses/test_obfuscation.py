"""Obfuscations, checked against what they say happens in each layer, and seen through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from assay import demo, evasion, targets
from assay.errors import ConfigError, TargetError
from assay.evasion.defenses.obfuscation.target import Rewired
from assay.evasion.objectives import cross_entropy, margin
from assay.targets.defended import Defended, Parts

DIGITS = demo.digits("test[:50]")


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- activations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "k"), [(0.1, 24), (0.5, 120), (1.0, 240), (0.001, 1)])
def test_exactly_the_k_largest_win(ratio: float, k: int) -> None:
    x = values(6, 4, 6, 10)
    out = evasion.KWTA(ratio=ratio).fire(x)
    assert out.shape == x.shape
    for before, after in zip(x.flatten(1), out.flatten(1)):
        assert int((after != 0).sum()) == k
        assert torch.equal(after[after != 0].sort().values, before.sort().values[-k:])
        assert torch.equal(after[after != 0], before[after != 0])


@pytest.mark.parametrize("levels", [1, 4, 15])
def test_activations_are_rounded_to_so_many_levels(levels: int) -> None:
    x = values(6, 4, 6, 100).clamp_max(2)
    out = evasion.RoundActivations(levels=levels).fire(x)
    for before, after in zip(x.flatten(1).clamp_min(0), out.flatten(1)):
        step = before.max() / levels
        assert torch.allclose(after / step, (after / step).round())
        assert len((after / step).round().unique()) == levels + 1
        assert float((after - before).abs().max()) <= float(step) / 2 + 1e-12
        assert float(after.max()) == pytest.approx(float(before.max()))
    assert not bool(evasion.RoundActivations().fire(torch.zeros(2, 5)).any())


def test_pruning_is_unbiased_and_keeps_what_draws_with_replacement_keep() -> None:
    x, looks = values(1, 40), 20_000
    method = evasion.ActivationPruning(ratio=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = method.fire(x.expand(looks, 40))
    h = x[0].clamp_min(0)
    error = out.std(0) / looks**0.5
    assert bool(((out.mean(0) - h).abs() <= 5 * error + 1e-12).all())
    # Dhillon et al.'s own procedure: as many draws as activations, with replacement, in proportion to their size.
    p = (h / h.sum()).numpy()
    drawn = np.random.default_rng(0).multinomial(40, p, size=looks) > 0
    kept, want = (out != 0).double().mean(0).numpy(), drawn.mean(0)
    assert np.abs(kept - want).max() < 5 * (2 * 0.25 / looks) ** 0.5
    scale = out[:, want > 0].max(0).values.numpy() / h[want > 0].numpy()
    assert np.allclose(scale, 1 / (1 - (1 - p[want > 0]) ** 40))


def test_pruning_of_nothing_is_nothing_and_its_gradients_are_finite() -> None:
    x = torch.cat([-values(2, 12).abs(), values(2, 12)]).requires_grad_()
    out = evasion.ActivationPruning().fire(x)
    assert not bool(out[:2].any())
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert bool(torch.isfinite(gradient).all())
    one = torch.tensor([[3.0, -1.0, 0.0]])
    assert torch.equal(evasion.ActivationPruning().fire(one), one.clamp_min(0))


# --- rewiring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doubled:
    """Twice the ReLU: easy to recognize."""

    parts: ClassVar[Parts] = Parts(surrogate=True)

    def fire(self, x: Tensor) -> Tensor:
        return 2 * x.clamp_min(0)


class Functional(nn.Module):
    """One ReLU of every way to call it, on a line of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(8))
        self.relu, self.in_place = nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth, fifth, sixth, seventh, last = self.layers
        x = self.relu(first(x))
        x = F.relu(second(x))
        x = torch.relu(third(x))
        x = fourth(x).relu()
        x = F.relu(fifth(x), inplace=True)
        x = self.in_place(sixth(x))
        x = seventh(x)
        x.relu_()
        out: Tensor = last(x)
        return out


def seven_times(model: Functional, x: Tensor, factor: float) -> Tensor:
    for layer in model.layers[:-1]:
        x = factor * layer(x).clamp_min(0)
    out: Tensor = model.layers[-1](x)
    return out


@pytest.mark.parametrize("traced", [False, True], ids=["module", "graph"])
def test_a_relu_is_found_however_it_is_called(traced: bool) -> None:
    model, x = Functional().double().eval(), values(6, 5)
    network: nn.Module = fx.symbolic_trace(model) if traced else model
    out = Rewired(network, Doubled(), straight=False)(x)
    assert torch.allclose(out, seven_times(model, x, 2.0))
    assert torch.allclose(network(x), seven_times(model, x, 1.0))


def test_gradients_of_what_is_known_are_those_of_the_relus() -> None:
    model, x = Functional().double().eval(), values(6, 5)
    leaf = x.clone().requires_grad_()
    out = Rewired(model, Doubled(), straight=True)(leaf)
    assert torch.allclose(out, seven_times(model, x, 2.0))
    got = torch.autograd.grad(out.sum(), leaf)[0]
    naive = torch.autograd.grad(Rewired(model, Doubled(), straight=False)(leaf).sum(), leaf)[0]
    assert torch.allclose(naive, 2.0**7 * got)  # the same units are active, and each doubles once


def test_the_users_module_stays_as_it_is_and_shares_its_weights() -> None:
    model = demo.network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net = targets.torch(model)
    x, y = DIGITS
    want = net.scores(x)
    safe = evasion.KWTA(ratio=0.2).protect(net)
    assert not torch.allclose(safe.scores(x), want)
    safe.adapted().graded(x, margin, y)
    assert torch.equal(net.scores(x), want)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {p.data_ptr() for p in safe.inner.module().parameters()} == {p.data_ptr() for p in model.parameters()}
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert isinstance(safe, Defended)
    assert safe.bare is net


def test_onnx_files_are_rewired_through_the_imported_graph(tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model, x = Functional().eval(), values(6, 5).float()
    nodes, constants, last = [], [], "x"
    for number, layer in enumerate(model.layers):
        for name, value in (("w", layer.weight), ("b", layer.bias)):
            constants.append(onnx.numpy_helper.from_array(value.detach().numpy(), f"{name}{number}"))
        made = f"y{number}"
        nodes.append(onnx.helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [made], transB=1))
        last = made
        if number < 7:
            last = f"r{number}"
            nodes.append(onnx.helper.make_node("Relu", [made], [last]))
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "line", [shape("x", 1, ["n", 5])], [shape(last, 1, ["n", 5])], constants)
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "line.onnx")
    net = targets.onnx(tmp_path / "line.onnx", bounds=(-9, 9))
    safe = evasion.RoundActivations(levels=3).protect(net)
    safe.check(x)
    assert torch.allclose(safe.scores(x), Rewired(model, evasion.RoundActivations(levels=3), False)(x), atol=1e-5)
    assert not torch.allclose(safe.scores(x), net.scores(x))


def test_a_network_without_a_relu_is_refused_when_it_is_looked_at() -> None:
    x, _ = DIGITS
    smooth = targets.torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh(), nn.Linear(10, 10)))
    with pytest.raises(TargetError, match="PRF134"):
        evasion.KWTA().protect(smooth).check(x)


def test_what_is_no_network_cannot_be_rewired() -> None:
    with pytest.raises(TargetError, match="PRF133"):
        evasion.KWTA().protect(evasion.BitDepth().protect(demo.target()))
    assert evasion.BitDepth().protect(evasion.KWTA().protect(demo.target())).parts == Parts(surrogate=True)


@pytest.mark.parametrize("make", [
    lambda: evasion.KWTA(ratio=0.0), lambda: evasion.RoundActivations(levels=0), lambda: evasion.Temperature(t=0.0),
    lambda: evasion.ActivationPruning(ratio=0.0),
])
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ConfigError, match="PRF131"):
        make()


# --- temperature -------------------------------------------------------------------------------------------------


def test_temperature_changes_no_label_and_kills_only_the_softmax() -> None:
    x, y = DIGITS
    net = demo.target()
    safe = evasion.Temperature(t=1000.0).protect(net)
    right = net.labels(x) == y
    x, y = x[right], y[right]
    assert torch.equal(safe.labels(x), net.labels(x))
    assert torch.equal(safe.scores(x), 1000 * net.scores(x))
    dead = (safe.graded(x, cross_entropy, y).gradient == 0).flatten(1).all(1)
    assert float(dead.double().mean()) > 0.9
    bare = net.graded(x, margin, y)
    assert torch.allclose(safe.graded(x, margin, y).gradient, 1000 * bare.gradient, rtol=1e-4, atol=1e-2)
    for got, want in zip(safe.adapted().graded(x, cross_entropy, y), net.graded(x, cross_entropy, y)):
        assert torch.equal(got, want)
    classes = y[:, None]
    for got, want in zip(safe.jacobian(x, classes), net.jacobian(x, classes)):
        assert torch.allclose(got, 1000 * want, rtol=1e-4, atol=1e-2)


def test_temperature_below_a_cleanser_is_taken_off_too() -> None:
    x, y = DIGITS
    net = demo.target()
    safe = evasion.BitDepth(bits=6).protect(evasion.Temperature(t=1000.0).protect(net))
    assert safe.parts == Parts(surrogate=True, temperature=True)
    got = safe.adapted().graded(x, cross_entropy, y)
    want = net.graded((x * 63).round() / 63, cross_entropy, y)
    assert torch.allclose(got.gradient, want.gradient)
    assert torch.allclose(got.scores, want.scores)


# --- seen through ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defense", "naive"),
    [(evasion.Temperature(), (0.9, 1)), (evasion.RoundActivations(), (0.9, 1)), (evasion.KWTA(), (0, 0.06)),
     (evasion.ActivationPruning(), (0, 0.1))],
    ids=["temperature", "rounding", "k-wta", "pruning"],
)
def test_an_attack_that_knows_breaks_it_and_one_that_does_not_stands_where_gradients_are_gone(
    defense, naive: tuple[float, float]
) -> None:
    x, y = DIGITS
    target = defense.protect(demo.target())
    assert isinstance(target, Defended)
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.2).threat())
    attack = evasion.PGD(steps=10, draws=4 if target.randomized else 1)
    oblivious = replace(game, threat=evasion.Linf(0.2).threat(knows={"model"}))
    found = oblivious.play(replace(attack, draws=1), target, seed=0)
    assert found["clean accuracy"].estimate >= 0.94
    assert naive[0] <= found["robust accuracy"].estimate <= naive[1]
    assert game.play(attack, target.adapted(), seed=0)["robust accuracy"].estimate <= 0.04
