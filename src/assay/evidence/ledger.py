"""Where evidence lives: an append-only, hash-chained JSONL file and arrays by their hash, safe against crashes.

A ledger is a folder: ``ledger.jsonl``, one entry a line ``{"seq", "prev", "kind", "body", "hash"}`` with ``hash`` the
sha256 over the others, and ``artefacts/<sha256>.safetensors``. An array file is complete on disk before the line that
names it is written; a line counts once its newline is on disk. Whatever a crash leaves behind is a torn last line,
which the next opening cuts off, or an array file that nothing names.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from safetensors.numpy import load

from assay.errors import LedgerError, TrustError
from assay.evidence.claim import Judgment
from assay.evidence.record import Arrays, Artefact, Evidence

GENESIS = "0" * 64
_PART, _EVIDENCE, _VERDICT, _PLAN = "part", "evidence", "verdict", "plan"


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    seq: int
    prev: str
    kind: str
    body: Mapping[str, Any]
    hash: str


def _digest(seq: int, prev: str, kind: str, body: Mapping[str, Any]) -> str:
    text = json.dumps([seq, prev, kind, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """An open ledger. Use :meth:`open`; one writer at a time.

    It is also a game's memory: parts of trials are kept as they are earned and recalled when a run is resumed.
    """

    def __init__(self, folder: Path, file: IO[bytes], entries: list[Entry]) -> None:
        self.folder = folder
        self._file = file
        self._entries = entries
        self._end = file.seek(0, os.SEEK_END)
        self._parts = {(e.body["trial"], e.body["part"]): e.body["artefact"] for e in entries if e.kind == _PART}

    @classmethod
    def open(cls, folder: Path | str) -> Ledger:
        """Opens or starts the ledger in ``folder``; a line torn by a crash is cut off.

        Raises:
            LedgerError: LGR101 cannot be written, LGR102 another process has it open.
            TrustError: LGR103 the hash chain is broken.
        """
        folder = Path(folder)
        try:
            (folder / "artefacts").mkdir(parents=True, exist_ok=True)
            file = (folder / "ledger.jsonl").open("a+b", buffering=0)
        except OSError as error:
            raise LedgerError("LGR101", f"cannot open the ledger: {error.strerror}", where=str(folder)) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise LedgerError("LGR102", "another process is writing this ledger", where=str(folder)) from None
        try:
            file.seek(0)
            entries, good = _read(file.read(), folder)
            file.truncate(good)
        except BaseException:
            file.close()
            raise
        return cls(folder, file, entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file and its lock."""
        self._file.close()

    @property
    def head(self) -> str:
        """The hash of the last entry: it stands for everything before it."""
        return self._entries[-1].hash if self._entries else GENESIS

    def entries(self, kind: str = "") -> Iterator[Entry]:
        """All entries, or those of one kind, oldest first."""
        return (entry for entry in self._entries if not kind or entry.kind == kind)

    def append(self, kind: str, body: Mapping[str, Any]) -> Entry:
        """Adds an entry; it is on disk when the call returns. Raises ``LedgerError`` (LGR101)."""
        seq, prev = len(self._entries), self.head
        plain = json.loads(json.dumps(body))
        entry = Entry(seq, prev, kind, plain, _digest(seq, prev, kind, plain))
        line = json.dumps(vars(entry), separators=(",", ":")).encode() + b"\n"
        try:
            self._file.truncate(self._end)  # a torn line that could not be taken back when its write failed
            if self._file.write(line) != len(line):
                raise OSError(28, "the line was written only in part")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._restore()
            raise LedgerError("LGR101", f"cannot write the ledger: {error.strerror}", where=str(self.folder)) from error
        self._entries.append(entry)
        self._end += len(line)
        return entry

    def _restore(self) -> None:
        try:
            self._file.truncate(self._end)
        except OSError:
            return  # the torn line stays; the next entry or the next opening cuts it off

    def store(self, artefact: Artefact) -> str:
        """Writes the arrays, whole or not at all; returns their hash. Raises ``LedgerError`` (LGR101)."""
        path = self._path(artefact.sha256)
        if path.exists():
            return artefact.sha256
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(artefact.data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise LedgerError("LGR101", f"cannot write arrays: {error.strerror}", where=str(path)) from error
        return artefact.sha256

    def artefact(self, sha256: str) -> Artefact:
        """The arrays with this hash. Raises ``TrustError`` (LGR104) if they are missing or altered."""
        path = self._path(sha256)
        if not path.exists():
            raise TrustError("LGR104", f"the arrays {sha256[:12]}… are missing", where=str(path))
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise TrustError("LGR104", f"the arrays {sha256[:12]}… are not what was written", where=str(path))
        return Artefact(load(data))

    def recall(self, trial: str, part: str) -> Arrays | None:
        """What was kept of this part of a trial, or ``None``."""
        sha256 = self._parts.get((trial, part))
        return None if sha256 is None else self.artefact(sha256).arrays

    def keep(self, trial: str, part: str, arrays: Arrays) -> None:
        """Keeps a part of a trial; it is on disk when the call returns."""
        sha256 = self.store(Artefact(arrays))
        self.append(_PART, {"trial": trial, "part": part, "artefact": sha256})
        self._parts[trial, part] = sha256

    def plan(self, text: str, *, folder: str) -> None:
        """Begins a run: notes the plan that the following evidence answers to."""
        self.append(_PLAN, {"toml": text, "folder": folder})

    def last_plan(self) -> tuple[str, str]:
        """TOML and folder of the plan noted last. Raises ``LedgerError`` (LGR105) where there is none."""
        plans = list(self.entries(_PLAN))
        if not plans:
            raise LedgerError("LGR105", "the ledger holds no plan", where=str(self.folder))
        return plans[-1].body["toml"], plans[-1].body["folder"]

    def record(self, evidence: Evidence) -> None:
        """Writes evidence and its artefacts."""
        for artefact in evidence.artefacts.values():
            self.store(artefact)
        self.append(_EVIDENCE, evidence.to_json())

    def judge(self, judgments: list[Judgment]) -> None:
        """Writes the verdicts on the claims."""
        self.append(_VERDICT, {"claims": [judgment.to_json() for judgment in judgments]})

    def evidence(self) -> list[Evidence]:
        """The evidence of the last run."""
        start = max((entry.seq for entry in self.entries(_PLAN)), default=-1)
        return [self._load(entry) for entry in self.entries(_EVIDENCE) if entry.seq > start]

    def history(self) -> list[Evidence]:
        """The evidence of every run, oldest first; of a trial that was played again, the latest."""
        return [self._load(entry) for entry in {e.body["trial"]: e for e in self.entries(_EVIDENCE)}.values()]

    def _load(self, entry: Entry) -> Evidence:
        stored = {name: self.artefact(sha256) for name, sha256 in entry.body["artefacts"].items()}
        return Evidence.from_json(entry.body, stored)

    def verify(self) -> int:
        """Checks every artefact that an entry names; the chain was checked on opening. Returns how many."""
        named = [e.body["artefact"] for e in self.entries(_PART)]
        named += [sha for e in self.entries(_EVIDENCE) for sha in e.body["artefacts"].values()]
        for sha256 in dict.fromkeys(named):
            self.artefact(sha256)
        return len(set(named))

    def _path(self, sha256: str) -> Path:
        return self.folder / "artefacts" / f"{sha256}.safetensors"


def _read(data: bytes, folder: Path) -> tuple[list[Entry], int]:
    """The entries, and how many bytes of whole lines they fill."""
    entries: list[Entry] = []
    prev, good = GENESIS, 0
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        where = f"{folder / 'ledger.jsonl'}, line {len(entries) + 1}"
        try:
            entry = Entry(**json.loads(line))
            sound = entry.seq == len(entries) and entry.prev == prev
            sound = sound and entry.hash == _digest(entry.seq, entry.prev, entry.kind, entry.body)
        except (ValueError, TypeError):
            sound = False
        if not sound:
            if good + len(line) == len(data) and not _parses(line):
                break  # a crash can leave garbage in the last block that happens to end in a newline
            raise TrustError("LGR103", "an entry was altered, removed or reordered", where=where)
        entries.append(entry)
        prev, good = entry.hash, good + len(line)
    return entries, good


def _parses(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

