"""How numbers, threats and lists are said, the same in every rendering, and how foreign text is made harmless."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from assay.evidence.bound import AT_MOST, Bound, Side
from assay.evidence.record import Evidence, Threat

Unit = Literal["share", "number"]

_BUDGET = re.compile(r"^(linf|l2|l1|l0) (inf|[0-9.eE+-]+)( uint8)?$")
_UNBOUNDED = ("epsilon", "exposure", "mu", "cost", "queries", "median", "bits", "bytes")
_ACCESS = {
    "labels": "sees only the predicted labels",
    "scores": "sees labels and scores",
    "gradients": "sees scores and gradients",
    "weights": "has the model's weights",
}
_GOALS = {"misclassify": "wants any wrong prediction", "targeted": "wants one chosen wrong prediction",
          "membership": "wants to know who was trained on"}
_REACH = {
    "linf": "may change every input value by at most {}",
    "l2": "may move an input by a Euclidean distance of at most {}",
    "l1": "may change an input's values by at most {} in sum",
    "l0": "may change at most {} of an input's values",
}


def clean(text: str) -> str:
    """The text without control, escape and direction-changing characters: evidence may come from strangers."""
    kept = (c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else "\N{REPLACEMENT CHARACTER}"
            for c in text)
    return "".join(kept)


def first_line(text: str) -> str:
    """The first line, with runs of spaces made one."""
    return " ".join(text.partition("\n")[0].split())


def listing(items: Iterable[str], *, most: int = 4) -> str:
    """``a, b and c``; past ``most``, how many more."""
    names = list(dict.fromkeys(items))
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def pretty(claim: str) -> str:
    """A claim with its operator as one sign."""
    return claim.replace(">=", "≥").replace("<=", "≤")


def count(number: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def unit_of(quantity: str, bounds: Iterable[Bound]) -> Unit:
    """Whether a quantity is a share of 0 to 100 % or a plain number, such as an epsilon."""
    if quantity.startswith(_UNBOUNDED):
        return "number"
    return "share" if all(0 <= v <= 1 for b in bounds for v in (b.estimate, b.value)) else "number"


def figure(value: float, unit: Unit) -> str:
    """A measured value, rounded to the nearest; never rounded to a 0 % or 100 % that it is not."""
    if unit == "number":
        return "unlimited" if math.isinf(value) else f"{value:.4g}"
    for digits in (1, 2, 3, 4):
        text = f"{100 * value:.{digits}f}"
        if float(text) not in (0, 100) or value in (0, 1):
            break
    return f"{text}%"


def implied(value: float, side: Side, unit: Unit) -> str:
    """A bound's value, rounded outward, so that the printed bound still holds."""
    if unit == "number" or not math.isfinite(value):
        return figure(value, "number")
    outward = math.ceil(value * 1000 - 1e-9) if side == AT_MOST else math.floor(value * 1000 + 1e-9)
    return f"{outward / 10:.1f}%"


def budget_of(text: str) -> tuple[str, float] | None:
    """Norm and radius of a budget such as ``linf 0.03``, or ``None`` for budgets of another form."""
    match = _BUDGET.match(text)
    try:
        return (match[1], float(match[2])) if match else None
    except ValueError:
        return None


def radius(value: float) -> str:
    """A radius, as so many 255ths where it is that."""
    if math.isinf(value):
        return "unlimited"
    steps = value * 255
    if 0 < value < 1 and round(steps) >= 1 and abs(steps - round(steps)) < 1e-3:
        return f"{round(steps)}/255"
    return f"{value:.4g}"


def budget(text: str) -> str:
    """A budget for a heading: ``linf 8/255``."""
    known = budget_of(text)
    return f"{known[0]} {radius(known[1])}{' uint8' if text.endswith('uint8') else ''}" if known else text


def adversary(threat: Threat) -> str:
    """The threat model as one sentence."""
    known = budget_of(threat.budget)
    parts = [_GOALS.get(threat.goal, f"wants to {threat.goal}"), _ACCESS.get(threat.access, f"sees {threat.access}")]
    if threat.knows:
        parts.append(f"knows the {listing(threat.knows)}")
    if known and math.isinf(known[1]):
        parts.append(f"looks for the smallest change in {known[0]} that suffices")
    elif known:
        parts.append(_REACH[known[0]].format(radius(known[1])))
    elif threat.goal == "membership":
        parts.append("asks about every example" if threat.budget == "natural" else f"plants canaries: {threat.budget}")
    elif threat.budget:
        parts.append(f"has the budget {threat.budget}")
    if threat.budget.endswith(" uint8"):
        parts.append("must send an image of 8 bits a channel")
    queries = "without limit" if threat.queries is None else f"at most {count(threat.queries, 'time')} per point"
    return f"The adversary {', '.join(parts)}, and may query {queries}."


def per_point(total: int, n: int) -> str:
    """A cost divided by the points, short."""
    if not n:
        return "–"
    each = total / n
    return f"{each:,.0f}" if each >= 100 or each == int(each) else f"{each:.1f}"


def points(evidence: Evidence) -> int:
    """How many points a trial was about."""
    return max((b.n for b in evidence.bounds), default=0)


def spent(evidence: Evidence) -> str:
    """The cost of a trial per point, as one phrase."""
    cost, n = evidence.cost, points(evidence)
    parts = ((cost.forwards, "forwards"), (cost.backwards, "backwards"), (cost.queries, "queries"))
    return f"{', '.join(f'{per_point(total, n)} {name}' for total, name in parts)} a point; {seconds(cost.seconds)}"


def seconds(value: float) -> str:
    """A time, short."""
    if value >= 120:
        return f"{value / 60:,.1f} min"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def verdicts(ids: Sequence[str], total: int, said: str) -> str:
    """``1 of 2 claims is broken: ROB-1``."""
    names = listing(ids)
    if total == 1:
        return f"The claim is {said}: {names}"
    if len(ids) == total:
        return f"{'Both' if total == 2 else f'All {total}'} claims are {said}: {names}"
    return f"{len(ids)} of {total} claims {'is' if len(ids) == 1 else 'are'} {said}: {names}"
