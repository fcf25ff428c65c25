"""The small models and points on which contracts are tried; see :mod:`assay.testing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from assay.evasion.changes import Flow, Rotation
from assay.evasion.methods import Certifier, Perturber, kinds_of
from assay.evasion.records import Records, Schema
from assay.evasion.threat import L0, L1, L2, Ball, Linf
from assay.evasion.transformations import Applied, Transformation
from assay.privacy.asking import signals
from assay.privacy.methods import Sight
from assay.privacy.signals import Signals, balanced_keep
from assay.privacy.threat import MEMBERSHIP, People
from assay.targets.access import Access
from assay.targets.base import Bounds, Target
from assay.targets.estimator import sklearn_target
from assay.targets.pytorch import torch_target
from assay.threats import ThreatModel

POINTS = 16
"""How many points an attack or a proof is tried on."""

RADII: dict[float, Ball] = {float("inf"): Linf(0.02), 2.0: L2(0.12), 1.0: L1(0.5), 0.0: L0(2)}
"""The budgets under which attacks are tried: some points of the model fall, some stand."""

WIDE: dict[float, Ball] = {float("inf"): Linf(0.15), 2.0: L2(0.2), 1.0: L1(0.2), 0.0: L0(1)}
"""The same for models that are no nets."""

Plays = Literal["nets", "trees", "tree", "records", "gaussian processes", "rotation", "flow"]
"""What a method is made for, where it says so by a class variable ``plays``: networks, ensembles of trees, one tree,
records of fields, Gaussian process classifiers, or images under a family of changes."""


def plays_of(method: object) -> Plays:
    """The kind of model that a method declares, or of budget; of one that declares nothing, networks."""
    kinds = kinds_of(cast(Perturber | Certifier, method))
    plays: Plays = getattr(method, "plays", cast(Plays, next(iter(kinds), "nets")))
    return plays


@dataclass(frozen=True, eq=False)
class Setting:
    """A small model and points in its box, many of whose coordinates are at its edge; all of it float64."""

    target: Target
    x: Tensor
    y: Tensor
    budgets: Mapping[float, Ball]
    module: nn.Module | None = None
    lens: Applied | None = None
    """Where attacks move parameters of changes to images: how they reach the target; ``x`` are the parameters."""

    @property
    def bounds(self) -> Bounds:
        """The box in which what is moved lives."""
        return self.target.bounds if self.lens is None else self.lens.bounds

    def labels(self, z: Tensor) -> Tensor:
        """What the target takes all points for, moved to ``z``."""
        return self.target.labels(z if self.lens is None else self.lens(z, torch.arange(len(z))))

    def channel(self, rows: Tensor) -> Applied | None:
        """The lens of these points alone."""
        return None if self.lens is None else replace(self.lens, x=self.lens.x[rows])

    @classmethod
    def of(cls, plays: Plays) -> Setting:
        """A fresh setting for methods of this kind."""
        return _SETTINGS[plays]()

    def state(self) -> list[Tensor]:
        """Whatever an attack has no business with, as copies."""
        modules = [] if self.module is None else [self.module]
        parameters = [parameter for module in modules for parameter in module.parameters()]
        held = [v.detach().clone() for v in chain.from_iterable((p, p.grad) for p in parameters) if v is not None]
        modes = torch.tensor([m.training for module in modules for m in module.modules()])
        asked = torch.tensor([p.requires_grad for p in parameters])
        return [*held, modes, asked, self.x.clone(), self.y.clone()]


def convolutional() -> Setting:
    """A network of three classes."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(),
                  nn.Linear(16, 3))
        model = nn.Sequential(*layers).double()
    x = _clipped(torch.rand(POINTS, 1, 6, 6, generator=generator, dtype=torch.float64))
    model[1].training = model[4].training = False  # modes differ, so that a change of either kind shows
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with torch.no_grad():
        scores = model(x)
        model[5].bias -= scores.mean(0)  # so that every class is somebody's
    target = torch_target(model, name="contract")
    return Setting(target, x, target.labels(x).clone(), RADII, model)


def _changed(family: Transformation) -> Setting:
    """Demo digits under a family of changes to images."""
    from assay import demo

    net, (x, _) = demo.target(), demo.digits(f"test[:{POINTS}]")
    target = torch_target(net.module().double(), name="contract")
    start, y = family.start(x.double()), target.labels(x.double())
    return Setting(target, start, y, {float("inf"): family.ball}, lens=Applied(family, x.double(), target.bounds))


def _clipped(x: Tensor) -> Tensor:
    return (1.5 * x - 0.25).clamp(0, 1)


@cache
def _wooded(count: int) -> Target:
    """A forest of so many trees, of three classes that are stripes across a square; one tree alone is no forest."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    x = _clipped(torch.rand(300, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).numpy()
    y = np.digitize(x[:, 0] + x[:, 1], [0.8, 1.2])
    model = RandomForestClassifier(count, max_depth=4, random_state=0) if count > 1 \
        else DecisionTreeClassifier(max_depth=5, random_state=0)
    return sklearn_target(model.fit(x, y), name="contract")


def _on_trees(count: int) -> Setting:
    x = _clipped(torch.rand(POINTS, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    target = _wooded(count)
    return Setting(target, x, target.labels(x).clone(), WIDE)


def _on_records() -> Setting:
    """Records of two numbers and two categories that depend on each other, and a forest that looks at all of them."""
    from sklearn.ensemble import RandomForestClassifier

    draw = torch.Generator().manual_seed(4)
    group = torch.randint(0, 4, (300, 1), generator=draw)
    numbers = torch.randint(0, 21, (300, 2), generator=draw)
    x = torch.cat([numbers, group, group // 2 + torch.randint(0, 2, (300, 1), generator=draw)], 1).double()
    y = (x[:, 0] + 3 * x[:, 2] > x[:, 1] + 4).long()
    forest = RandomForestClassifier(7, max_depth=5, random_state=0).fit(x.numpy(), y.numpy())
    target = sklearn_target(forest, bounds=(0, 20), name="contract")
    schema = Schema.learn(x, ["in", "out", "group", "kind"], categories=["group", "kind"], grows=["in"],
                          dependent=[("group", "kind")])
    return Setting(target, x[:POINTS], target.labels(x[:POINTS]).clone(), {0.0: Records(1, schema)})


def _on_process() -> Setting:
    """A Gaussian process of three classes on a square."""
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF

    train = torch.rand(60, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    y = np.digitize(train.sum(1), [0.8, 1.2])
    process = GaussianProcessClassifier(100.0 * RBF(0.3), optimizer=None).fit(train, y)
    target = sklearn_target(process, name="contract")
    x = _clipped(torch.rand(POINTS, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64))
    return Setting(target, x, target.labels(x).clone(), {2.0: L2(0.5)})


_SETTINGS: dict[Plays, Callable[[], Setting]] = {
    "nets": convolutional,
    "trees": lambda: _on_trees(7),
    "tree": lambda: _on_trees(1),
    "records": _on_records,
    "rotation": lambda: _changed(Rotation(rotation=20, translation=1)),
    "flow": lambda: _changed(Flow(flow=0.3)),
    "gaussian processes": _on_process,
}


def membership(access: Access) -> Sight:
    """Two linear models and twelve shadow models' signals about 40 examples in a square, as an adversary has them."""
    rng = np.random.default_rng(0)
    x, keep = rng.random((40, 2), dtype=np.float32), balanced_keep(12, 40, 0)
    y = (x.sum(1) > 1).astype(np.int64)
    shadows = Signals(2 * rng.normal(size=40) + rng.normal(size=keep.shape) + 2 * keep, keep)
    targets = [torch_target(_line(tilt), name="contract") for tilt in (0.8, 1.2)]
    threat = ThreatModel(goal=MEMBERSHIP, access=access, budget=People.of(None))
    views = tuple(threat.grant(target, len(x)) for target in targets)
    answers = None
    if access >= Access.SCORES:
        inputs, labels = torch.as_tensor(x), torch.as_tensor(y)
        answers = np.stack([signals(view.scores, inputs, labels, 1) for view in views])
    return Sight(y, shadows, answers, x, views)


def only(sight: Sight, target: int) -> Sight:
    """The same adversary before one of the targets."""
    answers = None if sight.answers is None else sight.answers[[target]]
    return replace(sight, answers=answers, views=(sight.views[target],))


def _line(tilt: float) -> nn.Module:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 4 * tilt]]))
        model.bias.copy_(torch.tensor([0.0, -4.0]))
    return model
