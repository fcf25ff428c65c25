"""The inputs that broke a model, beside the originals: as pictures, or as the features that moved most."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assay.reports import words

_SIDE = 96
"""Pixels that a picture's longer side has at least, after enlarging by whole factors."""
_FEATURES = 5
"""Rows of the table of features that moved most."""


@dataclass(frozen=True, eq=False)
class WorstCases:
    """Inputs of one evidence to show, worst first.

    Attributes:
        originals, adversarial: ``[k, …]`` in the target's bounds; images are ``[k, channels, height, width]``.
        labels: the true classes, ``[k]``: numbers or names.
        predicted: what the target says of ``adversarial``, ``[k]``.
        bounds: the lowest and the highest value of an input.
        points: which point of the data each one is, ``[k]``.
        features: names of the inputs' values, for inputs that are no images.
    """

    originals: NDArray[np.generic]
    adversarial: NDArray[np.generic]
    labels: Sequence[int | str]
    predicted: Sequence[int | str] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    points: Sequence[int] | None = None
    features: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.originals.shape != self.adversarial.shape or len(self.originals) != len(self.labels):
            shapes = f"{self.originals.shape} originals, {self.adversarial.shape} adversarial"
            raise ValueError(f"{shapes} and {len(self.labels)} labels do not match")
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds must be an interval; got {self.bounds}")

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def pictures(self) -> bool:
        """Whether the inputs are gray or color images."""
        return self.originals.ndim == 4 and self.originals.shape[1] in (1, 3) and min(self.originals.shape[2:]) > 1

    @property
    def width(self) -> float:
        """From the lowest to the highest value."""
        return self.bounds[1] - self.bounds[0]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One feature that moved."""

    feature: str
    before: str
    after: str
    by: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One case, ready to be placed in a page: three pictures as ``data:`` addresses, or a table."""

    caption: str
    size: tuple[int, int] = (0, 0)
    original: str = ""
    adversarial: str = ""
    difference: str = ""
    changes: tuple[Change, ...] = ()


def amplification(cases: WorstCases, most: int) -> float:
    """By how much to multiply perturbations so that the largest one shown is at full contrast; a round number."""
    delta = np.abs(_floats(cases.adversarial[:most]) - _floats(cases.originals[:most]))
    largest = float(delta.max(initial=0.0))
    if not 0 < largest < np.inf:
        return 1.0
    exact = cases.width / 2 / largest
    power: float = 10.0 ** np.floor(np.log10(exact))
    return max(1.0, max(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if step * power <= exact * (1 + 1e-9)))


def show(cases: WorstCases, most: int = 6) -> tuple[Shown, ...]:
    """The first ``most`` cases."""
    scale = amplification(cases, most)
    return tuple(
        _pictured(cases, i, scale) if cases.pictures else Shown(caption=_caption(cases, i), changes=_changes(cases, i))
        for i in range(min(most, len(cases)))
    )


def _floats(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _caption(cases: WorstCases, i: int) -> str:
    said = f"{cases.labels[i]} → {cases.predicted[i]}" if cases.predicted is not None else f"{cases.labels[i]}"
    point = f"point {cases.points[i]}: " if cases.points is not None else ""
    return words.clean(f"{point}{said}")


def _pictured(cases: WorstCases, i: int, scale: float) -> Shown:
    low, width = cases.bounds[0], cases.width
    before, after = _floats(cases.originals[i]), _floats(cases.adversarial[i])
    height, breadth = before.shape[1:]
    factor = max(1, -(-_SIDE // max(height, breadth)))
    return Shown(
        caption=_caption(cases, i),
        size=(breadth * factor, height * factor),
        original=_png((before - low) / width, factor),
        adversarial=_png((after - low) / width, factor),
        difference=_png(0.5 + (after - before) * scale / width, factor),
    )


def _png(image: NDArray[np.float64], factor: int) -> str:
    """Channels first, 0 to 1, as a ``data:`` address of a PNG enlarged without smoothing."""
    pixels = np.rint(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _changes(cases: WorstCases, i: int) -> tuple[Change, ...]:
    before, after = _floats(cases.originals[i]), _floats(cases.adversarial[i])
    delta = (after - before).ravel()
    order = np.argsort(-np.abs(delta), kind="stable")[:_FEATURES]
    return tuple(
        Change(
            feature=_feature(cases, int(at)),
            before=f"{before.ravel()[at]:.4g}", after=f"{after.ravel()[at]:.4g}", by=f"{delta[at]:+.4g}",
        )
        for at in order
        if delta[at]
    )


def _feature(cases: WorstCases, at: int) -> str:
    if cases.features is not None and at < len(cases.features):
        return words.clean(cases.features[at])
    where = np.unravel_index(at, cases.originals.shape[1:]) if cases.originals.ndim > 1 else (at,)
    return f"[{', '.join(str(int(k)) for k in where)}]"
