"""What is known of the weights themselves: fingerprint, format, what a scan saw, what a trainer could hide in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.errors import findings
from assay.evidence.record import Evidence
from assay.reports import words

SCAN, LEAK = "privacy.supply-chain", "privacy.exfiltration"
RECOVERED = "payload bytes recovered"
CHANCE = 1 / 256
"""The share of bytes that a guess gets right."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One line about weights: what was seen, how in detail, and whether it is a reason for alarm."""

    head: str
    text: str
    alarming: bool

    def __str__(self) -> str:
        return f"{self.head}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One set of weights.

    Attributes:
        target: what they belong to.
        fingerprint: sha256, in hexadecimal.
        format: how they came; empty where nobody looked.
        parameters: how many, and how fine.
        scan: what a scan saw; empty where none ran.
        leaks: what came back of a payload; empty where none was hidden.
    """

    target: str
    fingerprint: str
    format: str
    parameters: str
    scan: tuple[Sight, ...]
    leaks: tuple[Sight, ...]


def supply(found: Sequence[Evidence]) -> tuple[Weights, ...]:
    """One row a set of weights, from the evidence of scans and of exfiltration; nothing where there is neither."""
    groups: dict[str, list[Evidence]] = {}
    for e in found:
        if e.kind == "played" and e.game in (SCAN, LEAK):
            groups.setdefault(e.provenance.get("weights", ""), []).append(e)
    return tuple(_weights(fingerprint, members) for fingerprint, members in groups.items())


def _weights(fingerprint: str, members: Sequence[Evidence]) -> Weights:
    scans = [e for e in members if e.game == SCAN]
    known = scans[0].provenance if scans else {}
    return Weights(
        target=words.first_line((scans or members)[0].target), fingerprint=fingerprint,
        format=known.get("format", ""), parameters=known.get("parameters", ""),
        scan=tuple(sight for e in scans for sight in _seen(e)),
        leaks=tuple(_leak(e) for e in members if e.game == LEAK),
    )


def _seen(scan: Evidence) -> tuple[Sight, ...]:
    if not scan.doubts:
        return (Sight(head="Nothing found", text="nothing readable, nothing out of order", alarming=False),)
    known = findings()
    titles = [known[d.code].title if d.code in known else "A finding that this version does not know"
              for d in scan.doubts]
    return tuple(Sight(head=f"{d.code} {title}", text=d.text, alarming=True) for d, title in zip(scan.doubts, titles))


def _leak(e: Evidence) -> Sight:
    by = f"{e.attack}, {e.threat.budget}"
    bound = next((b for b in e.bounds if b.quantity == RECOVERED), None)
    if bound is None:
        return Sight(head="Nothing measured", text=by, alarming=False)
    right, n = round(bound.estimate * bound.n), bound.n
    chance = bound.value <= CHANCE
    back = "Back bit-exact" if right == n else f"{right:,} of {words.count(n, 'byte')} right"
    return Sight(head=back + (", as by chance" if chance else ""), text=by, alarming=not chance)
