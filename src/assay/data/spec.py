"""How a plan names its examples in one line: ``[kind:]path[#split][[start]:[stop]]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from assay.errors import DataError, nearest

# Two letters at least, so that the drive of C:\data is not taken for a kind.
_KIND: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):")
_SLICE: Final = re.compile(r"\[([^\[\]]*:[^\[\]]*)\]\Z")
_RANGE: Final = re.compile(r"([0-9]*):([0-9]*)")
_ESCAPED: Final = re.compile(r"%(?:23|25|26|3[ADad]|5[Bb])")
_OPTIONS: Final = ("label", "input", "config")


@dataclass(frozen=True)
class Spec:
    """One parsed spec; ``parse(str(spec)) == spec`` for every spec that names a path.

    Attributes:
        kind: the loader's name, or ``None`` to infer it from the path.
        path: a file, a folder, two files joined by a comma (``npy``), or ``org/name[@revision]`` (``hf``).
        split: ``test``, ``train``, ...; ``None`` when the spec names none.
        label: the column or key of the labels, when named.
        input: the column(s, comma separated) or key of the inputs, when named.
        config: the configuration of a Hugging Face dataset, when named.
        start, stop: the rows to keep, counted from 0, ``stop`` excluded; ``None`` is the respective end.
    """

    kind: str | None
    path: str
    split: str | None = None
    label: str | None = None
    input: str | None = None
    config: str | None = None
    start: int | None = None
    stop: int | None = None

    @property
    def options(self) -> dict[str, str]:
        """The named parts of the fragment that were given: some of ``label``, ``input``, ``config``."""
        given = ((name, getattr(self, name)) for name in _OPTIONS)
        return {name: value for name, value in given if value is not None}

    def __str__(self) -> str:
        path = _escape(self.path, "%#[")
        if self.kind is not None:
            path = f"{self.kind}:{path}"
        elif _KIND.match(path):
            path = path.replace(":", "%3A", 1)
        parts = [] if self.split is None else [_escape(self.split, "%#[&=")]
        parts += [f"{name}={_escape(value, '%#[&')}" for name, value in self.options.items()]
        text = path + ("#" + "&".join(parts) if parts else "")
        if self.start is None and self.stop is None:
            return text
        ends = ["" if end is None else str(end) for end in (self.start, self.stop)]
        return f"{text}[{':'.join(ends)}]"


def parse(text: str) -> Spec:
    """The parts of a spec ``[kind:]path[#part[&part...]][[start]:[stop]]``.

    A part is a split's name or one of ``label=NAME``, ``input=NAME``, ``config=NAME``. The path runs to the last
    ``#``; inside a path or a part, ``%23 %25 %26 %3A %3D %5B`` stand for ``# % & : = [``. Nothing is looked up.

    Raises:
        DataError: DAT101 when the text does not follow the grammar.
    """
    body, start, stop = _rows(text)
    path, mark, fragment = body.rpartition("#") if "#" in body else (body, "", "")
    kind = _KIND.match(path)
    if kind:
        path = path[kind.end():]
    if not path:
        _refuse(text, "it names no path")
    if mark and not fragment:
        _refuse(text, "nothing follows the '#'")
    named = _parts(text, fragment) if mark else {}
    return Spec(kind[1] if kind else None, _unescape(path), named.get("split"), named.get("label"),
                named.get("input"), named.get("config"), start, stop)


def _rows(text: str) -> tuple[str, int | None, int | None]:
    found = _SLICE.search(text)
    if not found:
        return text, None, None
    ends = _RANGE.fullmatch(found[1])
    if not ends:
        _refuse(text, f"[{found[1]}] is not [start:stop] with whole numbers from 0")
    start, stop = (int(end) if end else None for end in ends.groups())
    return text[: found.start()], start, stop


def _parts(text: str, fragment: str) -> dict[str, str]:
    if "[" in fragment:
        _refuse(text, f"{fragment[fragment.index('['):]!r} is not [start:stop]")
    named: dict[str, str] = {}
    for part in fragment.split("&"):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "split", part
        elif name not in _OPTIONS:
            _refuse(text, f"{name!r} is not one of {', '.join(_OPTIONS)}{nearest(name, _OPTIONS)}")
        if not value:
            _refuse(text, f"{part!r} names nothing")
        if name in named:
            _refuse(text, f"it names two of {name}: {named[name]!r} and {value!r}")
        named[name] = _unescape(value)
    return named


def _escape(text: str, marks: str) -> str:
    return "".join(f"%{ord(mark):02X}" if mark in marks else mark for mark in text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[0][1:], 16)), text)


def _refuse(text: str, reason: str) -> NoReturn:
    raise DataError("DAT101", f"{text!r} is not a data spec: {reason}")
