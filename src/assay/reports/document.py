"""The one structure between evidence and every rendering of it: built once, drawn by all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as installed

import numpy as np

from assay.errors import Finding, findings
from assay.evidence.bound import ROBUST
from assay.evidence.claim import Judgment, Verdict
from assay.evidence.record import Doubt, Evidence, Threat
from assay.reports import words
from assay.reports.bracket import Bracket, Curve, End, Level, bracket, curve, end, measured
from assay.reports.cases import WorstCases
from assay.reports.coverage import Stage, cover
from assay.reports.roc import Roc, roc
from assay.reports.supply import SCAN, Weights, supply

CONTRADICTION = "DBT120"
REFUTED = "PRV331"
"""What is no doubt about the evaluation but its outcome: a claim of differential privacy was refuted."""
ORDER: tuple[Verdict, ...] = ("broken", "undecided", "standing", "proven")
"""Verdicts, the gravest first."""

_CLAIM = re.compile(r"^(.+) (>=|<=) ([0-9.]+(?:[eE][-+]?[0-9]+)?)$")


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What the caller knows and evidence does not.

    Attributes:
        title: what was audited, in the user's words.
        date: as it is to be printed; the report reads no clock.
        version: Assay's; empty for the installed one.
        plan: the audit TOML, relative to the repository: what SARIF points at.
        lines: of each claim's id, its line in the plan, from 1.
        replay: the command that re-judges evidence, completed by the evidence's id.
        wings: of a game whose name is not its wing's, the wing.
    """

    title: str = "Security audit"
    date: str = ""
    version: str = ""
    plan: str = "audit.toml"
    lines: Mapping[str, int] = field(default_factory=dict)
    replay: str = "assay replay"
    wings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """A judged claim; ``note`` says what its verdict is not."""

    id: str
    claim: str
    verdict: Verdict
    because: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Raised:
    """A doubt, once for all the methods that it concerns."""

    finding: Finding
    text: str
    by: tuple[str, ...]

    @property
    def code(self) -> str:
        """What ``assay explain`` takes."""
        return self.finding.code


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The worst cases of one evidence."""

    attack: str
    cases: WorstCases


@dataclass(frozen=True, kw_only=True)
class Band:
    """Everything known about one target under one threat on the same points.

    Attributes:
        data: the fingerprint of the points; empty where nothing ran.
        ran, missing: the evidence, and the trials that could not run.
        brackets: one a quantity that was bounded at the threat's own budget.
        curves: one a quantity that was bounded at several radii.
        facts: quantities that were simply measured, by name.
        roc: how membership attacks did at every threshold, where there were any.
        contradictions: sentences; more than none is the loudest finding there is.
    """

    game: str
    target: str
    threat: Threat
    data: str
    ran: tuple[Evidence, ...]
    missing: tuple[Evidence, ...]
    brackets: tuple[Bracket, ...]
    curves: tuple[Curve, ...]
    facts: Mapping[str, End]
    galleries: tuple[Gallery, ...]
    doubts: tuple[Raised, ...]
    contradictions: tuple[str, ...]
    roc: Roc | None = None

    @property
    def adversary(self) -> str:
        """The threat in a sentence."""
        return words.adversary(self.threat)

    @property
    def budget(self) -> str:
        """The budget for a heading."""
        return words.budget(self.threat.budget)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What ran and what did not."""
        return (*self.ran, *self.missing)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every renderer draws; all its text is free of control characters."""

    meta: Meta
    claims: tuple[ClaimRow, ...]
    bands: tuple[Band, ...]
    stages: tuple[Stage, ...]
    supply: tuple[Weights, ...] = ()

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Of all bands."""
        return tuple(e for band in self.bands for e in band.evidence)

    @property
    def missing(self) -> tuple[Evidence, ...]:
        """The trials that could not run."""
        return tuple(e for band in self.bands for e in band.missing)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """Of all bands."""
        return tuple(text for band in self.bands for text in band.contradictions)

    @property
    def tone(self) -> str:
        """The gravest of what there is: contradiction, broken, undecided, standing, proven, or none."""
        found = {claim.verdict for claim in self.claims}
        if self.contradictions:
            return "contradiction"
        if "broken" not in found and self.missing:
            return "undecided"
        return next((v for v in ORDER if v in found), "none")

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        if self.contradictions:
            return "The evidence contradicts itself: one side is wrong, and no number here can be trusted yet."
        if not self.claims:
            return "No claim was made: this is evidence without a verdict."
        worst = next(v for v in ORDER if self._ids(v))
        return self._said(worst) + "."

    @property
    def rest(self) -> str:
        """What the headline leaves out: the other verdicts, what could not run, and how much is doubted."""
        headed = self.headline.rstrip(".")
        said = [self._said(v) for v in ORDER if self._ids(v)]
        said = [s for s in said if s != headed]
        if self.missing:
            said.append(f"{words.count(len(self.missing), 'trial')} could not run")
        if seen := {doubt.code for band in self.bands for doubt in band.doubts if band.game == SCAN}:
            said.append(f"A scan of the weights found {words.listing(sorted(seen))}")
        if any(doubt.code == REFUTED for band in self.bands for doubt in band.doubts):
            said.append(f"An audit refutes the privacy that is claimed ({REFUTED})")
        doubts = {doubt.code for band in self.bands for doubt in band.doubts if band.game != SCAN} - {REFUTED}
        if doubts:
            said.append(f"Doubts about the evaluation: {words.listing(sorted(doubts))}")
        return " ".join(f"{s}." for s in said)

    def _ids(self, verdict: str) -> list[str]:
        return [claim.id for claim in self.claims if claim.verdict == verdict]

    def _said(self, verdict: str) -> str:
        word = {"standing": "standing, not broken and not proven"}.get(verdict, verdict)
        return words.verdicts(self._ids(verdict), len(self.claims), word)


def build(
    evidence: Sequence[Evidence],
    judgments: Sequence[Judgment],
    *,
    examples: Mapping[str, WorstCases] | None = None,
    meta: Meta | None = None,
) -> Report:
    """The report of an audit.

    Args:
        evidence: what was played, proved and could not run.
        judgments: of every claim, in the order in which to show them.
        examples: by evidence id, the inputs to show, worst first.
        meta: title, date, plan.
    """
    meta = meta or Meta()
    found = [harmless(e) for e in evidence]
    levels = _levels(judgments, found)
    bands = tuple(_band(key, members, levels, examples or {}) for key, members in _groups(found).items())
    doubtful = any(band.contradictions for band in bands)
    return Report(
        meta=replace(
            meta, version=meta.version or installed("assay"), title=words.clean(meta.title),
            date=words.clean(meta.date), plan=words.clean(meta.plan),
        ),
        claims=tuple(_claim(judgment, found, doubtful) for judgment in judgments),
        bands=bands,
        stages=cover(found, meta.wings),
        supply=supply(found),
    )


def harmless(evidence: Evidence) -> Evidence:
    """The evidence with every string free of control characters."""
    threat = evidence.threat
    return replace(
        evidence,
        game=words.clean(evidence.game), trial=words.clean(evidence.trial), target=words.clean(evidence.target),
        attack=words.clean(evidence.attack), error=words.clean(evidence.error),
        threat=replace(
            threat, goal=words.clean(threat.goal), access=words.clean(threat.access),
            budget=words.clean(threat.budget), knows=tuple(words.clean(k) for k in threat.knows),
        ),
        bounds=tuple(
            replace(b, quantity=words.clean(b.quantity), method=words.clean(b.method)) for b in evidence.bounds
        ),
        doubts=tuple(Doubt(words.clean(d.code), words.clean(d.text)) for d in evidence.doubts),
        provenance={words.clean(k): words.clean(str(v)) for k, v in evidence.provenance.items()},
    )


def finding_of(code: str) -> Finding:
    """A code's standing text; a code from a plug-in or a newer Assay has none, and is shown all the same."""
    known = findings().get(code)
    return known or Finding(code, "A finding that this version does not know", "", f"assay explain {code}")


_Key = tuple[str, str, Threat, str]


def _groups(found: Sequence[Evidence]) -> dict[_Key, list[Evidence]]:
    """Evidence by game, target, threat and data; a trial that could not run joins those it should have met."""
    groups: dict[_Key, list[Evidence]] = {}
    for e in sorted(found, key=lambda e: e.kind == "not run"):
        key = (e.game, e.target, e.threat, e.provenance.get("data", ""))
        if e.kind == "not run" and not key[3]:
            key = next((k for k in groups if k[:3] == key[:3]), key)
        groups.setdefault(key, []).append(e)
    return groups


def _band(key: _Key, members: Sequence[Evidence], levels: Mapping[str, Sequence[Level]],
          examples: Mapping[str, WorstCases]) -> Band:
    ran = tuple(e for e in members if e.kind != "not run")
    names = list(dict.fromkeys(b.quantity for e in ran for b in e.bounds))
    plain = [name for name in names if any(measured(name, e) for e in ran)]
    brackets = tuple(
        bracket(name, ran, levels.get(name, ())) for name in names if name not in plain and " @ " not in name
    )
    curves = tuple(c for q in dict.fromkeys(n.partition(" @ ")[0] for n in names) if (c := curve(q, ran)))
    facts = {name: e for name in plain if (e := end(name, "at most", ran, _unit(name, ran)))}
    return Band(
        game=key[0], target=key[1], threat=key[2], data=key[3], ran=ran,
        missing=tuple(e for e in members if e.kind == "not run"),
        brackets=brackets, curves=curves, facts=facts, doubts=_doubts(ran),
        galleries=tuple(Gallery(attack=e.attack, cases=examples[e.id]) for e in ran if e.id in examples),
        contradictions=_contradictions(ran, brackets, curves), roc=roc(ran),
    )


def _unit(name: str, ran: Sequence[Evidence]) -> words.Unit:
    return words.unit_of(name, [b for e in ran for b in e.bounds if b.quantity == name])


def _doubts(ran: Sequence[Evidence]) -> tuple[Raised, ...]:
    raised: dict[Doubt, list[str]] = {}
    for e in ran:
        for doubt in e.doubts:
            raised.setdefault(doubt, []).append(e.attack)
    ordered = sorted(raised.items(), key=lambda item: item[0].code != CONTRADICTION)
    return tuple(Raised(finding=finding_of(d.code), text=d.text, by=tuple(dict.fromkeys(by))) for d, by in ordered)


def _contradictions(ran: Sequence[Evidence], brackets: Sequence[Bracket], curves: Sequence[Curve]) -> tuple[str, ...]:
    """What the evidence itself says (DBT120), or else what its points and bounds show."""
    told = dict.fromkeys(d.text for e in ran for d in e.doubts if d.code == CONTRADICTION)
    if told:
        return tuple(told)
    both = [(a, p, n) for a in ran for p in ran if (n := _clashes(a, p))]
    if both:
        attack, proof, n = max(both, key=lambda pair: pair[2])
        return (f"{words.count(n, 'point')} that {proof.attack} proved safe fell to {attack.attack} within the budget",)
    crossed = next((b for b in brackets if b.crossed and b.lower and b.upper), None)
    if crossed and crossed.lower and crossed.upper:
        low, high = crossed.lower, crossed.upper
        return (f"{crossed.quantity}: {low.by} says {low.short}, {high.by} says {high.short}",)
    bent = next((c for c in curves if c.crossed), None)
    return (f"{bent.quantity}: the sides cross on the curve over the radius",) if bent else ()


def _clashes(attack: Evidence, proof: Evidence) -> int:
    """How many points were broken at a radius at which they were proved."""
    if attack.kind != "played" or proof.kind != "proved":
        return 0
    shown, held = attack.artefacts.get("points"), proof.artefacts.get("points")
    if shown is None or held is None or "broken_at" not in shown.arrays or "certified_at" not in held.arrays:
        return 0
    broken = np.asarray(shown.arrays["broken_at"], dtype=np.float64)
    certified = np.asarray(held.arrays["certified_at"], dtype=np.float64)
    if broken.shape != certified.shape:
        return 0
    return int(((broken <= certified) & np.isfinite(broken) & (shown.arrays["correct"] != 0)).sum())


def _levels(judgments: Sequence[Judgment], found: Sequence[Evidence]) -> dict[str, list[Level]]:
    """By quantity, what claims demand; none where several budgets would leave open which one is meant."""
    levels: dict[str, list[Level]] = {}
    for judgment in judgments:
        quantity, level = _parsed(judgment) or ("", None)
        budgets = {e.threat.budget for e in found if any(b.quantity == quantity for b in e.bounds)}
        if level and len(budgets) == 1:
            levels.setdefault(quantity, []).append(level)
    return levels


def _claim(judgment: Judgment, found: Sequence[Evidence], doubtful: bool) -> ClaimRow:
    note = "not to be trusted while the evidence contradicts itself" if doubtful else ""
    if judgment.verdict == "standing":
        quantity, _ = _parsed(judgment) or (ROBUST, None)
        tried = [e.attack for e in found if e.kind == "played" and any(b.quantity == quantity for b in e.bounds)]
        note = "; ".join(filter(None, [f"not broken by {words.listing(tried) or 'any attack'}, not proven", note]))
    return ClaimRow(
        id=words.clean(judgment.id), claim=words.clean(judgment.claim), verdict=judgment.verdict,
        because=words.clean(judgment.because), note=note,
    )


def _parsed(judgment: Judgment) -> tuple[str, Level] | None:
    """Quantity and level of a claim as its ``str`` writes them; a quantity may hold ``=``."""
    match = _CLAIM.match(judgment.claim)
    return (match[1], Level(words.clean(judgment.id), match[2], float(match[3]))) if match else None
