"""Which examples was a model trained on? Asked of models that were trained on random halves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data import Dataset
from assay.errors import ConfigError, LedgerError
from assay.evidence.bound import CONFIDENCE, Bound
from assay.evidence.record import Artefact, Cost, Evidence, content_hash, not_run
from assay.games import Forgetful, Memory, Progress, Replay, Settings, Subject, Words, name_of
from assay.numerics.ensembles import Recipe, mirror
from assay.privacy.asking import signals
from assay.privacy.attacks.truth_serum import Poisoner
from assay.privacy.auditing.one_run import OneRun
from assay.privacy.canaries import Planter
from assay.privacy.methods import Inferrer, Sight, shadows_of
from assay.privacy.private import mechanism_of
from assay.privacy.rates import Scores
from assay.privacy.shadows import train_shadows
from assay.privacy.signals import Signals, Values, balanced_keep
from assay.privacy.threat import MEMBERSHIP, People, scores
from assay.privacy.trial import evidence, trial_of
from assay.targets.access import Access
from assay.targets.base import Target
from assay.targets.procedure import Training
from assay.threats import ThreatModel, View

RATES = (0.001, 0.01, 0.1)
"""The false positive rates at which members found are reported, where there are enough others."""

DEFENSE = "defense"
"""What an adversary knows who trains shadow models by the defended procedure itself."""

TOGETHER = 16
"""How many shadow models of a recipe are trained, and kept, at a time."""

AGREE = 1e-3
"""How far a retrained target's signals may lie from the stored ones, relative to their size."""


class World(NamedTuple):
    """Who was trained on, and who is asked about.

    Attributes:
        pool: the examples, canaries in their places.
        asked: the examples that are asked about, int64 ``[asked]``.
        members: bool ``[targets, pool]``: what each target is trained on; independent fair coins for those asked.
        keep: bool ``[shadows, pool]``: the same of the adversary's own models.
    """

    pool: Dataset
    asked: NDArray[np.int64]
    members: NDArray[np.bool_]
    keep: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MembershipGame:
    """Models are trained on random halves of a pool; the adversary says of each example how likely it was in.

    A coin for each example decides whether a target sees it. The adversary gets the target's answers, and may train
    models of its own on halves that it chooses: by the same procedure, or, where the threat says that it does not know
    the defense, by the procedure below it. The game keeps the coins, and judges.

    Attributes:
        data: the pool; ``None`` for the procedure's own.
        canaries: what is planted in the pool and asked about, everything else being always in; ``None`` to ask about
            all examples.
        poison: what the adversary adds to the training data, the same for every model, so that those asked about show
            more; ``None`` for nothing.
        threat: what the adversary sees of a target.
        targets: how many models are attacked, their answers pooled.
        delta: at which an ε is shown and proved.
        confidence: one-sided, of what is implied beyond these examples.
    """

    subject: ClassVar[Subject] = "procedure"

    data: Dataset | None = None
    canaries: Planter | None = None
    poison: Poisoner | None = None
    threat: ThreatModel = field(default_factory=scores)
    targets: int = 1
    delta: float = 1e-5
    confidence: float = CONFIDENCE
    name: str = "privacy.membership"

    def __post_init__(self) -> None:
        if self.threat.goal != MEMBERSHIP:
            raise ConfigError("THR106", f"the membership game knows no goal {self.threat.goal!r}")
        if self.canaries is not None or self.poison is not None:
            people = People.of(self.canaries)
            words = f"{people}, poisoned by {name_of(self.poison)}" if self.poison else people.text
            object.__setattr__(self, "threat", replace(self.threat, budget=People(self.canaries, words)))

    @classmethod
    def planned(cls, data: Dataset, words: Words, settings: Settings) -> MembershipGame:
        """The game that a plan describes. Raises ``ConfigError`` (PRV112) for a budget that cannot be read."""
        people = People.parse(words.budget)
        threat = replace(scores(knows=words.knows, queries=words.queries), access=Access.parse(words.access))
        return cls(data, people.canaries, threat=threat, confidence=settings.confidence)

    @staticmethod
    def budget_named(text: str) -> str:
        """The budget of these words, as evidence prints it. Raises ``ConfigError`` (PRV112)."""
        return str(People.parse(text))

    def play(self, attack: Inferrer, training: Training, *, seed: int, memory: Memory | None = None) -> Evidence:
        """The demonstrated side: so many members found, *at least*."""
        return self._only(self.rounds([attack], [], training, seed=seed, memory=memory))

    def prove(self, proof: Any, training: Training, *, seed: int, memory: Memory | None = None) -> Evidence:
        """The proved side: no more than this can leak, *at most*."""
        return self._only(self.rounds([], [proof], training, seed=seed, memory=memory))

    def rounds(
        self, attacks: Sequence[Inferrer], proofs: Sequence[Any], training: Training, *, seed: int,
        memory: Memory | None = None,
    ) -> Iterator[Progress | Evidence]:
        """All attacks on the same targets, with the same shadow models; then the proofs."""
        if attacks:
            yield from self._played(attacks, training, seed, memory or Forgetful())
        for proof in proofs:
            yield self._proved(proof, training, seed)

    def replay(self, found: Evidence, training: Training) -> Replay:
        """Trains the target again and asks it again: of how many examples it says what the evidence holds."""
        if "scores" not in found.artefacts or "answers" not in found.artefacts["scores"].arrays:
            return Replay(0, 0, "no answers were kept")
        stored = found.artefacts["scores"].arrays["answers"].astype(np.float64)
        world = self._world(training, found.seed, 0)
        if world.pool.fingerprint != found.provenance.get("pool"):
            return Replay(0, int(stored.shape[1]), "the data are not those of the evidence")
        target = training.train(_part(world, world.members[0]), _seed(found.seed, "target", 0))
        fresh = signals(lambda x, at: target.scores(x), *_tensors(world, target), stored.shape[2])
        near = np.abs(fresh - stored[0]) <= AGREE * (1 + np.abs(stored[0]))
        return Replay(int(near.all(-1).sum()), len(near))

    def _only(self, events: Iterator[Progress | Evidence]) -> Evidence:
        return next(event for event in events if isinstance(event, Evidence))

    def _played(
        self, attacks: Sequence[Inferrer], training: Training, seed: int, memory: Memory
    ) -> Iterator[Progress | Evidence]:
        count = max(shadows_of(attack) for attack in attacks)
        looks = max(_looks(attack) for attack in attacks)
        started = time.perf_counter()
        try:
            world = self._world(training, seed, count)
            targets: list[Target] = []
            for at, members in enumerate(world.members):
                yield Progress("target", at, self.targets)
                targets.append(training.train(_part(world, members), _seed(seed, "target", at)))
            views = tuple(self.threat.grant(target, len(world.asked)) for target in targets)
            answers = self._answers(world, targets, views, looks)
            shadows: list[Values] = []
            while len(shadows) < count:
                yield Progress("shadow models", len(shadows), count)
                shadows.extend(self._shadows(world, training, seed, len(shadows), looks, memory))
        except LedgerError:
            raise
        except Exception as error:  # the user's own procedure runs here: whatever it raises is a reason, not a crash
            yield from (self._not_run(attack, training, seed, error) for attack in attacks)
            return
        spent = time.perf_counter() - started
        for attack in attacks:
            try:
                sight = _sight(world, attack, views, answers, shadows, targets)
                yield self._judged(attack, training, world, sight, seed, spent)
            except Exception as error:
                yield self._not_run(attack, training, seed, error)

    def _world(self, training: Training, seed: int, count: int) -> World:
        pool = self.data if self.data is not None else training.data
        asked = np.arange(len(pool))
        if self.canaries is not None:
            pool, asked = _planted(pool, self.canaries, _seed(seed, "canaries", 0))
        if self.poison is not None:
            pool = _poisoned(pool, self.poison, asked, _seed(seed, "poison", 0))
        rng = np.random.default_rng(_seed(seed, "members", 0))
        members = np.ones((self.targets, len(pool)), dtype=bool)
        members[:, asked] = rng.random((self.targets, len(asked))) < 0.5
        keep = np.ones((count, len(pool)), dtype=bool)
        keep[:, asked] = balanced_keep(count, len(asked), _seed(seed, "keep", 0))
        return World(pool, asked, members, keep)

    def _answers(
        self, world: World, targets: Sequence[Target], views: Sequence[View], looks: int
    ) -> Values | None:
        if self.threat.access < Access.SCORES:
            return None
        return np.stack([signals(view.scores, *_tensors(world, target), looks)
                         for view, target in zip(views, targets)])

    def _shadows(
        self, world: World, training: Training, seed: int, start: int, looks: int, memory: Memory
    ) -> Values:
        """The next models' signals about those asked, ``[models, asked, looks]``; kept as soon as they are earned."""
        known = training if DEFENSE in self.threat.knows else training.bare or training
        together = isinstance(known.fit, Recipe) and known.normalize is None
        stop = min(start + TOGETHER, len(world.keep)) if together else start + 1
        trial = content_hash(self.name, known.fingerprint(), world.pool.fingerprint, str(self.threat.budget), seed)
        part = f"shadows {start} to {stop}, {looks}"
        kept = memory.recall(trial, part)
        if kept is not None:
            return np.asarray(kept["values"], dtype=np.float64)
        seeds = [_seed(seed, "shadow", at) for at in range(start, stop)]
        train = _stacked if together else _single
        found = train(world, known, world.keep[start:stop], seeds, looks)
        memory.keep(trial, part, {"values": found})
        return found

    def _judged(
        self, attack: Inferrer, training: Training, world: World, sight: Sight, seed: int, spent: float
    ) -> Evidence:
        values = attack.infer(sight, np.random.default_rng(_seed(seed, name_of(attack), 0)))
        members = world.members[:, world.asked]
        found = Scores(values, members)
        cost = Cost(queries=sum(int(view.meter.queries.sum()) for view in sight.views),
                    forwards=sum(int(view.meter.forwards.sum()) for view in sight.views), seconds=spent)
        kept: dict[str, NDArray[np.generic]] = {"values": values, "members": members}
        if sight.answers is not None:
            kept["answers"] = sight.answers
        return evidence(
            game=self.name, method=attack, target=training, threat=self.threat.describe(), seed=seed,
            bounds=self._bounds(found, values[0], members[0], name_of(attack)), cost=cost,
            settings=(self.targets, self.delta, self.confidence),
            artefacts={"scores": Artefact(kept)}, provenance={"pool": world.pool.fingerprint},
        )

    def _bounds(self, found: Scores, values: Values, members: NDArray[np.bool_], by: str) -> list[Bound]:
        """Rates and area of all targets, and the ε that the first one's coins show."""
        others = int((~found.members).sum())
        bounds = [found.bound(fpr=fpr, method=by, confidence=self.confidence) for fpr in RATES if others * fpr >= 1]
        epsilon = OneRun().bound(values, members, delta=self.delta, confidence=self.confidence)
        return [*bounds, found.area(method=by, confidence=self.confidence), replace(epsilon, method=by)]

    def _proved(self, proof: Any, training: Training, seed: int) -> Evidence:
        try:
            world = self._world(training, seed, 0)
            n = int(world.members.sum(1).min())
            return evidence(game=self.name, method=proof, target=training, threat=self.threat.describe(), seed=seed,
                            bounds=[proof.certify(mechanism_of(training, n), delta=self.delta, n=n)], kind="proved",
                            settings=(self.targets, self.delta), provenance={"pool": world.pool.fingerprint})
        except Exception as error:
            return self._not_run(proof, training, seed, error)

    def _not_run(self, method: object, training: Training, seed: int, error: Exception) -> Evidence:
        threat = self.threat.describe()
        return not_run(game=self.name, target=training.name, threat=threat, attack=name_of(method), seed=seed,
                       error=error, trial=trial_of(game=self.name, method=method, target=training, threat=threat,
                                                   seed=seed))


def _stacked(
    world: World, training: Training, keep: NDArray[np.bool_], seeds: Sequence[int], looks: int
) -> Values:
    """The signals of models of a recipe, trained side by side where that is faster."""
    assert isinstance(training.fit, Recipe)
    models = train_shadows(training.fit, world.pool, len(keep), keep=keep, seeds=seeds)
    found = models.signals(world.pool.x[world.asked], world.pool.y[world.asked], keep=keep[:, world.asked],
                           augment=mirror if looks == 2 else None)
    return found.values.astype(np.float64)


def _single(
    world: World, training: Training, keep: NDArray[np.bool_], seeds: Sequence[int], looks: int
) -> Values:
    """The signals of one model of any procedure; zeros where it answers with labels alone."""
    model = training.train(_part(world, keep[0]), seeds[0])
    if model.offers < Access.SCORES:
        return np.zeros((1, len(world.asked), looks))
    return signals(lambda x, at: model.scores(x), *_tensors(world, model), looks)[None]


def _looks(attack: object) -> int:
    return 2 if getattr(attack, "augment", "none") == "mirror" else 1


def _sight(
    world: World, attack: Inferrer, views: tuple[View, ...], answers: Values | None, shadows: Sequence[Values],
    targets: Sequence[Target],
) -> Sight:
    """What this attack gets: as many models and looks as it wants."""
    count, looks = shadows_of(attack), _looks(attack)
    models = None
    if count:
        models = Signals(np.stack(shadows[:count])[..., :looks], world.keep[:count][:, world.asked])
    x, y = _tensors(world, targets[0])
    return Sight(y.cpu().numpy(), models, None if answers is None else answers[..., :looks], x.cpu().numpy(), views)


def _part(world: World, keep: NDArray[np.bool_]) -> Dataset:
    return replace(world.pool, x=world.pool.x[keep], y=world.pool.y[keep])


def _tensors(world: World, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.as_tensor(world.pool.x[world.asked]).to(target.device, target.dtype)
    return x, torch.as_tensor(world.pool.y[world.asked]).to(target.device)


def _planted(pool: Dataset, canaries: Planter, seed: int) -> tuple[Dataset, NDArray[np.int64]]:
    """The pool with canaries in it: in the place of the example that each was made from, or at the end."""
    classes = len(pool.classes) if pool.classes else int(pool.y.max()) + 1
    made = canaries.plant(torch.as_tensor(pool.x), torch.as_tensor(pool.y), classes=classes, seed=seed)
    x, y, index = made.x.numpy(), made.y.numpy(), made.index.numpy().copy()
    new = index < 0
    index[new] = len(pool) + np.arange(new.sum())
    grown = replace(pool, x=np.concatenate([pool.x, x[new]]), y=np.concatenate([pool.y, y[new]]))
    grown.x[index], grown.y[index] = x, y
    return grown, index


def _poisoned(pool: Dataset, poison: Poisoner, asked: NDArray[np.int64], seed: int) -> Dataset:
    """The pool with the adversary's examples at its end."""
    classes = len(pool.classes) if pool.classes else int(pool.y.max()) + 1
    added = poison.poison(pool.x, pool.y, asked, classes=classes, rng=np.random.default_rng(seed))
    return replace(pool, x=np.concatenate([pool.x, added.x]), y=np.concatenate([pool.y, added.y]))


def _seed(seed: int, purpose: str, at: int) -> int:
    """An independent seed for each purpose, below 2³¹ so that any library takes it."""
    words = [seed, at, *purpose.encode()]
    return int(np.random.SeedSequence([word % 2**32 for word in words]).generate_state(1)[0] >> 1)


