"""Families of changes that keep what an image shows: rotation and translation, flow, color, contrast and blur."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.threat import Granting, Linf
from assay.numerics.balls import rowwise
from assay.targets.base import Bounds

_WORD = re.compile(r"\s*([a-z]+)\s+([0-9.]+(?:e[+-]?[0-9]+)?)\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Family(Granting):
    """What the families share: parameters in the cube from −1 to 1, of which ``radius`` is allowed."""

    radius: float = 1.0
    kind: ClassVar[str]
    norm: ClassVar[float] = math.inf
    lattice: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not (0 <= self.radius <= 1 and all(value >= 0 for value in self.limits.values())):
            raise ConfigError("THR104", f"limits are at least 0, and a radius is a share of them; got {self!r}")

    def __str__(self) -> str:
        return " ".join(f"{name} {self.radius * value:.6g}" for name, value in self.limits.items() if value)

    @property
    def limits(self) -> Mapping[str, float]:
        """Each parameter's word and its largest value."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "radius"}

    @property
    def ball(self) -> Linf:
        """The cube of allowed parameters."""
        return Linf(self.radius)

    @property
    def box(self) -> Bounds:
        """Where parameters live."""
        return Bounds(-1.0, 1.0)

    def at(self, radius: float) -> Self:
        """The same family with another share of its limits."""
        return replace(self, radius=radius)


@dataclass(frozen=True, kw_only=True)
class Rotation(_Family):
    """Rotation about the center, then translation; what comes in from outside is as dark as the box allows.

    Source: Engstrom et al., ICML 2019, §2. For images ``[rows, channels, height, width]``.

    Attributes:
        rotation: degrees either way.
        translation: pixels either way, along each axis.
        radius: how much of these limits is allowed.
    """

    rotation: float = 30.0
    translation: float = 3.0
    kind: ClassVar[str] = "rotation"

    def start(self, x: Tensor) -> Tensor:
        """No rotation, no translation: ``[rows, 3]``."""
        return x.new_zeros(_images(x, self), 3)

    def apply(self, x: Tensor, parameters: Tensor, bounds: Bounds) -> Tensor:
        """The images rotated and moved by bilinear interpolation."""
        height, width = x.shape[2:]
        angle = parameters[:, 0] * (self.rotation * math.pi / 180)
        shift = parameters[:, 1:] * self.translation * 2
        cos, sin = angle.cos(), angle.sin()
        # In pixels the rotation is a rotation; in grid units, whose axes differ in length, it is this.
        theta = torch.stack([
            torch.stack([cos, -sin * height / width, -shift[:, 0] / width], 1),
            torch.stack([sin * width / height, cos, -shift[:, 1] / height], 1),
        ], 1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        moved = F.grid_sample(x - bounds.lower, grid, align_corners=False) + bounds.lower
        return _unmoved(x, moved.clamp(*bounds), parameters)


@dataclass(frozen=True, kw_only=True)
class Flow(_Family):
    """Every pixel is fetched from a place of its own, nearby.

    Source: Xiao et al., ICLR 2018 (stAdv), Eq. 1. For images ``[rows, channels, height, width]``.

    Attributes:
        flow: pixels either way, along each axis.
        radius: how much of this limit is allowed.
    """

    flow: float = 1.0
    kind: ClassVar[str] = "flow"

    def start(self, x: Tensor) -> Tensor:
        """No flow: ``[rows, 2, height, width]``."""
        return x.new_zeros(_images(x, self), 2, *x.shape[2:])

    def apply(self, x: Tensor, parameters: Tensor, bounds: Bounds) -> Tensor:
        """The images with every pixel fetched from where its flow says."""
        height, width = x.shape[2:]
        eye = torch.eye(2, 3, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
        size = torch.tensor([2 / width, 2 / height], dtype=x.dtype, device=x.device)
        fetched = parameters.permute(0, 2, 3, 1) * (self.flow * size)
        grid = F.affine_grid(eye, list(x.shape), align_corners=False) + fetched
        moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return _unmoved(x, moved.clamp(*bounds), parameters)


@dataclass(frozen=True, kw_only=True)
class Semantic(_Family):
    """Hue, saturation, contrast, brightness and blur, together.

    Source: Hosseini & Poovendran, CVPR workshops 2018 (hue, saturation); Mohapatra et al., CVPR 2020 (semantic
    perturbations). For images ``[rows, channels, height, width]``; hue and saturation leave gray ones as they are.

    Attributes:
        hue: a share of the color circle, either way.
        saturation, contrast: relative change, either way.
        brightness: a share of the box, either way.
        blur: pixels of standard deviation of a Gaussian.
        radius: how much of these limits is allowed.
    """

    hue: float = 0.1
    saturation: float = 0.3
    contrast: float = 0.3
    brightness: float = 0.1
    blur: float = 1.0
    kind: ClassVar[str] = "semantic"

    def start(self, x: Tensor) -> Tensor:
        """No change: ``[rows, 5]``."""
        return x.new_zeros(_images(x, self), 5)

    def apply(self, x: Tensor, parameters: Tensor, bounds: Bounds) -> Tensor:
        """The images in other colors, with other contrast and brightness, and blurred."""
        unit = (x - bounds.lower) / bounds.width
        changed = _colored(unit, parameters[:, 0] * (2 * math.pi * self.hue), 1 + self.saturation * parameters[:, 1])
        mean = changed.flatten(1).mean(1)
        changed = rowwise(mean, x) + (changed - rowwise(mean, x)) * rowwise(1 + self.contrast * parameters[:, 2], x)
        changed = changed + rowwise(self.brightness * parameters[:, 3], x)
        changed = _blurred(changed, self.blur * parameters[:, 4].clamp_min(0), max(1, math.ceil(3 * self.blur)))
        return _unmoved(x, (bounds.lower + bounds.width * changed).clamp(*bounds), parameters)


FAMILIES: dict[str, type[Rotation] | type[Flow] | type[Semantic]] = {
    "rotation": Rotation, "translation": Rotation, "flow": Flow, "hue": Semantic, "saturation": Semantic,
    "contrast": Semantic, "brightness": Semantic, "blur": Semantic,
}
"""The family that each word belongs to."""


def parse_family(text: str, *, where: str = "") -> Rotation | Flow | Semantic | None:
    """A family from its words: ``"rotation 30 translation 3"``, ``"flow 1.5"``, ``"hue 0.1 contrast 0.3"``.

    ``None`` where the words are of no family; THR104 where they are of several, or cannot be read.
    """
    said = [(m[1].lower(), float(m[2])) for m in _WORD.finditer(text)]
    if not said or said[0][0] not in FAMILIES:
        return None
    family, words = FAMILIES[said[0][0]], dict(said)
    whole = "".join(m[0] for m in _WORD.finditer(text)) == text and len(words) == len(said)
    if not whole or any(FAMILIES.get(word) is not family for word in words):
        raise ConfigError("THR104", f"cannot read the budget {text!r}", where=where)
    names = [f.name for f in fields(family) if f.name != "radius"]
    return family(**{name: words.get(name, 0.0) for name in names})


def _images(x: Tensor, family: object) -> int:
    """How many rows there are. Raises ``ConfigError`` (THR105) where they are no images."""
    if x.dim() != 4:
        raise ConfigError("THR105", f"{type(family).__name__} changes images [rows, channels, height, width]; "
                                    f"these inputs have shape {tuple(x.shape)}")
    return len(x)


def _unmoved(x: Tensor, moved: Tensor, parameters: Tensor) -> Tensor:
    """``moved``, but ``x`` to the bit where the parameters are zero; the gradients are those of ``moved``."""
    zero = rowwise((parameters == 0).flatten(1).all(1), x)
    return torch.where(zero, x + (moved - moved.detach()), moved)


# RGB to luma and two axes of color (YIQ), where a change of hue is a rotation and one of saturation a stretch.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def _colored(unit: Tensor, angle: Tensor, stretch: Tensor) -> Tensor:
    if unit.shape[1] != 3:
        return unit
    there = torch.tensor(_YIQ, dtype=unit.dtype, device=unit.device)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = stretch * angle.cos(), stretch * angle.sin()
    turn = torch.stack([torch.stack([one, zero, zero], 1), torch.stack([zero, cos, -sin], 1),
                        torch.stack([zero, sin, cos], 1)], 1)
    return torch.einsum("nij,njhw->nihw", torch.linalg.inv(there) @ turn @ there, unit)


def _blurred(image: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Each row under its own Gaussian, edges repeated."""
    places = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    weight = torch.exp(-0.5 * places**2 / (sigma[:, None] ** 2 + 1e-4))
    weight = weight / weight.sum(1, keepdim=True)
    rows, channels, height, width = image.shape
    flat = image.reshape(1, rows * channels, height, width)
    each = weight.repeat_interleave(channels, 0)[:, None]
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), each[..., None], groups=rows * channels)
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), each[:, :, None], groups=rows * channels)
    return flat.reshape(image.shape)
