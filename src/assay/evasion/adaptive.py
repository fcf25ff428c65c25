"""The attack that fits the defense: composed from the parts that a target declares, or from what probing finds.

Source: Athalye, Carlini & Wagner, ICML 2018 (BPDA, EOT); Carlini & Wagner, AISec 2017 (joint objectives against
detectors); Tramèr, Carlini, Brendel & Madry, NeurIPS 2020 (on adaptive attacks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from assay.evasion.attacks.feature_collision import FeatureCollision
from assay.evasion.methods import Perturber, name_of, needs_of
from assay.evasion.probes import Diagnosis
from assay.evasion.sights import Averaged, Borrowed, Sight, Softened, straightened
from assay.targets.access import Access
from assay.targets.base import Target, WhiteBox, refuses
from assay.targets.defended import Defended, Parts
from assay.threats import ThreatModel

DRAWS = 16
"""Looks at a randomized target that are averaged for one gradient."""

LEAD = math.log(3)
"""The handicap against a target whose answers vary: the share of votes that an attack aims for is three to one."""

DEFENSE = "defense"
"""What the adversary's ``knows`` has to contain for an adaptive attack."""


@dataclass(frozen=True)
class Stage:
    """One attack through one sight of the target.

    Attributes:
        attack: what is played.
        sight: how it sees the target; ``None``: as the target stands.
        label: how progress and evidence name it; empty: by the attack alone.
    """

    attack: Perturber
    sight: Sight | None = None
    label: str = ""


@dataclass(frozen=True)
class Composition:
    """How gradient attacks are played against one target.

    Attributes:
        naive: the sight of an attack that does not know the defense; ``None`` where that is the target itself.
        adaptive: the sights of one that does, from cheap to dear.
        parts: what there is to adapt to.
        access: what the adversary is granted.
    """

    naive: Sight | None
    adaptive: tuple[Sight, ...]
    parts: Parts
    access: Access = Access.GRADIENTS

    def plain(self, attack: Perturber) -> Stage:
        """The attack as it is, on the target as it stands."""
        return Stage(attack, self.naive if needs_of(attack) >= Access.GRADIENTS else None)

    def adapted(self, attack: Perturber) -> Iterator[Stage]:
        """The same attack, tailored; nothing where it follows no gradient."""
        if needs_of(attack) != Access.GRADIENTS:
            return
        for sight in self.adaptive:
            yield Stage(self._objective(attack), sight, f"{name_of(attack)}, {sight.name}")

    def further(self, attacks: Sequence[Perturber]) -> Iterator[Stage]:
        """Attacks of choice against a part, which nobody asked for."""
        white = any(needs_of(attack) >= Access.GRADIENTS for attack in attacks)
        if not (self.parts.detector and self.adaptive and white and self.access >= FeatureCollision.needs):
            return
        sight = self.adaptive[0]
        yield Stage(FeatureCollision(), sight, f"{name_of(FeatureCollision())}, {sight.name}")

    def _objective(self, attack: Perturber) -> Perturber:
        """Losses on probabilities saturate, margins of scores do not; and only a margin is a joint objective."""
        if getattr(attack, "loss", "") != "ce" or not (self.parts.temperature or self.parts.detector):
            return attack
        return cast(Perturber, replace(cast(Any, attack), loss="margin"))


NOTHING = Composition(None, (), Parts())
"""Every attack as it is, on the target as it stands."""


def compose(target: Target, threat: ThreatModel, diagnosis: Diagnosis | None) -> Composition:
    """The sights that the target's declared parts call for, or, where it declares nothing, what was diagnosed."""
    if isinstance(target, Defended):
        naive = Sight("as it stands", target.naive())
        if DEFENSE not in threat.knows:
            return Composition(naive, (), target.parts)
        return Composition(naive, tuple(_declared(target)), target.parts, threat.access)
    if diagnosis is None or DEFENSE not in threat.knows:
        return NOTHING
    return Composition(None, tuple(_probed(cast(WhiteBox, target), diagnosis)), diagnosis.parts)


def _declared(target: Defended) -> Iterator[Sight]:
    adapted, parts = target.adapted(), target.parts
    words = [word for held, word in ((parts.surrogate, "BPDA"), (parts.detector, "joint objective"),
                                     (parts.temperature, "logits"), (parts.ensemble, "all members")) if held]
    lead = 0.0
    if parts.randomness:
        adapted, lead = Averaged(adapted, DRAWS), LEAD
        words.append(f"EOT of {DRAWS}")
    yield Sight(f"adaptive ({', '.join(words) or 'gradients'})", adapted, lead)
    if not refuses(adapted):
        yield Sight("adaptive (gradients of the bare model)", Borrowed(adapted, target.bare), lead)


def _probed(target: WhiteBox, found: Diagnosis) -> Iterator[Sight]:
    seen, words, lead = target, [], 0.0
    if found.dead_layers:
        seen = straightened(seen, found.dead_layers)
        words.append(f"straight through {', '.join(found.dead_layers[:3])}")
    if found.parts.randomness:
        seen, lead = Averaged(seen, DRAWS), LEAD
        words.append(f"EOT of {DRAWS}")
    if words:
        yield Sight(f"adaptive ({', '.join(words)})", seen, lead)
    if found.shattered:
        yield Sight("adaptive (smoothed gradients)", Softened(target, found.width, DRAWS), lead)
