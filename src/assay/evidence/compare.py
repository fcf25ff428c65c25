"""Evidence side by side: bounds, cost per point, doubts."""

from __future__ import annotations

from dataclasses import dataclass

from assay.evidence.bound import Bound
from assay.evidence.record import Evidence


@dataclass(frozen=True)
class Row:
    """One evidence in a comparison; costs are per point."""

    id: str
    attack: str
    target: str
    budget: str
    bounds: tuple[Bound, ...]
    forwards: float
    backwards: float
    seconds: float
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Rows in the order in which they were given; ``str`` is a table."""

    rows: tuple[Row, ...]

    def to_json(self) -> list[dict[str, object]]:
        """Plain data."""
        return [{**vars(row), "bounds": [vars(b) for b in row.bounds], "doubts": list(row.doubts)} for row in self.rows]

    def __str__(self) -> str:
        head = ["method", "target", "budget", "bound", "forwards/pt", "backwards/pt", "seconds", "doubts"]
        lines = [head] + [_cells(row) for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines)


def compare(*found: Evidence) -> Comparison:
    """The evidence side by side."""
    return Comparison(tuple(_row(e) for e in found))


def _row(e: Evidence) -> Row:
    n = max((b.n for b in e.bounds), default=1) or 1
    side = "at least" if e.kind == "proved" else "at most"
    return Row(
        id=e.id,
        attack=e.attack,
        target=e.target,
        budget=e.threat.budget,
        bounds=tuple(b for b in e.bounds if b.side == side and b.quantity != "clean accuracy"),
        forwards=e.cost.forwards / n,
        backwards=e.cost.backwards / n,
        seconds=e.cost.seconds,
        doubts=tuple(d.code for d in e.doubts) if e.kind != "not run" else ("NOT RUN",),
    )


def _cells(row: Row) -> list[str]:
    bound = f"{row.bounds[0].quantity} {row.bounds[0].side} {row.bounds[0].estimate:.2%}" if row.bounds else "-"
    return [row.attack, row.target, row.budget, bound, f"{row.forwards:.1f}", f"{row.backwards:.1f}",
            f"{row.seconds:.1f}", " ".join(row.doubts) or "none"]
