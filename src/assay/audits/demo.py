"""The demonstration: train on real digits, audit, harden, audit again, judge two claims."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

from assay import demo, evasion
from assay.audits.run import Outcome
from assay.evidence.claim import Claim
from assay.evidence.contradiction import with_contradictions
from assay.evidence.record import Evidence
from assay.games import Progress
from assay.targets.base import Target
from assay.targets.pytorch import TorchTarget, torch_target

POINTS = 200
RADIUS = 0.1
CLAIMS = (
    Claim("robust accuracy", ">=", 0.70, id="before"),
    Claim("robust accuracy", ">=", 0.70, id="after"),
)


def perform_demo(*, seed: int = 0) -> Iterator[Progress | Evidence | Outcome]:
    """Plays the demonstration, yielding progress and evidence, and the outcome last."""
    x, y = demo.digits(f"test[:{POINTS}]")
    game = evasion.EvasionGame(x, y, threat=evasion.Linf(RADIUS).threat())
    plain = yield from _trained(seed)
    before = yield from _audited(game, replace(plain, name="digits"), seed)
    hardened = yield from _hardened(plain, seed)
    after = yield from _audited(game, hardened, seed)
    found = with_contradictions([*before, *after])
    judgments = (CLAIMS[0].judge(found[: len(before)]), CLAIMS[1].judge(found[len(before) :]))
    yield Outcome(tuple(found), judgments, {"x": x.numpy(), "y": y.numpy()})


def _trained(seed: int) -> Generator[Progress, None, TorchTarget]:
    model = None
    for event in demo.train(seed):
        if isinstance(event, Progress):
            yield event
        else:
            model = event
    assert model is not None
    return torch_target(model, name="digits")


def _hardened(plain: TorchTarget, seed: int) -> Generator[Progress, None, TorchTarget]:
    x, y = demo.digits("train")
    training = evasion.AdversarialTraining(budget=evasion.Linf(1.5 * RADIUS))
    model = None
    for event in training.rounds(plain.model, x, y, seed=seed):
        if isinstance(event, Progress):
            yield event
        else:
            model = event
    assert model is not None
    return torch_target(model, name="digits, hardened")


def _audited(game: evasion.EvasionGame, target: Target, seed: int) -> Generator[Progress, None, list[Evidence]]:
    found = []
    attacks, proofs = (evasion.TargetedAPGD(steps=50), evasion.Square(queries=1000)), (evasion.CROWN(),)
    for event in game.rounds(attacks, proofs, target, seed=seed):
        if isinstance(event, Evidence):
            found.append(event)
        else:
            yield event
    return found
