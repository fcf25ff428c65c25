"""Feature squeezing: an input whose scores change when it is coarsened is suspect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.errors import ConfigError
from assay.evasion.defenses.detection import Guard, Judged, prepared
from assay.targets.access import Access
from assay.targets.base import Bounds, Target
from assay.targets.defended import Parts
from assay.targets.differentiable import Network


@dataclass(frozen=True, kw_only=True)
class FeatureSqueezing:
    """Refuses inputs whose softmax moves when they are reduced in bit depth, median filtered, or denoised.

    *Paper*: Xu, Evans & Qi, NDSS 2018; the default is their joint detector for CIFAR-10, but that non-local means look
    at all channels at once, where OpenCV takes lightness and colors apart. He, Wei, Chen, Carlini & Song, WOOT 2017,
    break it.
    *Needs*: scores, and natural inputs that set the threshold; gradients for an attack on it.
    *Cost*: 1 forward for the input and 1 for each squeezer (4 in all for images, 2 for other inputs, which are rounded
    alone).
    *Blind spots*: inputs that are wrong with high confidence: they withstand squeezing as natural ones do. Attacks
    that know it.
    *Held to*: SciPy's median filter, and 95 % of CIFAR-10 images lost to an attack that knows it, at Linf 8/255 and 5 %
    false positives.
    *Measured*: of 300 images PGD-40 that does not know it leaves 76.7 %, PGD-200 on the joint margin 0.7 %, feature
    collision 0 % (`benchmarks/detectors.py`).

    Rounding and the weights of the means have no gradient of use; attacks that know the detector go through the
    identity there (BPDA), and through the median as it is.

    Example:
        >>> from assay import demo, evasion
        >>> net, (x, y) = demo.target(), demo.digits("test[:100]")
        >>> squeezing = evasion.FeatureSqueezing(bits=1, median=0, means=(0, 3, 2.0))
        >>> safe = squeezing.fit(net, *demo.digits("train")).protect(net)
        >>> game = evasion.EvasionGame(x, y, threat=evasion.Linf(0.3).threat(knows={"model"}))
        >>> found = game.play(evasion.PGD(steps=20), safe, seed=0)
        >>> found["clean accuracy"].estimate > 0.8, found["robust accuracy"].estimate > 0.3
        (True, True)

    Attributes:
        bits: to which values are rounded; 0 leaves rounding out.
        median: height and width of the median filter; below 2 it is left out.
        means: of non-local means: width of the window searched (0 leaves them out), width of a patch, and strength in
            levels of 255.
        false_positives: the share of natural inputs that may be refused.
    """

    bits: int = 5
    median: int = 2
    means: tuple[int, int, float] = (13, 3, 2.0)
    false_positives: float = 0.05

    def __post_init__(self) -> None:
        search, patch, strength = self.means
        odd = not search or (search % 2 == 1 and patch % 2 == 1 and patch >= 1)
        if not (0 <= self.bits <= 16 and self.median >= 0 and search >= 0 and odd and strength > 0
                and 0 <= self.false_positives < 1 and (self.bits or self.median > 1 or search)):
            raise ConfigError("PRF142", f"{self} cannot be used")

    def fit(self, target: Target, x: Tensor, y: Tensor, *, seed: int = 0) -> Guard:
        """The detector for ``target``: all natural inputs ``x [n, …]`` set the threshold; ``y`` is not looked at."""
        x, _ = prepared(target, x, y, Access.SCORES)
        return Guard.calibrated(_Squeezing(self, target.bounds, x.dim() == 4), target, x, self.false_positives, seed)


@dataclass(frozen=True, eq=False)
class _Squeezing:
    """A fitted :class:`FeatureSqueezing`.

    Attributes:
        images: whether inputs are ``[rows, channels, height, width]``: the filters are for images.
    """

    settings: FeatureSqueezing
    bounds: Bounds
    images: bool

    @property
    def name(self) -> str:
        """How evidence calls it."""
        return "feature squeezing"

    @property
    def parts(self) -> Parts:
        """Rounding has no gradient, and weights of means none that is worth its price."""
        return Parts(surrogate=True)

    @property
    def squeezers(self) -> tuple[Callable[[Tensor, bool], Tensor], ...]:
        """What is done to an input."""
        s = self.settings
        filters = ((self._filtered, s.median > 1), (self._averaged, bool(s.means[0])))
        return ((self._rounded,) if s.bits else ()) + tuple(f for f, used in filters if used and self.images)

    def looks(self, *, climbing: bool) -> int:
        """The input and what each squeezer makes of it."""
        return 1 + len(self.squeezers)

    def judge(self, network: Network, x: Tensor, *, climbing: bool, informed: bool) -> Judged:
        """The largest L1 distance between the softmax of an input and that of a squeezed one (Xu et al., §5.2)."""
        views = [x, *(squeeze(x, informed) for squeeze in self.squeezers)]
        scores = network(torch.cat(views)).reshape(len(views), len(x), -1)
        soft = scores.softmax(2)
        return Judged(scores[0], (soft[1:] - soft[:1]).abs().sum(2).amax(0))

    def state(self) -> dict[str, object]:
        """The settings alone."""
        return {**asdict(self.settings), "bounds": tuple(self.bounds), "images": self.images}

    def _rounded(self, x: Tensor, informed: bool) -> Tensor:
        squeezed = reduced(x, self.settings.bits, self.bounds)
        return _as_identity(x, squeezed) if informed else squeezed

    def _filtered(self, x: Tensor, informed: bool) -> Tensor:
        return median_filtered(x, self.settings.median)

    def _averaged(self, x: Tensor, informed: bool) -> Tensor:
        search, patch, strength = self.settings.means
        with torch.no_grad():
            squeezed = nonlocal_means(x, search, patch, strength / 255 * self.bounds.width)
        return _as_identity(x, squeezed) if informed else squeezed


def _as_identity(x: Tensor, squeezed: Tensor) -> Tensor:
    """``squeezed`` on the way forward, the identity on the way back (BPDA: Athalye et al., ICML 2018)."""
    return x + (squeezed - x).detach()


def reduced(x: Tensor, bits: int, bounds: Bounds) -> Tensor:
    """Rounded to ``2 ** bits`` levels of the box (Xu et al., §3.1)."""
    levels = 2.0**bits - 1
    return ((x - bounds.lower) / bounds.width * levels).round() / levels * bounds.width + bounds.lower


def median_filtered(x: Tensor, size: int) -> Tensor:
    """The median of the ``size × size`` window that ends at each pixel, edges mirrored; of even windows the upper one.

    As ``scipy.ndimage.median_filter``, which the paper uses. Gradients go to the pixel that is the median.
    """
    before, after = size // 2, size - 1 - size // 2
    height, width = x.shape[-2:]
    rows, columns = (_mirrored(length, before, after, x.device) for length in (height, width))
    wide = x[..., rows, :][..., columns]
    shifts = [wide[..., i : i + height, j : j + width] for i in range(size) for j in range(size)]
    ordered: Tensor = torch.stack(shifts).sort(0).values
    return ordered[size * size // 2]


def _mirrored(length: int, before: int, after: int, device: torch.device) -> Tensor:
    """Indices of a line of pixels continued by its mirror image, the edge itself repeated."""
    index = torch.arange(-before, length + after, device=device).remainder(2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def nonlocal_means(x: Tensor, search: int, patch: int, strength: float) -> Tensor:
    """Each pixel as the mean of the pixels whose surroundings look alike (Buades, Coll & Morel, CVPR 2005).

    A pixel of the ``search × search`` window has weight ``exp(−d² / strength²)``, with ``d²`` the mean squared
    difference of ``patch × patch`` patches over all channels. The paper calls OpenCV, which does the same to the
    lightness and the colors of an image apart.
    """
    reach, half = search // 2, patch // 2
    height, width = x.shape[-2:]
    rows, columns = (_mirrored(length, reach, reach, x.device) for length in (height, width))
    wide = x[..., rows, :][..., columns]
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for i in range(search):
        for j in range(search):
            other = wide[..., i : i + height, j : j + width]
            apart = (other - x).square().mean(1, keepdim=True)
            apart = F.avg_pool2d(F.pad(apart, (half,) * 4, mode="replicate"), patch, stride=1)
            weight = torch.exp(apart / -strength**2)
            total += weight * other
            weights += weight
    return total / weights


