"""Attacks of other libraries behind one signature; every library is optional, and only its public API is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""``(model, x [n, …] in [0, 1], y [n])`` to the inputs that the attack returns, failures included."""

MODULES = {
    "foolbox": "foolbox.attacks",
    "adversarial-robustness-toolbox": "art.attacks.evasion",
    "torchattacks": "torchattacks",
    "adv-lib": "adv_lib.attacks",
}
"""Each library as it is published, and where it keeps its attacks."""


@dataclass(frozen=True)
class Peer:
    """One attack of one library, with its parameters in words."""

    library: str
    name: str
    settings: str
    run: Run


class Net(nn.Module):
    """A network in one piece: of a bare ``Sequential`` ART calls the layers one by one, and no hook would count."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """What ``inner`` says."""
        return cast(Tensor, self.inner(x))


def missing() -> dict[str, str]:
    """The libraries that cannot be used here, and why."""
    why = {}
    for library, module in MODULES.items():
        try:
            version(library)
            import_module(module)
        except PackageNotFoundError:
            why[library] = "not installed"
        except Exception as error:  # some fail at import for want of a package of their own
            why[library] = f"does not import: {error}"
    return why


def versions() -> dict[str, str]:
    """The version of each library that is installed."""
    absent = missing()
    return {library: version(library) for library in MODULES if library not in absent}


def foolbox(name: str, /, *, starts: bool = False, **settings: Any) -> Peer:
    """An attack of foolbox that minimizes.

    Args:
        starts: whether each point is given the image of another label to start from. By itself the attack starts from
            noise, and where a network withstands noise at one point it stops for all.
    """

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrapped = import_module("foolbox").PyTorchModel(model, bounds=(0, 1), device=x.device)
        attack = getattr(import_module("foolbox.attacks"), name)(**settings)
        given = {"starting_points": others(x, y)} if starts else {}
        return cast(Tensor, attack(wrapped, x, y, epsilons=None, **given)[1])

    return Peer("foolbox", name, words(settings | ({"start": "given"} if starts else {})), run)


def others(x: Tensor, y: Tensor) -> Tensor:
    """For each point, the first of the points that has another label."""
    return x[(y[:, None] != y).int().argmax(1)]


def art(name: str, /, *, labels: bool = True, softmax: bool = False, **settings: Any) -> Peer:
    """An attack of the Adversarial Robustness Toolbox, all points in one batch.

    Args:
        labels: whether it is told the labels; otherwise it believes the network's.
        softmax: whether the attack reads the network's outputs as probabilities.
    """

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        wrap = import_module("art.estimators.classification").PyTorchClassifier
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        shape, network = tuple(x.shape[1:]), Net(nn.Sequential(model, nn.Softmax(1))) if softmax else model
        wrapped = wrap(network, nn.CrossEntropyLoss(), shape, classes, clip_values=(0.0, 1.0), device_type="cpu")
        attack = getattr(import_module("art.attacks.evasion"), name)(wrapped, batch_size=len(x), **settings)
        wanted = {"y": np.eye(classes, dtype=np.float32)[y.numpy()]} if labels else {}
        return torch.from_numpy(np.asarray(attack.generate(x.numpy().copy(), **wanted), np.float32))

    return Peer("adversarial-robustness-toolbox", name, words(settings), run)


def torchattacks(name: str, /, *, targeted: bool = False, **settings: Any) -> Peer:
    """An attack of torchattacks."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = getattr(import_module("torchattacks"), name)(model, **settings)
        attack.set_device("cpu")
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return cast(Tensor, attack(x, y))

    return Peer("torchattacks", name, words(settings), run)


def adv_lib(name: str, /, **settings: Any) -> Peer:
    """An attack of adv-lib."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cast(Tensor, getattr(import_module("adv_lib.attacks"), name)(model, x, y, **settings))

    return Peer("adv-lib", name, words(settings), run)


def words(settings: dict[str, Any]) -> str:
    """Parameters as the table prints them."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())
