"""The ledger under tampering, crashes, full disks and two writers."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import LedgerError, TrustError
from assay.evidence.bound import Bound
from assay.evidence.claim import Claim
from assay.evidence.ledger import GENESIS, Ledger
from assay.evidence.record import Artefact, Cost, Doubt, Evidence, Threat

ARRAYS = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "point": np.array([4, 7])}


def filled(folder: Path, count: int = 3) -> Path:
    """A ledger of ``count`` entries; its file."""
    with Ledger.open(folder) as ledger:
        for i in range(count):
            ledger.append("note", {"i": i, "text": "ä\u2028\n"})
    return folder / "ledger.jsonl"


def evidence(trial: str = "a" * 64, **changed: object) -> Evidence:
    values: dict[str, object] = {
        "kind": "played", "game": "evasion", "trial": trial, "target": "net", "attack": "PGD()", "seed": 3,
        "threat": Threat(goal="misclassify", access="gradients", budget="linf 0.1", knows=("model",)),
        "bounds": (Bound.of_count("robust accuracy", "at most", 30, 100, method="PGD()"),),
        "cost": Cost(forwards=7, backwards=5, queries=6, seconds=0.5), "doubts": (Doubt("DBT101", "it is"),),
        "artefacts": {"adversarial": Artefact(ARRAYS)}, "provenance": {"model": "m", "data": "d"},
    }
    return Evidence(**{**values, **changed})


def code_of(action) -> str:
    with pytest.raises((LedgerError, TrustError)) as caught:
        action()
    return caught.value.code


def test_entries_survive_reopening_and_chain(tmp_path: Path) -> None:
    filled(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        found = list(ledger.entries())
        assert [e.body["i"] for e in found] == [0, 1, 2]
        assert [e.seq for e in found] == [0, 1, 2]
        assert [e.prev for e in found] == [GENESIS, found[0].hash, found[1].hash]
        assert ledger.head == found[2].hash
        assert ledger.append("note", {"i": 3}).prev == found[2].hash
        assert len(list(ledger.entries("note"))) == 4
        assert list(ledger.entries("other")) == []


def test_an_empty_ledger_has_the_genesis_head(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "deep" / "er") as ledger:
        assert ledger.head == "0" * 64
        assert code_of(ledger.last_plan) == "LGR105"
        assert ledger.evidence() == []


@pytest.mark.parametrize("how", ["value", "removed", "reordered", "repeated", "garbage"])
def test_a_change_in_the_middle_is_found(tmp_path: Path, how: str) -> None:
    file = filled(tmp_path, 4)
    lines = file.read_bytes().splitlines(keepends=True)
    changed = {
        "value": [lines[0], lines[1].replace(b'"i":1', b'"i":9'), *lines[2:]],
        "removed": [lines[0], *lines[2:]],
        "reordered": [lines[0], lines[2], lines[1], lines[3]],
        "repeated": [lines[0], lines[0], *lines[1:]],
        "garbage": [lines[0], b"\x00\x00\n", *lines[2:]],
    }[how]
    file.write_bytes(b"".join(changed))
    with pytest.raises(TrustError) as caught:
        Ledger.open(tmp_path)
    assert caught.value.code == "LGR103"
    assert caught.value.exit_code == 5
    assert caught.value.where.endswith("line 2")
    file.write_bytes(b"".join(lines))
    with Ledger.open(tmp_path) as ledger:  # the refusal let go of the lock
        assert len(list(ledger.entries())) == 4


def test_an_altered_last_line_is_no_torn_line(tmp_path: Path) -> None:
    file = filled(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"i":2', b'"i":5'))
    assert code_of(lambda: Ledger.open(tmp_path)) == "LGR103"


def test_a_torn_last_line_is_cut_off_and_written_over(tmp_path: Path) -> None:
    file = filled(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with Ledger.open(tmp_path) as ledger:
        assert [e.body["i"] for e in ledger.entries()] == [0, 1]
        ledger.append("note", {"i": 2, "text": "ä\u2028\n"})
    assert file.read_bytes() == whole
    file.write_bytes(whole + b"\x00" * 30 + b"\n")  # a block that was allocated, but not written
    with Ledger.open(tmp_path) as ledger:
        assert len(list(ledger.entries())) == 3


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1))
def test_any_truncation_leaves_a_prefix(share: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = filled(Path(name), 5)
        whole = file.read_bytes()
        cut = round(share * len(whole))
        file.write_bytes(whole[:cut])
        with Ledger.open(name) as ledger:
            expected = whole[:cut].count(b"\n")
            assert [e.body["i"] for e in ledger.entries()] == list(range(expected))
            ledger.append("note", {"i": expected})
        with Ledger.open(name) as ledger:
            assert len(list(ledger.entries())) == expected + 1


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path):
        assert code_of(lambda: Ledger.open(tmp_path)) == "LGR102"
        code = "import sys; from assay.evidence.ledger import Ledger; Ledger.open(sys.argv[1])"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "LGR102" in other.stderr
    with Ledger.open(tmp_path) as ledger:
        assert ledger.append("note", {}).seq == 0


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code_of(lambda: Ledger.open(tmp_path / "file")) == "LGR101"


def test_parts_are_recalled(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        assert ledger.recall("t", "0-5/0") is None
        ledger.keep("t", "0-5/0", ARRAYS)
        ledger.keep("t", "5-9/0", {"empty": np.zeros((0, 4))})
    with Ledger.open(tmp_path) as ledger:
        found = ledger.recall("t", "0-5/0")
        assert found is not None
        assert {k: (v.dtype, v.tolist()) for k, v in found.items()} == {k: (v.dtype, v.tolist()) for k, v in ARRAYS.items()}
        empty = ledger.recall("t", "5-9/0")
        assert empty is not None
        assert empty["empty"].shape == (0, 4)
        assert ledger.recall("other", "0-5/0") is None
        assert ledger.verify() == 2


@pytest.mark.parametrize("how", ["altered", "missing", "truncated"])
def test_arrays_that_are_not_what_was_written_are_refused(tmp_path: Path, how: str) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.keep("t", "p", ARRAYS)
        (file,) = (tmp_path / "artefacts").iterdir()
        data = file.read_bytes()
        if how == "missing":
            file.unlink()
        else:
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if how == "altered" else data[:-1])
        assert code_of(lambda: ledger.recall("t", "p")) == "LGR104"
        assert code_of(ledger.verify) == "LGR104"


def test_evidence_comes_back_equal(tmp_path: Path) -> None:
    kept = evidence()
    with Ledger.open(tmp_path) as ledger:
        ledger.plan("old", folder="/f")
        ledger.record(evidence("b" * 64))
        ledger.plan("new = 1", folder="/g")
        ledger.record(kept)
        ledger.judge([Claim.parse("robust accuracy >= 0.9", id="c").judge([kept])])
    with Ledger.open(tmp_path) as ledger:
        (found,) = ledger.evidence()
        assert found.to_json() == kept.to_json()
        assert np.array_equal(found.artefacts["adversarial"].arrays["z"], ARRAYS["z"])
        assert [e.trial[0] for e in ledger.history()] == ["b", "a"]
        assert ledger.last_plan() == ("new = 1", "/g")
        (verdict,) = ledger.entries("verdict")
        assert verdict.body["claims"][0]["verdict"] == "broken"
        assert ledger.verify() == 1


def test_history_keeps_the_latest_of_a_trial(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.record(evidence(seed=1))
        ledger.record(evidence(seed=2))
        assert [e.seed for e in ledger.history()] == [2]


def test_equal_arrays_have_equal_bytes() -> None:
    turned = {name: ARRAYS[name] for name in reversed(ARRAYS)}
    assert Artefact(ARRAYS).sha256 == Artefact(turned).sha256
    assert Artefact({"z": ARRAYS["z"].T.copy().T}).data == Artefact({"z": ARRAYS["z"]}).data


@pytest.mark.parametrize("fails", ["fsync", "write", "part"])
def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch, fails: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Short:
        """A raw file that takes half of what it is given, once the disk is full."""

        def __init__(self, file) -> None:
            self.file = file

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            if fails == "write":
                full()
            return self.file.write(data[: len(data) // 2])

    file = filled(tmp_path)
    whole = file.read_bytes()
    with Ledger.open(tmp_path) as ledger:
        with monkeypatch.context() as patch:
            if fails == "fsync":
                patch.setattr(os, "fsync", full)
            else:
                patch.setattr(ledger, "_file", Short(ledger._file))
            assert code_of(lambda: ledger.append("note", {"i": 3})) == "LGR101"
        assert file.read_bytes() == whole
        assert len(list(ledger.entries())) == 3
        ledger.append("note", {"i": 3})
    with Ledger.open(tmp_path) as ledger:
        assert [e.body["i"] for e in ledger.entries()] == [0, 1, 2, 3]


def test_a_torn_line_that_cannot_be_taken_back_at_once_is_no_part_of_the_next(tmp_path: Path, monkeypatch) -> None:
    class Broken:
        def __init__(self, file) -> None:
            self.file = file
            self.written = False

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            self.written = True
            return self.file.write(data[: len(data) // 2])

        def truncate(self, size: int) -> int:
            if self.written:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return self.file.truncate(size)

    filled(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_file", Broken(ledger._file))
            assert code_of(lambda: ledger.append("note", {"i": 3})) == "LGR101"
        ledger.append("note", {"i": 3})
        ledger.append("note", {"i": 4})
    with Ledger.open(tmp_path) as ledger:
        assert [e.body["i"] for e in ledger.entries()] == [0, 1, 2, 3, 4]


def test_a_full_disk_under_arrays_leaves_no_partial_file(tmp_path: Path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Ledger.open(tmp_path) as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert code_of(lambda: ledger.keep("t", "p", ARRAYS)) == "LGR101"
        assert list((tmp_path / "artefacts").iterdir()) == []
        assert ledger.recall("t", "p") is None
        ledger.keep("t", "p", ARRAYS)
        assert ledger.verify() == 1


LIMITED = """
import resource, signal, sys
from assay.errors import LedgerError
from assay.evidence.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 100_000))
done = 0
try:
    while True:
        ledger.append("note", {"i": done, "pad": "x" * 100})
        done += 1
except LedgerError as error:
    assert error.code == "LGR101", error
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
ledger.append("note", {"i": done, "pad": ""})
sys.stdout.write(str(done))
"""


def test_a_file_that_really_cannot_grow(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    done = int(run.stdout)
    assert done > 3
    with Ledger.open(tmp_path) as ledger:
        assert [e.body["i"] for e in ledger.entries()] == list(range(done + 1))


NURSERY = """
import os, sys
import numpy as np
from assay.evidence.ledger import Ledger


def work():
    ledger = Ledger.open(sys.argv[1])
    os.write(1, b"%d\\n" % os.getpid())
    i = len(list(ledger.entries()))
    while True:
        if i % 2:
            ledger.keep("trial", str(i), {"z": np.full((50, 50), i)})
        else:
            ledger.append("note", {"i": i, "pad": "x" * 3000})
        os.write(1, b"%d\\n" % i)
        i += 1


for line in sys.stdin:
    child = os.fork()
    if not child:
        work()
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""
"""Imports once, then bears a writer for every line it reads."""


def test_every_acknowledged_entry_survives_kill_9(tmp_path: Path) -> None:
    chance, acknowledged, rounds = random.Random(0), 0, 12
    nursery = subprocess.Popen([sys.executable, "-c", NURSERY, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert nursery.stdout is not None
    assert nursery.stdin is not None
    for _ in range(rounds):
        nursery.stdin.write(b"go\n")
        nursery.stdin.flush()
        writer = int(nursery.stdout.readline())
        time.sleep(chance.uniform(0.001, 0.06))
        os.kill(writer, signal.SIGKILL)
        for line in iter(nursery.stdout.readline, b"dead\n"):
            acknowledged = int(line) + 1
        with Ledger.open(tmp_path) as ledger:
            found = list(ledger.entries())
            assert len(found) in (acknowledged, acknowledged + 1)  # one may be on disk, but not yet told
            assert [e.seq for e in found] == list(range(len(found)))
            parts = [i for i in range(len(found)) if i % 2]
            assert ledger.verify() == len(parts)
            for i in parts[-3:]:
                kept = ledger.recall("trial", str(i))
                assert kept is not None
                assert (kept["z"] == i).all()
            acknowledged = len(found)
    nursery.communicate()
    assert acknowledged > rounds


def test_lines_are_json_in_the_documented_shape(tmp_path: Path) -> None:
    line = json.loads(filled(tmp_path, 1).read_text().splitlines()[0])
    assert sorted(line) == ["body", "hash", "kind", "prev", "seq"]
    assert len(line["hash"]) == 64
