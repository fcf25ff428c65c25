"""The grammar of specs: every part, every refusal, and parsing undoes printing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assay.data.spec import Spec, parse

TEXT = st.text(min_size=1, max_size=12) | st.text("a#[]:%=&,/.012345DA", min_size=1, max_size=12)
SPECS = st.builds(
    Spec, kind=st.none() | st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{1,6}", fullmatch=True), path=TEXT,
    split=st.none() | TEXT, label=st.none() | TEXT, input=st.none() | TEXT, config=st.none() | TEXT,
    start=st.none() | st.integers(0, 10**6), stop=st.none() | st.integers(0, 10**6))


@given(SPECS)
@example(Spec(None, "ab:c[1:2]#d"))
@example(Spec("npz", "100%23%.npz", "a=b&c", "x]", start=0))
def test_parsing_undoes_printing(spec: Spec) -> None:
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(("text", "spec"), [
    ("mnist:path/to/idx-folder#test[:1000]", Spec("mnist", "path/to/idx-folder", "test", stop=1000)),
    ("idx:folder#train[100:200]", Spec("idx", "folder", "train", start=100, stop=200)),
    ("file.npz#test", Spec(None, "file.npz", "test")),
    ("images-folder/", Spec(None, "images-folder/")),
    ("data.csv#label=target[:50]", Spec(None, "data.csv", label="target", stop=50)),
    ("hf:org/name@revision#test[:100]", Spec("hf", "org/name@revision", "test", stop=100)),
    ("hf:org/name#config=small&test&label=fine&input=img", Spec("hf", "org/name", "test", "fine", "img", "small")),
    ("npy:cifar_X.npy,cifar_y.npy", Spec("npy", "cifar_X.npy,cifar_y.npy")),
    (r"C:\data\x.npz#test", Spec(None, r"C:\data\x.npz", "test")),
    ("a#b.npz#test", Spec(None, "a#b.npz", "test")),
    ("a%23b%5B1:2]", Spec(None, "a#b[1:2]")),
    ("100%.csv#label=a=b", Spec(None, "100%.csv", label="a=b")),
    ("x[1].npz[:]", Spec(None, "x[1].npz")),
    ("x[3:]", Spec(None, "x", start=3)),
])
def test_each_part_is_read(text: str, spec: Spec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize(("text", "reason"), [
    ("", "names no path"), ("mnist:", "names no path"), ("#test", "names no path"), ("x#", "nothing follows the '#'"),
    ("x[-5:]", "[-5:] is not [start:stop]"), ("x#test[1:2:3]", "[1:2:3] is not"), ("x[a:b]", "[a:b] is not"),
    ("x#test[5]", "'[5]' is not [start:stop]"), ("x#a&b", "two of split: 'a' and 'b'"), ("x#label=", "names nothing"),
    ("x#a&", "names nothing"), ("x#lable=y", "did you mean 'label'?"),
])
def test_what_the_grammar_lacks_is_refused(text: str, reason: str, refuses) -> None:
    with refuses("DAT101", repr(text), reason, "[kind:]path"):
        parse(text)
