"""The order of a trial: who has a turn, after whom, and how it sees the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.evasion.adaptive import Composition
from assay.evasion.methods import Cascade, Certifier, Method, Perturber, name_of, needs_of
from assay.evasion.sights import Sight
from assay.evasion.threat import Ball
from assay.targets.access import Access


@dataclass(frozen=True)
class Turn:
    """One stage of one method: who is charged for it, what it is, and how it sees the target.

    Attributes:
        sight: ``None``: the target as it stands.
        adaptive: whether the attack was tailored to the defense.
        after_gradients: whether a white-box attack has had its turn before.
    """

    owner: int
    method: Perturber | Certifier
    label: str
    sight: Sight | None = None
    adaptive: bool = False
    after_gradients: bool = False

    @property
    def proves(self) -> bool:
        """Whether this turn certifies; otherwise it attacks."""
        return isinstance(self.method, Certifier)

    @property
    def surprises(self) -> bool:
        """Whether a success of this turn says that the gradients misled (doubt DBT104)."""
        return self.after_gradients and not self.proves and needs_of(self.method) < Access.GRADIENTS


def schedule(methods: Sequence[Method], budget: Ball, access: Access, composed: Composition) -> list[Turn]:
    """The cheapest stage of the first attack, then the proofs, then the rest of the attacks, then what is tailored.

    All attacks are played as they are before any is adapted: what they leave standing is the non-adaptive figure.
    """
    attacks: list[Turn] = []
    proofs: list[Turn] = []
    tailored: list[Turn] = []
    for owner, method in enumerate(methods):
        if isinstance(method, Certifier):
            proofs.append(Turn(owner, method, name_of(method)))
            continue
        stages = method.stages(budget, access) if isinstance(method, Cascade) else (method,)
        for stage in stages:
            white = any(needs_of(turn.method) >= Access.GRADIENTS for turn in attacks)
            label = name_of(method) if stage is method else f"{name_of(method)}: {name_of(stage)}"
            attacks.append(Turn(owner, stage, label, composed.plain(stage).sight, after_gradients=white))
        adapted = [found for stage in stages for found in composed.adapted(stage)]
        tailored += [Turn(owner, found.attack, found.label, found.sight, adaptive=True)
                     for found in (*adapted, *composed.further(stages))]
    return [*attacks[:1], *proofs, *attacks[1:], *tailored]
