"""What must hold, and how the evidence judges it: broken, standing, proven, or undecided."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from assay.errors import ConfigError
from assay.evidence.bound import Bound, canonical, outward
from assay.evidence.record import Evidence

Verdict = Literal["broken", "standing", "proven", "undecided"]
Operator = Literal[">=", "<="]
Scope = Literal["distribution", "points"]

_GRAMMAR = re.compile(
    r"^\s*(?P<quantity>[^<>]*[^<>=\s])\s*(?P<op>>=|<=)\s*(?P<level>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<percent>%?)\s*$"
)

VOIDING = frozenset({"DBT101", "DBT102", "DBT103", "DBT104", "DBT105", "DBT106", "DBT107", "DBT108", "DBT110",
                     "PRV330"})
"""Doubts under which a demonstrated side that broke nothing is no evidence that the claim stands."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """A claim's verdict and the sentence that gives its reason.

    Attributes:
        budget, about: the claim's, as :class:`Claim` has them.
    """

    id: str
    claim: str
    verdict: Verdict
    because: str
    budget: str = ""
    about: Scope = "distribution"

    def to_json(self) -> dict[str, object]:
        """Plain data in the shape that ``assay schema`` publishes."""
        return {"id": self.id, "claim": self.claim, "verdict": self.verdict, "because": self.because}


@dataclass(frozen=True)
class Claim:
    """What must hold of a quantity.

    Attributes:
        quantity: a bound's quantity, such as ``"robust accuracy"``.
        op: ``">="`` or ``"<="``.
        level: what it is compared to.
        about: the distribution that the points were drawn from (a bound's ``value``), or these very points (its
            ``estimate``).
        budget: where several budgets were tried, the one that is meant; empty for all.
    """

    quantity: str
    op: Operator
    level: float
    id: str = ""
    about: Scope = "distribution"
    budget: str = ""

    @classmethod
    def parse(cls, text: str, *, id: str = "", about: Scope = "distribution", budget: str = "") -> Claim:
        """A claim from its sentence, such as ``"robust accuracy >= 0.40"`` or ``"robust accuracy >= 40 %"``."""
        match = _GRAMMAR.match(text)
        if match is None:
            raise ConfigError("CFG120", f"cannot read the claim {text!r}", where=f"claim {id}".strip())
        level = float(match["level"]) / (100 if match["percent"] else 1)
        op: Operator = ">=" if match["op"] == ">=" else "<="
        return cls(canonical(match["quantity"].lower()), op, level, id=id, about=about, budget=budget)

    def __str__(self) -> str:
        return f"{self.quantity} {self.op} {self.level:g}"

    def judge(self, found: Sequence[Evidence]) -> Judgment:
        """The verdict on this claim.

        Broken: a bound on the far side excludes the level. Proven: a bound on the near side implies it. Standing:
        it was attacked, soundly, and holds. Undecided: nothing bears on it, what bears on it is in doubt, or the
        points are too few to tell.
        """
        near = [e for e in found if not self.budget or e.threat.budget == self.budget]
        bearing = [(e, b) for e in near for b in e.bounds if b.quantity == self.quantity]
        contradiction = next((d for e in near for d in e.doubts if d.code == "DBT120"), None)
        if contradiction:
            return self._say("undecided", f"the evidence contradicts itself: {contradiction.text}")
        breaks = [(e, b) for e, b in bearing if b.side != self._proving_side and self._fails(self._read(b))]
        if breaks:
            e, b = min(breaks, key=lambda pair: abs(self._read(pair[1]) - self.level) * -1)
            return self._say("broken", f"{e.attack} shows {self._sentence(b)}")
        proves = [(e, b) for e, b in bearing if b.side == self._proving_side and not self._fails(self._read(b))]
        if proves:
            e, b = proves[0]
            return self._say("proven", f"{e.attack} proves {self._sentence(b)}")
        return self._unproven(near, [(e, b) for e, b in bearing if b.side != self._proving_side])

    def _unproven(self, near: Sequence[Evidence], attacked: list[tuple[Evidence, Bound]]) -> Judgment:
        missing = [e for e in near if e.kind == "not run"]
        if not attacked:
            why = f"{missing[0].attack} could not run" if missing else f"no attack bears on {self.quantity!r}"
            return self._say("undecided", why)
        small = [(e, b) for e, b in attacked if self._fails(b.estimate)]
        if small:
            e, b = small[0]
            small_set = f"DBT109 the test set is too small for the claim: {e.attack} shows {self._sentence(b)}"
            return self._say("undecided", small_set)
        sound = [(e, b) for e, b in attacked if not any(d.code in VOIDING for d in e.doubts)]
        if not sound:
            doubt = next(d for e, _ in attacked for d in e.doubts if d.code in VOIDING)
            return self._say("undecided", f"the evaluation is in doubt: {doubt}")
        if missing:
            return self._say("undecided", f"{missing[0].attack} could not run")
        e, b = min(sound, key=lambda pair: abs(self._read(pair[1]) - self.level))
        return self._say("standing", f"not broken: {e.attack} shows {self._sentence(b)}; not proven either")

    @property
    def _proving_side(self) -> str:
        return "at least" if self.op == ">=" else "at most"

    def _read(self, bound: Bound) -> float:
        return bound.value if self.about == "distribution" else bound.estimate

    def _fails(self, value: float) -> bool:
        return value < self.level if self.op == ">=" else value > self.level

    def _sentence(self, bound: Bound) -> str:
        return (
            f"{bound.quantity} {bound.side} {bound.estimate:.4g} on {bound.n} points"
            f" ({bound.side} {outward(bound.value, bound.side):.10g} beyond them at {bound.confidence:.0%} confidence)"
        )

    def _say(self, verdict: Verdict, because: str) -> Judgment:
        return Judgment(
            id=self.id or str(self), claim=str(self), verdict=verdict, because=because,
            budget=self.budget, about=self.about,
        )
