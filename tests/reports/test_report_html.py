"""The HTML file: self-contained, escaped, geometrically true, and loud where it must be."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sample_audit import MAIN, Audit, N, audit, cases, lost, played, proved

from assay.evidence.bound import Bound
from assay.evidence.record import Evidence
from assay.reports import WorstCases, build, to_html
from assay.reports.bracket import bracket
from assay.reports.cases import amplification, show
from assay.reports.drawing import draw_bracket
from assay.reports.html import legend


class Page(HTMLParser):
    """The tags of a page, checked to be balanced, and its visible text."""

    VOID = frozenset({"meta", "img", "br", "rect", "line", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, css: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and set(css.split()) <= set((a.get("class") or "").split())]


@pytest.fixture
def page(typical: Audit) -> Page:
    return Page(to_html(typical.report()))


def test_it_opens_with_the_verdict_then_claims_then_bands(page: Page) -> None:
    text = page.text.partition("1 of 2 claims is broken: ROB-1. ")[2]  # past the title
    order = ["1 of 2 claims is broken: ROB-1.", "Claims", "What was covered, and what was not", "The adversary wants",
             "proved 31.2%", "Worst cases", "Doubts DBT109", "Cost", "Replay", "At most and at least are one-sided"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert [a["class"] for a in page.all("span", "badge")] == ["badge broken", "badge standing"]
    assert "standing: not broken by APGD(steps=100), not proven" in text
    assert "safe" not in text.replace("does not make a model safe", "")


def test_it_needs_no_network_and_no_script(typical: Audit) -> None:
    html = to_html(typical.report())
    page = Page(html)
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*)\)", html)) == {"#hatch", "#clash"}
    assert all((a.get("src") or "data:").startswith("data:image/png;base64,") for a in page.all("img"))
    assert not [a for _, a in page.tags if "href" in a or any(name.startswith("on") for name in a)]
    assert "prefers-color-scheme: dark" in html
    assert "size: A4" in html


def test_the_bar_lies_where_the_numbers_are(page: Page) -> None:
    bar = [a for a in page.all("rect", "part") if a["height"] == "30"]
    assert [(a["class"], a["x"], a["width"]) for a in bar] == [
        ("part proved", "0.000%", "31.200%"), ("part unknown", "31.200%", "6.800%"),
        ("part broken", "38.000%", "56.600%"), ("part wrong", "94.600%", "5.400%"),
    ]


def test_whiskers_reach_from_the_fact_to_what_it_implies() -> None:
    found = bracket("robust accuracy", [played(), proved()])
    lines = [line for line in draw_bracket(found).lines if line.kind.startswith("whisker") and line.y1 == line.y2]
    assert found.upper
    assert found.lower
    assert [(line.x1, line.x2) for line in lines] == [
        pytest.approx((38.0, 100 * found.upper.bound.value)), pytest.approx((31.2, 100 * found.lower.bound.value))]
    assert lines[0].x2 > 38.0
    assert lines[1].x2 < 31.2


def test_labels_stay_inside_and_on_rows_of_their_own() -> None:
    near = bracket("robust accuracy", [played(counts={MAIN: 470}), proved(counts={MAIN: 468})])
    labels = [label for label in draw_bracket(near).labels if label.kind != "axis"]
    assert [label.text for label in labels] == ["clean 94.6%", "at most 94.0%", "at least 93.6%"]
    assert {label.anchor for label in labels} == {"end"}
    assert len({label.y for label in labels}) == 3


def test_the_curve_is_drawn_with_both_sides(page: Page) -> None:
    assert len(page.all("circle", "dot broken")) == len(page.all("circle", "dot proved")) == 4
    reach = 0.15 * 1.08
    dot = page.all("circle", "dot broken")[2]
    assert dot["cx"] == f"{100 * 0.1 / reach:.3f}%"
    assert dot["cy"] == f"{100 * (1 - 190 / N):.3f}%"
    assert "at 0.1 at least 31.2% and at most 38.0%" in str([a.get("aria-label") for a in page.all("svg", "curve")])


def test_what_evidence_says_is_escaped(hostile: Audit) -> None:
    html = to_html(hostile.report())
    page = Page(html)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "\x1b" not in html
    assert not page.all("img")
    assert "XYZ999 A finding that this version does not know" in page.text


def test_a_trial_that_could_not_run_is_red_and_says_why(incomplete: Audit) -> None:
    page = Page(to_html(incomplete.report()))
    assert len(page.all("div", "lost-trial")) == 1
    assert "NOT RUN: SquareAttack(queries=1000)" in page.text
    assert "THR105 SquareAttack(queries=1000) does not play under l0 5" in page.text
    assert "1 trial, 1 NOT RUN" in page.text
    assert page.all("li", "lost")
    assert not page.all("li", "covered")
    only = Page(to_html(build([lost()], [])))
    assert "Nothing ran: of this threat nothing is known." in only.text
    assert not only.all("svg", "bracket")


def test_a_contradiction_comes_before_everything_else(contradictory: Audit) -> None:
    html = to_html(contradictory.report())
    page = Page(html)
    assert page.all("aside", "alarm")
    assert html.index('<aside class="alarm"') < html.index("<header")
    assert page.all("rect", "part contradiction")
    assert page.all("circle", "dot contradiction")


def test_doubts_cost_replay_and_hashes_are_there(typical: Audit) -> None:
    page = Page(to_html(typical.report()))
    evidence = typical.evidence[0]
    for part in ("DBT109 The test set is too small for the claim", "190 of 500 points are few for a claim of 0.45.",
                 "123 61,540 in total", "118 59,020 in total", "14 s", f"assay replay {evidence.id}", "2025-03-14",
                 evidence.trial, evidence.provenance["data"], evidence.artefacts["points"].sha256):
        assert part in page.text


def test_pictures_show_the_inputs_and_the_difference_at_its_stated_scale() -> None:
    few = cases(8)
    scale = amplification(few, 6)
    assert scale == 4
    shown = show(few)
    assert len(shown) == 6
    assert shown[0].caption == "point 10: 0 → 3"
    pixels = [_pixels(a) for a in (shown[0].original, shown[0].adversarial, shown[0].difference)]
    assert all(p.shape == (96, 96) for p in pixels)
    assert np.array_equal(pixels[0][::12, ::12], np.rint(few.originals[0, 0] * 255).astype(np.uint8))
    delta = few.adversarial[0, 0].astype(float) - few.originals[0, 0]
    assert np.allclose(pixels[2][::12, ::12], np.rint((0.5 + scale * delta) * 255), atol=1)
    html = to_html(audit(played(), claims={}).report())
    assert "difference ×4; gray is no change" in html
    assert html.count("<img ") == 18


def test_color_images_and_other_bounds() -> None:
    x = np.full((1, 3, 4, 4), -1.0)
    z = x.copy()
    z[0, 0] = 1.0
    (shown,) = show(WorstCases(originals=x, adversarial=z, labels=["cat"], bounds=(-1.0, 1.0)))
    assert _pixels(shown.adversarial)[0, 0].tolist() == [255, 0, 0]
    assert amplification(WorstCases(originals=x, adversarial=x, labels=[0]), 6) == 1.0


def test_inputs_that_are_no_images_become_a_table_of_what_moved_most() -> None:
    x = np.zeros((1, 4))
    z = np.array([[0.0, -0.5, 0.25, 0.0]])
    few = WorstCases(originals=x, adversarial=z, labels=["good"], predicted=["bad"], features=["age", "income", "debt", "y"])
    (shown,) = show(few)
    assert [(c.feature, c.by) for c in shown.changes] == [("income", "-0.5"), ("debt", "+0.25")]
    evidence = played()
    text = Page(to_html(build([evidence], [], examples={evidence.id: few}))).text
    assert "income 0 -0.5 -0.5" in text
    assert "good → bad" in text


def test_examples_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        WorstCases(originals=np.zeros((2, 3)), adversarial=np.zeros((1, 3)), labels=[0, 1])


def test_the_same_evidence_gives_the_same_bytes(typical: Audit) -> None:
    assert to_html(typical.report()) == to_html(replace(typical).report())


def _pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_headings_step_down_one_level_at_a_time(typical: Audit, incomplete: Audit) -> None:
    for audit_ in (typical, incomplete):
        levels = [int(tag[1]) for tag, _ in Page(to_html(audit_.report())).tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels))


def test_the_legend_of_an_epsilon_names_the_ends_not_lengths() -> None:
    def one(kind: str, side: str, value: float) -> Evidence:
        bound = Bound(quantity="epsilon@delta=1e-5", side=side, estimate=value, value=value, confidence=0.95, n=9, method="m")
        return replace(played(), kind=kind, bounds=(bound,))

    rows = legend(bracket("epsilon@delta=1e-5", [one("played", "at least", 1.5), one("proved", "at most", 4.0)]))
    assert [(row.name, row.share) for row in rows] == [
        ("broken", "at least 1.5"), ("unknown", "2.5"), ("proved", "at most 4")]
