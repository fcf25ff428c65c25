"""What goes wrong, said with a voice: a code, what, where, why it matters, and the fix.

A code's standing text (title, why, fix) lives in ``findings/<PREFIX>.toml`` and is what ``assay explain CODE``
prints; the raising site adds what happened and where. The family:

    AssayError          anything Assay itself refuses or reports
    ├── ConfigError     the plan, a flag or a file it names is wrong          exit 2
    ├── DataError       the examples are not what they should be              exit 2
    ├── TargetError     the model under test is not what was declared         exit 2
    ├── Denied          the threat model does not grant what was asked
    ├── Unreachable     the target cannot be spoken to                        exit 4
    ├── LedgerError     evidence cannot be written or read                    exit 2
    └── TrustError      evidence does not hold: hash, replay, contradiction   exit 5
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import ClassVar


@dataclass(frozen=True)
class Finding:
    """One code's standing text, as ``assay explain`` prints it."""

    code: str
    title: str
    why: str
    fix: str


@cache
def findings() -> dict[str, Finding]:
    """Every code Assay can print, by code: errors and doubts alike."""
    table: dict[str, Finding] = {}
    for page in sorted(resources.files("assay.findings").iterdir(), key=lambda p: p.name):
        if page.name.endswith(".toml"):
            for code, entry in tomllib.loads(page.read_text(encoding="utf-8")).items():
                table[code] = Finding(code, entry["title"], entry["why"], entry["fix"])
    return table


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    match = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


class AssayError(Exception):
    """An error that names its code, what happened, where, why it matters and what to do about it.

    Args:
        code: a key of :func:`findings`, such as ``"TGT102"``.
        what: what happened, with the offending value in it.
        where: the file, key, row or call at which it happened; empty when ``what`` already says it.
        fix: overrides the code's standing advice when this case has a more precise one.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, code: str, what: str, *, where: str = "", fix: str = "") -> None:
        finding = findings()[code]
        self.code, self.what, self.where = code, what, where
        self.why, self.fix = finding.why, fix or finding.fix
        super().__init__(self.render())

    def render(self) -> str:
        """The error as a person reads it, one labelled line a part."""
        lines = [f"{self.code}  {self.what}"]
        if self.where:
            lines.append(f"  where {self.where}")
        lines += [f"  why   {self.why}", f"  fix   {self.fix}", f"  more  assay explain {self.code}"]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.what, self.where, self.fix)


def _rebuild(kind: type[AssayError], code: str, what: str, where: str, fix: str) -> AssayError:
    return kind(code, what, where=where, fix=fix)


class ConfigError(AssayError):
    """The plan, a flag or a file it names is wrong."""


class DataError(AssayError):
    """The examples are not what they should be: shape, range, label or file."""


class TargetError(AssayError):
    """The model under test is not what was declared."""


class Denied(AssayError):
    """The threat model does not grant what the adversary asked for."""


class Unreachable(AssayError):
    """The target cannot be spoken to."""

    exit_code = 4


class LedgerError(AssayError):
    """Evidence cannot be written or read."""


class TrustError(AssayError):
    """Evidence does not hold: a broken hash chain, a failed replay, a contradiction."""

    exit_code = 5


def missing_extra(package: str, extra: str) -> ConfigError:
    """The one-sentence error for an optional dependency that is not installed."""
    return ConfigError("CFG110", f"this needs {package}, which is not installed",
                       fix=f"pip install 'assay[{extra}]'")
