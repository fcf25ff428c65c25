"""What the pages say is so: snippets run, links resolve, references are fresh, every code and verb has its entry."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

import assay
from assay import catalog, evasion, privacy
from assay.audits.plan import Plan
from assay.cli import group
from assay.errors import findings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
WRITTEN = [page for page in PAGES if page.parent.name not in ("reference", "findings")]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RESERVED: frozenset[str] = frozenset()
"""Codes that have a page and are not raised yet."""
QUICK = {"docs/how-to/gate-ci.md", "docs/how-to/add-an-attack.md"}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """The info string after the language, and the text, of every fenced block in this language."""
    text = page.read_text(encoding="utf-8")
    return [(info.strip(), body) for found, info, body in FENCE.findall(text) if found == language]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def snippets(page: Path) -> bool:
    return any(info != "server" for info, _ in blocks(page, "python"))


# --- references ------------------------------------------------------------------------------------------------------


def test_generated_pages_are_fresh():
    loader = SourceFileLoader("assay_scripts_docs", str(ROOT / "scripts" / "docs"))
    script = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(script)
    assert script.stale_pages() == []


def test_every_verb_is_documented():
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    for name, command in group.commands.items():
        assert f"\n## assay {name}\n" in text
        section = text.split(f"\n## assay {name}\n")[1].split("\n## ")[0]
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert option in section, f"assay {name} {option}"


def test_verbs_that_pages_use_exist():
    for page in WRITTEN:
        for verb in re.findall(r"`?\bassay ((?:--)?[a-z]+)\b(?=[^\n]*`)", page.read_text(encoding="utf-8")):
            assert verb in group.commands, f"{named(page)}: assay {verb}"
        for _, body in blocks(page, "sh"):
            for verb in re.findall(r"^assay (\S+)", body, re.MULTILINE):
                assert verb in group.commands, f"{named(page)}: assay {verb}"


def test_codes_in_the_source_and_in_the_findings_are_the_same():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    mentioned = set(re.findall(r"\b[A-Z]{3}\d{3}\b", source))
    raised = set(re.findall(r"""["']([A-Z]{3}\d{3})\b""", source))
    assert mentioned <= set(findings()), "codes without a page"
    assert set(findings()) - raised == RESERVED, "codes that nothing raises"


def test_codes_that_pages_name_exist():
    for page in PAGES:
        for code in re.findall(r"\b[A-Z]{3}\d{3}\b", page.read_text(encoding="utf-8")):
            assert code in findings(), f"{named(page)}: {code}"


@pytest.mark.parametrize("code", sorted(findings()))
def test_a_finding_is_said_in_full(code):
    finding = findings()[code]
    for part in (finding.title, finding.why, finding.fix):
        assert part == part.strip()
        assert part
    assert not finding.title.endswith(".")


# --- the public surface ----------------------------------------------------------------------------------------------


def test_the_names_at_the_top_are_those_the_readme_lists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("The names at the top are"))
    assert set(re.findall(r"`assay\.(\w+)`", line)) == set(assay.__all__)
    for name in assay.__all__:
        assert getattr(assay, name) is not None


def test_report_stays_a_function_whatever_was_imported():
    import assay.reports.words
    from assay import api

    assert assay.report is api.report
    assert "assay.reports.words" in sys.modules


def methods():
    return [card for card in catalog.CARDS if card.kind != "game"]


def test_every_public_method_has_a_row_and_every_row_a_public_name():
    words = {"EvasionGame", "Linf", "L2", "L1", "L0", "Rotation", "Flow", "Semantic", "Records", "Schema"}
    public = set(evasion.__all__) - words
    assert public == {catalog.load(card).__name__ for card in methods() if card.wing == "evasion"}


VERBS = ("infer", "poison", "leak", "protect", "train", "clean", "certify", "scan")
"""What makes a public class of the privacy wing a method."""


def test_every_public_method_of_privacy_has_a_row_and_every_row_a_public_name():
    named = {name: getattr(privacy, name) for name in privacy.__all__}
    rows = {catalog.load(card).__name__ for card in methods() if card.wing == "privacy"}
    assert rows <= set(named)
    verbs = {name for name, value in named.items() if isinstance(value, type) and not _protocol(value)
             and any(callable(value.__dict__.get(verb)) for verb in VERBS)}
    assert verbs - rows == {"Pipeline", "Steps"}, "training laid open, and what one step of it released"


def _protocol(value: type) -> bool:
    return bool(getattr(value, "_is_protocol", False))


@pytest.mark.parametrize("card", methods(), ids=lambda card: card.name)
def test_docstrings_follow_the_fixed_order(card):
    text = catalog.load(card).__doc__
    last = r"\*Assumes\*:" if card.kind == "proof" else r"\*Blind spots\*:"
    at = [re.search(rf"^\s*{part}", text, re.MULTILINE) for part in
          (r"\*Paper\*:", r"\*Needs\*:", r"\*Cost\*:", last, r"\*Held to\*:", r"\*Measured\*:", "Example:")]
    assert all(at), card.name
    starts = [found.start() for found in at]
    assert starts == sorted(starts)
    assert text.strip().splitlines()[0].rstrip().endswith((".", ":")) or "\n\n" in text


@pytest.mark.parametrize("card", methods(), ids=lambda card: card.name)
def test_every_method_is_held_to_a_figure_that_is_shown_somewhere(card):
    text = " ".join(catalog.load(card).__doc__.split())
    held, _, rest = text.partition("*Held to*:")[2].partition("*Measured*:")
    measured = rest.partition("Example:")[0]
    assert re.search(r"\d", re.sub(r"`[^`]*`", "", held + measured)), f"{card.name}: no figure in {held + measured!r}"
    assert held.strip(), f"{card.name} is held to nothing"
    shown = re.findall(r"`((?:tests|benchmarks|docs)/[\w/.-]+)`", held + measured)
    assert shown, f"{card.name}: {measured!r} does not say where it is shown"
    assert all((ROOT / path).exists() for path in shown)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{named(page)}: {link}"
        assert not anchor or anchor in slugs(aim), f"{named(page)}: {link}"


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_plans_on_a_page_parse(page):
    for info, body in blocks(page, "toml"):
        if info != "fragment":
            Plan.parse(body, name=named(page))


@pytest.mark.parametrize("page", [
    pytest.param(page, marks=() if named(page) in QUICK else pytest.mark.slow, id=named(page))
    for page in WRITTEN if snippets(page)
])
def test_snippets_run(page, tmp_path, monkeypatch, capsys):
    """A page's blocks in their order, in an empty folder: files are written, Python and commands run."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for language, rest, body in FENCE.findall(page.read_text(encoding="utf-8")):
        key, _, value = rest.strip().partition("=")
        if key == "file":
            (tmp_path / value).write_text(body, encoding="utf-8")
        elif language == "python" and key != "server":
            exec(compile(body, named(page), "exec", dont_inherit=True), names)
        elif language == "sh" and key == "run":
            for line in body.splitlines():
                words = shlex.split(line, comments=True)
                assert words[0] == "assay"
                assert (group.main(words[1:], standalone_mode=False) or 0) == int(value), line


def test_nothing_names_the_machine_it_was_made_on():
    machine = re.compile(r"(?<![\w.:])/(?:wo" r"rk|ro" r"ot|tmp/w)(?:/|\b)")
    hosts = re.compile(r"py" r"pi\.|python" r"hosted|artifac" r"tory|dev" r"pi\b", re.IGNORECASE)
    files = [*PAGES, *(p for folder in ("src", "scripts", "tests", ".ci", "benchmarks")
                       for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for pattern in (machine, hosts):
            found = pattern.search(text)
            assert not found, f"{named(path)}: {found and found[0]}"
