"""The terminal page: compact, true to the numbers, readable in ASCII, deaf to escape sequences."""

from __future__ import annotations

from io import BytesIO, TextIOWrapper

import pytest
from rich.console import Console
from sample_audit import Audit, played, proved

from assay.reports import Report, to_terminal
from assay.reports.bracket import bracket
from assay.reports.terminal import bar


def shown(report: Report, *, width: int = 100, encoding: str = "utf-8") -> str:
    stream = TextIOWrapper(BytesIO(), encoding=encoding)
    Console(file=stream, width=width, legacy_windows=False).print(to_terminal(report, width))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def test_a_typical_audit_fits_on_a_screen(typical: Audit) -> None:
    text = shown(typical.report())
    lines = text.splitlines()
    assert lines[0] == "1 of 2 claims is broken: ROB-1."
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for part in ("ROB-1", "≥ 0.45", "not broken by APGD(steps=100), not proven", "at least 31.2%, at most 38.0%",
                 "DBT109", "123 forwards, 118 backwards, 123 queries a point; 14 s", "Not covered: poisoning"):
        assert part in text


def test_the_bar_has_the_bracket_s_proportions() -> None:
    found = bracket("robust accuracy", [played(), proved()])
    text = bar(found, 100).plain
    assert [text.count(c) for c in "█░▓·"] == [31, 7, 57, 5]
    assert len(bar(found, 10).plain) == 10
    assert set(bar(found, 10, ascii=True).plain) == set("#?x.")


def test_no_part_is_too_short_to_be_seen() -> None:
    found = bracket("robust accuracy", [played(counts={0.1: 157}), proved()])
    assert [bar(found, 20).plain.count(c) for c in "█░▓·"] == [6, 1, 12, 1]


@pytest.mark.parametrize("name", ["typical", "incomplete", "contradictory", "hostile"])
def test_ascii_where_there_is_nothing_else(name: str, request: pytest.FixtureRequest) -> None:
    text = shown(request.getfixturevalue(name).report(), width=80, encoding="ascii")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 82


def test_what_did_not_run_and_what_contradicts_is_loud(incomplete: Audit, contradictory: Audit) -> None:
    assert "NOT RUN  SquareAttack(queries=1000): THR105" in shown(incomplete.report())
    text = shown(contradictory.report())
    assert "CONTRADICTION" in text.splitlines()[0]


def test_escape_sequences_and_markup_do_nothing(hostile: Audit) -> None:
    text = shown(hostile.report())
    assert "\x1b" not in text
    assert "<script>" in text
