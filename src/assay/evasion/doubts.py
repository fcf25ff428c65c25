"""Reasons to distrust an evaluation of robustness, looked for by the referee: they change the verdict.

Source: Carlini et al., 2019, "On evaluating adversarial robustness"; AutoAttack's flags (Croce & Hein, 2020);
Athalye et al., ICML 2018. Every probe looks at no more than ``SAMPLE`` points and is not charged to the adversary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from assay.evasion.attacks.pgd import PGD
from assay.evasion.board import to_index
from assay.evasion.methods import Cascade, Certifier, name_of
from assay.evasion.objectives import cross_entropy, margin
from assay.evasion.threat import MISCLASSIFY, Ball
from assay.evasion.transformations import Transformation
from assay.evasion.trial import Trial
from assay.evidence.record import Doubt
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.targets.base import Target, WhiteBox, refuses
from assay.targets.defended import Defended
from assay.targets.pytorch import TorchTarget
from assay.targets.softmax import looks_like_probabilities, saturated

SAMPLE = 64
_DEAD = 0.1
"""The share of points without a usable gradient from which on the gradients are in doubt."""
_SURPRISE = 0.01
"""The share of points that a weaker adversary broke after a stronger one failed, likewise."""


def examine(trial: Trial) -> tuple[Doubt, ...]:
    """The doubts about target and set-up, the same for every attack of the trial."""
    points = trial.board.correct.nonzero()[0][:SAMPLE]
    if not len(points) or all(isinstance(method, Certifier) for method in trial.methods):
        return ()
    x = torch.as_tensor(trial.x[points]).to(device=trial.target.device, dtype=trial.target.dtype)
    y = torch.as_tensor(trial.y[points]).to(device=trial.target.device, dtype=torch.int64)
    return tuple(_look(trial, x, y))


def of_method(trial: Trial, owner: int) -> tuple[Doubt, ...]:
    """The doubts about one attack."""
    doubts = []
    if trial.escaped[owner]:
        doubts.append(Doubt("DBT107", f"{trial.escaped[owner]} of its inputs left {trial.budget} and were not counted"))
    if trial.surprised[owner] > _SURPRISE * max(len(trial.y), 1):
        doubts.append(Doubt("DBT104", f"{trial.surprised[owner]} points fell to scores or labels alone after every "
                                      "gradient attack on them had failed"))
    standing = to_index(trial.board.standing(slice(0, len(trial.y)), trial.budget.radius)[:SAMPLE], trial.target.device)
    plain = not isinstance(trial.methods[owner], Cascade) and not isinstance(trial.budget, Transformation)
    if len(standing) and _differentiated(trial) and plain:
        x = torch.as_tensor(trial.x[standing.cpu().numpy()]).to(trial.target.device, trial.target.dtype)
        y = torch.as_tensor(trial.y[standing.cpu().numpy()]).to(trial.target.device, torch.int64)
        if getattr(trial.methods[owner], "loss", "") == "ce" and (share := _dead(trial, x, y, "ce")) > _DEAD:
            doubts.append(Doubt("DBT103", f"{share:.0%} of the standing points have no cross-entropy gradient, "
                                          f"which is what {name_of(trial.methods[owner])} climbs"))
    return tuple(doubts)


def _look(trial: Trial, x: Tensor, y: Tensor) -> Iterator[Doubt]:
    target = trial.target
    if (target.randomized or trial.draws > 1) and not _composed_for_randomness(trial):
        yield Doubt("DBT101", "two looks at the same inputs gave different outputs; judged by the majority of "
                              f"{trial.draws} looks")
    if isinstance(target, TorchTarget):
        if layers := target.training_layers:
            yield Doubt("DBT110", f"layers in training mode: {', '.join(layers[:3])}{'…' if len(layers) > 3 else ''}")
            return  # batch statistics even raise on a single row: what else is probed would not be of this model
        with _watched() as calls:
            target.scores(x[:2])
        if calls:
            yield Doubt("DBT108", f"the forward pass itself calls {', '.join(sorted(set(calls)))}")
    if target.offers >= Access.SCORES and _softmaxed(target, x):
        yield Doubt("DBT102", f"{target.name} gives probabilities, and attacks had nothing else to follow")
    if isinstance(trial.budget, Transformation):
        return  # the probes below move inputs, which this adversary cannot
    if _differentiated(trial) and trial.threat.goal == MISCLASSIFY:
        if (share := _dead(trial, x, y, "margin")) > _DEAD:
            yield Doubt("DBT103", f"{share:.0%} of {len(x)} points have a zero or non-finite gradient")
        yield from _sanity(trial, x, y)


def _differentiated(trial: Trial) -> bool:
    """Whether the adversary has gradients: granted, and the model has them."""
    return trial.threat.access >= Access.GRADIENTS and isinstance(trial.target, WhiteBox)


def _softmaxed(target: object, x: Tensor) -> bool:
    if isinstance(target, TorchTarget):
        return target.outputs == "probabilities" and not target.stripped
    scores = cast(Any, target).scores(x)
    # A search by scores does well on probabilities too, until they are rounded to 0 and 1.
    return looks_like_probabilities(scores) and saturated(scores) > _DEAD


def _dead(trial: Trial, x: Tensor, y: Tensor, loss: str) -> float:
    """The share of points whose gradient is zero or not finite, at the point and at a random one of the ball."""
    rng = Stream.seeded(trial.seed, torch.arange(len(x), device=x.device)).fold("doubts")
    near = _ball(trial).random(x, trial.target.bounds, rng)
    target, climbed = cast(WhiteBox, _sight(trial)[0]), margin if loss == "margin" else cross_entropy
    shares = []
    for z in (x, near):
        gradient = target.graded(z, climbed, y).gradient.flatten(1)
        dead = (gradient == 0).all(1) | ~torch.isfinite(gradient).all(1)
        shares.append(float(dead.double().mean()))
    return max(shares)


def _sanity(trial: Trial, x: Tensor, y: Tensor) -> Iterator[Doubt]:
    """More steps and a larger radius must not do worse; an unbounded attack must reach chance."""
    ball, classes = _ball(trial), trial.target.scores(x[:2]).shape[1] - refuses(trial.target)
    few, many = (_survivors(trial, x, y, ball, steps) for steps in (5, 40))
    wide = _survivors(trial, x, y, ball.at(2 * ball.radius), 40)
    slack = max(2, round(0.05 * len(x)))
    if many > few + slack:
        yield Doubt("DBT105", f"of {len(x)} points {few} withstood 5 steps of PGD, {many} withstood 40")
    if wide > many + slack:
        yield Doubt("DBT105", f"of {len(x)} points {many} withstood PGD in {ball}, {wide} in twice the radius")
    unbounded = _survivors(trial, x, y, ball.at(_diameter(ball, x, trial.target.bounds.width)), 40)
    chance = len(x) / classes
    if unbounded > chance + 3 * (chance * (1 - 1 / classes)) ** 0.5:
        yield Doubt("DBT106", f"{unbounded} of {len(x)} points withstood PGD with no bound but the box")


def _diameter(ball: Ball, x: Tensor, width: float) -> float:
    size = x[0].numel()
    return float({0.0: size, 1.0: size * width, 2.0: size**0.5 * width}.get(ball.norm, width))


def _survivors(trial: Trial, x: Tensor, y: Tensor, ball: Ball, steps: int) -> int:
    target, lead = _sight(trial)
    threat = replace(trial.threat, budget=ball, queries=None, access=Access.GRADIENTS)
    declared = trial.composed.parts.randomness
    attack = PGD(steps=steps, loss="margin", draws=3 if trial.draws > 1 and not declared else 1)
    rng = Stream.seeded(trial.seed, torch.arange(len(x), device=x.device)).fold("sanity")
    z = attack.perturb(threat.grant(target, len(x), labels=y, handicap=lead), x, y, ball, rng)
    return int((~trial.judge(z, y)[0]).sum())


def _sight(trial: Trial) -> tuple[Target, float]:
    """What the gradients are looked at through: as an adapted attack does, where there is one."""
    if not trial.composed.adaptive:
        return trial.target, 0.0
    sight = trial.composed.adaptive[0]
    return sight.target, sight.handicap


def _ball(trial: Trial) -> Ball:
    """The budget, or, of one without limit, the middle of the curve."""
    ball = trial.budget
    return ball if math.isfinite(ball.radius) else ball.at(trial.radii[(len(trial.radii) - 1) // 2])


def _composed_for_randomness(trial: Trial) -> bool:
    """Whether the target declares its randomness and attacks have averaged over it."""
    return isinstance(trial.target, Defended) and trial.composed.parts.randomness and bool(trial.composed.adaptive)


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Notes every call of autograd or of an optimizer while the block runs."""
    calls: list[str] = []

    def noting(name: str, original: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return called

    with (
        mock.patch.object(torch.autograd, "grad", noting("autograd.grad", torch.autograd.grad)),
        mock.patch.object(torch.autograd, "backward", noting("autograd.backward", torch.autograd.backward)),
        mock.patch.object(torch.optim.Optimizer, "__init__", noting("an optimizer", torch.optim.Optimizer.__init__)),
    ):
        yield calls
