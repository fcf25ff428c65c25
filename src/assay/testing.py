"""What every target, attack, defense and proof has to keep to: contracts that third parties run in their own tests.

Each check raises ``AssertionError`` with a sentence that says what was found. The models and points are small and
fixed, so that a check takes about a second and says the same on every machine.

Example:
    >>> from assay import evasion, testing
    >>> testing.check_attack(evasion.PGD(steps=10))
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.contract import POINTS, RADII, Setting, convolutional, membership, only, plays_of
from assay.errors import Denied
from assay.evasion.attacks.pgd import PGD
from assay.evasion.attacks.tree_exact import TreeExact
from assay.evasion.defenses.detection import Recipe
from assay.evasion.methods import Certifier, Perturber, name_of, needs_of, norms_of
from assay.evasion.objectives import pair_margin
from assay.evasion.threat import Ball
from assay.numerics.balls import PROJECTIONS, distance, rowwise
from assay.numerics.seeds import Stream
from assay.privacy.methods import Inferrer, Sight
from assay.targets.access import Access
from assay.targets.base import Protector, Structured, Target, WhiteBox, refuses
from assay.targets.pytorch import torch_target
from assay.threats import Examples, View

QUERIES = 100
"""What an attack without gradients may spend on each point."""

SPACING = 3
"""Every how many points one is tried alone."""

_ALONE = 1e-9
"""How far a point may come out elsewhere alone: matrix products of another size round elsewhere."""


def check_target(target: Target, x: Tensor) -> None:
    """That ``target`` keeps to the protocol, tried on the examples ``x [n ≥ 2, …]`` in its box."""
    _require(len(x) >= 2, "at least two examples are needed")
    _require(target.bounds.lower < target.bounds.upper, f"the bounds {tuple(target.bounds)} are no interval")
    _require(bool(target.name), "the target has no name")
    x = x.to(target.device, target.dtype)
    target.check(x)
    before, kept = x.clone(), target.fingerprint()
    _require(all(isinstance(v, str) for pair in kept.items() for v in pair), "the fingerprint is not of strings")
    labels = target.labels(x)
    _require(labels.shape == (len(x),), f"labels have shape {tuple(labels.shape)} for {len(x)} rows")
    _require(labels.dtype == torch.int64, f"labels are {labels.dtype}, not int64")
    _require(target.forwards_per_query >= 1, "a query costs less than one forward")
    if target.offers >= Access.SCORES:
        _check_scores(target, x, labels)
    if not target.randomized:
        alone = torch.cat([target.labels(row) for row in _rows(x)])
        _require(torch.equal(alone, labels), "labels of rows alone differ from those of the same rows together")
    if target.offers >= Access.GRADIENTS:
        read = isinstance(target, Structured) and target.structure is not None
        known = isinstance(target, WhiteBox) or (read and target.offers == Access.WEIGHTS)
        _require(known, f"{target.offers} are offered without the methods of a WhiteBox and without a structure")
        if isinstance(target, WhiteBox):
            _check_gradients(target, x, labels)
    _require(torch.equal(x, before), "the caller's inputs were changed")
    _require(target.fingerprint() == kept, "looking at the target changed its fingerprint")


def check_attack(attack: Perturber, *, norms: frozenset[float] | None = None) -> None:
    """That ``attack`` keeps to the protocol in every norm that it declares, or in those given.

    It stays in budget and box, needs no more than it declares and spends no more than is granted, depends on the seed
    alone, treats each point by itself, touches nothing of the caller's, and returns the original where it fails.
    """
    _require(isinstance(needs_of(attack), Access), "needs is no Access")
    known = bool(norms_of(attack)) and norms_of(attack) <= set(PROJECTIONS)
    _require(known, f"norms {set(norms_of(attack))} are not known")
    for norm in sorted(norms_of(attack) if norms is None else norms):
        _check_attack_in(attack, Setting.of(plays_of(attack)), norm)


def check_defense(defense: object, target: Target, x: Tensor) -> None:
    """That ``defense`` keeps to the protocol: with ``protect``, around ``target``; with ``fit``, on its module.

    A detector is fitted to ``target`` on ``x`` first; some need more natural inputs than others.
    """
    before, seen = target.fingerprint(), torch.random.get_rng_state()
    if isinstance(defense, Recipe):
        guards = [defense.fit(target, x, target.labels(x), seed=0) for _ in range(2)]
        first, second = (guard.protect(target).fingerprint() for guard in guards)
        _require(first == second, "fit gave another detector under the same seed")
        _require(torch.equal(seen, torch.random.get_rng_state()), "fitting changed torch's global random numbers")
        defense = guards[0]
    if isinstance(defense, Protector):
        safe = defense.protect(target)
        check_target(safe, x)
        _require(safe.bounds == target.bounds, "the defended target has another box")
        _require(safe.offers <= target.offers, f"the defended target offers {safe.offers}, more than it can have")
        _require(safe.fingerprint() != before, "the defended target has the fingerprint of the bare one")
    else:
        fit = getattr(defense, "fit", None)
        _require(callable(fit), f"{type(defense).__name__} has neither protect nor fit")
        assert callable(fit)
        assert isinstance(target, WhiteBox)
        _check_fit(defense, target, x)
        _require(torch.equal(seen, torch.random.get_rng_state()), "training changed torch's global random numbers")
    _require(target.fingerprint() == before, "defending the target changed the target itself")


def check_inference(attack: Inferrer) -> None:
    """That a membership ``attack`` keeps to the protocol, tried on small signals and two linear models.

    It gives one finite score an example and target, depends on the seed alone, treats targets apart, and touches
    nothing of the caller's.
    """
    _require(isinstance(attack.needs, Access), "needs is no Access")
    sight = membership(attack.needs)
    held = [array.copy() for array in _arrays(sight)]
    seen, drawn = torch.random.get_rng_state(), _drawn()
    found = [attack.infer(sight, np.random.default_rng(seed)) for seed in (0, 0)]
    shape = (2, len(sight.y))
    _require(found[0].shape == shape, f"the scores have shape {found[0].shape}, not {shape}")
    _require(bool(np.isfinite(found[0]).all()), "a score is not finite")
    _require(np.array_equal(found[0], found[1]), "the same seed gave other scores")
    _require(all(map(np.array_equal, held, _arrays(sight))), "the attack wrote into what it was given")
    _require(torch.equal(seen, torch.random.get_rng_state()), "the attack drew from torch's global generator")
    _require(np.array_equal(drawn, _drawn()), "the attack drew from numpy's global generator")
    alone = attack.infer(only(sight, 1), np.random.default_rng(0))
    deterministic = attack.needs >= Access.SCORES
    _require(not deterministic or np.allclose(alone[0], found[0][1]), "a target alone has other scores than among two")


def _drawn() -> np.ndarray[Any, Any]:
    """The state of numpy's global generator."""
    return np.array(np.random.get_state(legacy=False)["state"]["key"])


def _arrays(sight: Sight) -> list[np.ndarray[Any, Any]]:
    shadows = [] if sight.shadows is None else [sight.shadows.values, sight.shadows.keep]
    return [array for array in (sight.y, sight.x, sight.answers, *shadows) if array is not None]


def check_proof(proof: Certifier, *, defense: Protector | None = None) -> None:
    """That ``proof`` keeps to the protocol and is not refuted, in every norm that it declares.

    Of a linear model the true distance is known: no certificate exceeds it. Of a small ReLU network (a small forest
    for proofs that play trees) certified points are attacked. Wrong points are never certified, and what holds at a
    radius holds at half of it.

    Args:
        proof: tried with its own parameters.
        defense: what a proof about defended targets needs around the model.
    """
    _require(0 <= proof.failure < 1, f"the chance of failure is {proof.failure}")
    _require(isinstance(proof.needs, Access), "needs is no Access")
    for norm in sorted(proof.norms):
        if plays_of(proof) == "trees":
            _check_on_trees(proof, norm)
            continue
        _check_on_linear(proof, norm, defense)
        if defense is None:
            _check_on_network(proof, RADII[norm])


@contextmanager
def _untouched(setting: Setting, who: str) -> Iterator[None]:
    """Inside, nothing but the view may be used."""
    before, kept = setting.state(), setting.target.fingerprint()
    generators = torch.random.get_rng_state(), random.getstate(), repr(np.random.get_state())
    yield
    after = setting.state()
    same = len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after))
    same = same and setting.target.fingerprint() == kept
    _require(same, f"{who} changed the model, its gradients, its mode or the caller's tensors")
    _require(torch.equal(generators[0], torch.random.get_rng_state()), f"{who} used torch's global random numbers")
    _require(generators[1:] == (random.getstate(), repr(np.random.get_state())), f"{who} used global random numbers")


def _run(attack: Perturber, setting: Setting, budget: Ball, rows: Tensor, seed: int, queries: int | None) -> Tensor:
    """The attack on these points, with exactly the access that it declares."""
    threat = budget.threat(access=needs_of(attack), queries=queries)
    examples = Examples(setting.x, setting.y)
    view = threat.grant(setting.target, len(rows), labels=setting.y[rows], examples=examples,
                        channel=setting.channel(rows))
    x, y = setting.x[rows], setting.y[rows]
    try:
        z = attack.perturb(view, x, y, budget, Stream.seeded(seed, rows))
    except Denied as error:
        raise AssertionError(f"{name_of(attack)} in {budget} was denied what it asked for: {error.what}") from error
    same = torch.equal(x, setting.x[rows]) and torch.equal(y, setting.y[rows])
    _require(same, f"{name_of(attack)} in {budget} wrote into the caller's tensors")
    if queries is not None and len(rows):
        most = int(view.meter.queries.max())
        _require(most <= queries, f"{name_of(attack)} spent {most} of {queries} queries on a point")
    return z


def _check_attack_in(attack: Perturber, setting: Setting, norm: float) -> None:
    budget, everyone = setting.budgets[norm], torch.arange(POINTS)
    who = f"{name_of(attack)} in {budget}"
    queries = QUERIES if needs_of(attack) <= Access.SCORES else None
    x, y, bounds = setting.x, setting.y, setting.bounds
    with _untouched(setting, who):
        z = _run(attack, setting, budget, everyone, 0, queries)
        again = _run(attack, setting, budget, everyone, 0, queries)
        alone = torch.cat([_run(attack, setting, budget, row, 0, queries) for row in _rows(everyone[::SPACING])])
        few = _run(attack, setting, budget, everyone, 0, 5) if queries else x
    _require(z.shape == x.shape and z.dtype == x.dtype, f"{who} returned {z.dtype} {tuple(z.shape)}")
    _require(bool(budget.contains(z, x, bounds).all()), f"{who} left the budget or the box")
    _require(bool(budget.contains(few, x, bounds).all()), f"{who} left the budget when it had 5 queries")
    broken = setting.labels(z) != y
    _require(bool(broken.any()), f"{who} broke none of {POINTS} points of a model that is easy to break")
    _require(torch.equal(z[~broken], x[~broken]), f"{who} did not return the original of a point that it did not break")
    saturated = (x[broken] == bounds.lower) | (x[broken] == bounds.upper)
    stuck = setting.lens is None and not bool((saturated & (z[broken] != x[broken])).any())
    _require(not stuck, f"{who} never moves a pixel that is at the box's edge")
    _require(torch.equal(z, again), f"{who} gave other bytes under the same seed")
    apart = float((z[::SPACING] - alone).abs().max())
    _require(apart <= _ALONE, f"{who}: points influence each other; alone one comes out {apart:.2g} elsewhere")
    empty = _run(attack, setting, budget, everyone[:0], 0, queries)
    _require(empty.shape == (0, *x.shape[1:]), f"{who} does not take an empty batch")


def _check_scores(target: Target, x: Tensor, labels: Tensor) -> None:
    before = torch.random.get_rng_state()
    scores = target.scores(x)
    shape = tuple(scores.shape)
    _require(len(shape) == 2 and shape[0] == len(x) and shape[1] >= 2, f"scores have shape {shape} for {len(x)} rows")
    _require(bool(torch.isfinite(scores).all()), "scores are not finite")
    if refuses(target):
        _require(shape[1] == target.classes + 1, f"{target.classes} classes and a refusal are {shape[1]} scores")
    if target.randomized:
        return
    _require(torch.equal(before, torch.random.get_rng_state()), "a target that is not randomized drew random numbers")
    _require(torch.equal(scores.argmax(1), labels), "labels are not those of the highest scores")
    alone = torch.cat([target.scores(row) for row in _rows(x)])
    _require(_close(alone, scores), "scores of rows alone differ from those of the same rows together")


def _check_gradients(target: WhiteBox, x: Tensor, labels: Tensor) -> None:
    classes = target.scores(x[:1]).shape[1]
    other = (labels + 1) % classes
    graded = target.graded(x, pair_margin, labels, other)
    _require(graded.gradient.shape == x.shape, f"gradients have shape {tuple(graded.gradient.shape)}")
    _require(graded.loss.shape == (len(x),), f"losses have shape {tuple(graded.loss.shape)}, not one a row")
    scores, rows = target.jacobian(x, torch.stack([labels, other], 1))
    _require(rows.shape == (len(x), 2, *x.shape[1:]), f"the Jacobian has shape {tuple(rows.shape)}")
    _require(scores.shape == graded.scores.shape, "the Jacobian's scores have another shape")
    _require(not graded.gradient.requires_grad and not scores.requires_grad, "answers are tied to an autograd graph")
    forwards, backwards = target.passes(2)
    _require(forwards >= 1 and backwards >= 2, "two gradients cost less than one forward and two backwards")
    if target.randomized:
        return
    _require(_close(graded.scores, target.scores(x)), "scores beside a gradient are not the scores")
    _require(_close(graded.gradient, rows[:, 1] - rows[:, 0]), "the gradient of a difference is not that of gradients")
    alone = torch.cat([target.graded(x[i : i + 1], pair_margin, labels[i : i + 1], other[i : i + 1]).gradient
                       for i in range(len(x))])
    _require(_close(alone, graded.gradient), "gradients of rows alone differ from those of the same rows together")
    if target.offers >= Access.WEIGHTS:
        with torch.no_grad():
            own = target.scores(x)[:, : -1 if refuses(target) else None]  # no network computes a refusal
            _require(_close(target.module()(x), own), "the module gives other scores than the target")


def _check_fit(defense: object, target: WhiteBox, x: Tensor) -> None:
    module, y = target.module(), target.labels(x)
    fit = defense.fit  # type: ignore[attr-defined]  # the caller looked
    hardened, again = (fit(module, x, y, seed=0) for _ in range(2))
    _require(isinstance(hardened, nn.Module) and hardened is not module, "fit returned no module of its own")
    _require(not any(m.training for m in hardened.modules()), "fit returned a module in training mode")
    same = all(torch.equal(a, b) for a, b in zip(hardened.state_dict().values(), again.state_dict().values()))
    _require(same, "fit gave other weights under the same seed")
    own = {p.data_ptr() for p in module.parameters()}
    _require(not own & {p.data_ptr() for p in hardened.parameters()}, "fit returned weights shared with the model")


def _certify(proof: Certifier, target: Target, x: Tensor, y: Tensor, budget: Ball, points: Tensor) -> Tensor:
    """The proof's radii for these points, on the view that the game would give it, wherever ``y`` comes from."""
    threat = replace(budget.threat(), access=proof.needs)
    view: View = threat.grant(target, len(points), proving=True)
    try:
        radii = proof.certify(view, x[points], y[points], budget, Stream.seeded(0, points))
    except Denied as error:
        raise AssertionError(f"{name_of(proof)} was denied what it asked for: {error.what}") from error
    who = f"{name_of(proof)} in {budget}"
    _require(radii.shape == (len(points),), f"{who} returned radii of shape {tuple(radii.shape)}")
    known = (radii >= 0) | (radii == -torch.inf)
    _require(bool(known.all()), f"{who} returned radii that are neither at least 0 nor -inf")
    return radii.double()


def _check_on_linear(proof: Certifier, norm: float, defense: Protector | None) -> None:
    """Two classes, a box out of reach but for L0: the distance to the plane is the truth, smoothed or not."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    layer = nn.Linear(6, 2, bias=False, device="meta", dtype=torch.float64)
    layer.weight = nn.Parameter(weight)
    box = 2.0 if norm == 0 else 50.0
    x = 0.5 * torch.randn(POINTS, 6, generator=generator, dtype=torch.float64).clamp(-4, 4)
    bare: Target = torch_target(nn.Sequential(layer), bounds=(-box, box), name="plane")
    y, target, everyone = bare.labels(x), bare if defense is None else defense.protect(bare), torch.arange(POINTS)
    truth = _distances(x, weight[0] - weight[1], norm, box)
    budget: Ball = RADII[norm].at(1.0 if norm == 0 else float(truth.median()) / 2)
    radii = _certify(proof, target, x, y, budget, everyone)
    who = f"{name_of(proof)} in {budget}"
    certified = radii >= budget.radius
    # A surveyor answers at every radius; others say yes or no to the one they were asked about.
    wrong = certified & (torch.where(radii > budget.radius, radii, budget.radius) > truth * (1 + 1e-9))
    _require(not bool(wrong.any()), f"{who} certified {int(wrong.sum())} linear points beyond their true distance")
    _require(bool(certified.any()) or norm == 0, f"{who} certified none of {POINTS} points of a linear model")
    fooled = _certify(proof, target, x, 1 - y, budget, everyone) >= budget.radius
    _require(not bool(fooled[certified].any()), f"{who} certified a label that is not the prediction")
    again = _certify(proof, target, x, y, budget, everyone)
    _require(torch.equal(radii, again), f"{who} gave other radii under the same seed")


def _distances(x: Tensor, normal: Tensor, norm: float, box: float) -> Tensor:
    """How far each point is from the plane through the origin; in L0, how many coordinates cannot carry it there."""
    gap = x @ normal
    if norm == 0:
        room = (x * normal * gap.sign()[:, None]) + box * normal.abs()  # what one coordinate can take off the gap
        return (room.sort(1, descending=True).values.cumsum(1) < gap.abs()[:, None]).sum(1).double()
    dual = {float("inf"): 1.0, 2.0: 2.0, 1.0: float("inf")}[norm]
    length: Tensor = torch.linalg.vector_norm(normal, ord=dual)
    return gap.abs() / length


def _check_on_network(proof: Certifier, budget: Ball) -> None:
    """Certified points are attacked; what holds holds at half the radius; points do not influence each other."""
    setting, everyone = convolutional(), torch.arange(POINTS)
    x, y, who = setting.x, setting.y, f"{name_of(proof)} in {budget}"
    half, small = (budget.at(budget.radius * share) for share in (1 / 4, 1 / 8))
    with _untouched(setting, who):
        certified = _certify(proof, setting.target, x, y, half, everyone) >= half.radius
        smaller = _certify(proof, setting.target, x, y, small, everyone) >= small.radius
        alone = torch.cat([_certify(proof, setting.target, x, y, half, row) for row in _rows(everyone[::SPACING])])
        wrong = _certify(proof, setting.target, x, (y + 1) % 3, half, everyone) >= half.radius
    _require(not bool(wrong.any()), f"{who} certified a label that is not the prediction")
    _require(bool(smaller[certified].all()), f"{who} certified a point, but not at half the radius")
    _require(torch.equal(alone >= half.radius, certified[::SPACING]), f"{who}: points influence each other")
    z = _run(PGD(steps=40, restarts=2, loss="margin"), setting, half, everyone, 0, None)
    refuted = certified & (setting.target.labels(z) != y)
    _require(not bool(refuted.any()), f"{who} certified point {int(refuted.int().argmax())}, which PGD broke")


def _check_on_trees(proof: Certifier, norm: float) -> None:
    """No certificate exceeds the distance of an input that errs; points do not influence each other."""
    setting, everyone = Setting.of("trees"), torch.arange(POINTS)
    x, y, budget = setting.x, setting.y, setting.budgets[norm]
    who, classes = f"{name_of(proof)} in {budget}", setting.target.scores(x[:1]).shape[1]
    with _untouched(setting, who):
        radii = _certify(proof, setting.target, x, y, budget, everyone)
        alone = torch.cat([_certify(proof, setting.target, x, y, budget, row) for row in _rows(everyone[::SPACING])])
        wrong = _certify(proof, setting.target, x, (y + 1) % classes, budget, everyone) >= budget.radius
    z = _run(TreeExact(), setting, budget.at(float("inf")), everyone, 0, None)
    certified = radii >= budget.radius
    reach = torch.where(radii > budget.radius, radii, budget.radius)
    refuted = certified & (budget.distance(z, x) <= reach) & (setting.target.labels(z) != y)
    _require(not bool(refuted.any()), f"{who} certified point {int(refuted.int().argmax())}, which TreeExact broke")
    _require(bool(certified.any()), f"{who} certified none of {POINTS} points of a small forest")
    _require(not bool(wrong.any()), f"{who} certified a label that is not the prediction")
    _require(torch.equal(alone, radii[::SPACING]), f"{who}: points influence each other")


def _rows(values: Tensor) -> list[Tensor]:
    return [values[i : i + 1] for i in range(len(values))]


def _close(a: Tensor, b: Tensor) -> bool:
    tolerance = 1e-3 if a.dtype != torch.float64 else 1e-8
    length = distance((a - b).flatten(1), float("inf"))
    return bool((rowwise(length, length) <= tolerance * (1 + b.abs().flatten(1).amax(1))).all())


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)
