"""Features: the named layers' own values, differentiable, and the module as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay import demo
from assay.errors import TargetError
from assay.targets.features import chosen, graded, pooled, read


class Shared(nn.Module):
    """One module called twice, one in place, and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.body(x))
        h = self.relu(self.body(h) + x)
        return self.head(self.norm(h))


def test_every_call_of_a_layer_has_its_own_value_before_the_next_one_works_in_place() -> None:
    torch.manual_seed(0)
    net, x = Shared(), torch.randn(5, 4)
    scores, (first, relu, second, given) = read(net.eval(), ("body", "relu", "body#2", "head:input"), x)
    known = net.body(x)
    assert torch.allclose(first, known)
    assert torch.allclose(relu, known.relu())
    assert torch.allclose(second, net.body(known.relu()))
    assert torch.allclose(given, net.norm((net.body(known.relu()) + x).relu()))
    assert torch.allclose(scores, net(x))


def test_the_module_stays_as_it_is() -> None:
    torch.manual_seed(0)
    net, x = Shared(), torch.randn(5, 4)
    assert net.training
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graded(net, ("relu",), x, lambda features: features[0].sum(1))
    chosen(net, x, 3)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_gradients_of_features_are_those_of_the_network_cut_there() -> None:
    net, (x, _) = demo.network().double(), demo.digits("test[:9]")
    x, goal = x.double(), torch.arange(9 * 16, dtype=torch.float64).reshape(9, 16)
    names = ("3", "7:input")
    seen = graded(net, names, x, lambda f, g: (pooled(f[0]) * g).sum(1) + f[1].square().sum(1), goal, batch=4)
    leaf = x.clone().requires_grad_()
    middle = net[:4](leaf)
    loss = (middle.mean((2, 3)) * goal).sum(1) + net[4:7](middle).square().sum(1)
    (known,) = torch.autograd.grad(loss.sum(), leaf)
    assert torch.allclose(seen.gradient, known)
    assert torch.allclose(seen.loss, loss.detach())
    assert torch.allclose(seen.scores, net(x).detach())


def test_layers_are_chosen_from_the_input_to_the_penultimate_one() -> None:
    net, (x, _) = demo.network(), demo.digits("test[:2]")
    assert chosen(net, x, 1) == ("7:input",)
    assert chosen(net, x, 3) == ("1", "3", "7:input")
    torch.manual_seed(0)
    assert chosen(Shared(), torch.randn(3, 4), 2) == ("relu", "head:input")
    assert chosen(nn.Linear(4, 2), torch.randn(3, 4), 4) == (":input",)
    deep = nn.Sequential(*[layer for _ in range(20) for layer in (nn.Linear(4, 4), nn.ReLU())], nn.Linear(4, 2))
    assert chosen(deep, torch.randn(3, 4), 4) == ("7", "19", "31", "40:input")


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(TargetError) as caught:
        read(Shared(), ("bod",), torch.randn(2, 4))
    assert caught.value.code == "PRF141"
    assert "did you mean 'body'" in caught.value.what

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T

    with pytest.raises(TargetError) as caught:
        chosen(Bare(), torch.randn(2, 4), 2)
    assert caught.value.code == "PRF141"
