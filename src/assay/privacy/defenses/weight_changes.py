"""Small changes to weights that one was given: the predictions stay, what was hidden in the weights may not."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.errors import TargetError
from assay.games import name_of
from assay.numerics.seeds import Stream
from assay.targets.base import Target, WhiteBox
from assay.targets.pytorch import TorchTarget, torch_target


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights:
    """Rounds every weight to one of 2^bits − 1 evenly spaced values a tensor.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, name it as the remedy for LSB encoding; the symmetric grid is
    that of Jacob et al., CVPR 2018, §3.
    *Needs*: weights.
    *Cost*: one pass over the weights.
    *Blind spots*: signs survive it wherever they are more than half a step from zero, and so do memorized labels.
    *Held to*: a weight moves by at most half a step, 1/254 of its tensor's largest at 8 bits.
    *Measured*: the payload in the low bits is gone, 1 byte in 256 right by chance; those in signs, values and labels
    come back bit-exact; 99.8 to 100 % of the predictions of four demo networks stay
    (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, _ = demo.digits()
        >>> net = demo.target()
        >>> bool((privacy.QuantizeWeights().protect(net).labels(x) == net.labels(x)).float().mean() > 0.99)
        True

    Attributes:
        bits: a weight.
    """

    bits: int = 8

    def protect(self, target: Target) -> TorchTarget:
        """A copy with rounded weights. Raises ``TargetError`` (PRV603) where there are none to round."""
        top = (1 << (self.bits - 1)) - 1

        def rounded(weights: Tensor, _: int) -> Tensor:
            step = (weights.abs().max() / top).clamp_min(torch.finfo(weights.dtype).tiny)
            return (weights / step).round() * step

        return _changed(target, self, rounded)


@dataclass(frozen=True, kw_only=True)
class RandomizeLowBits:
    """Draws the lowest mantissa bits of every weight anew.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, on countermeasures.
    *Needs*: weights.
    *Cost*: one pass over the weights.
    *Blind spots*: every channel but the low bits, and bits above those drawn.
    *Held to*: a weight moves by less than 2^(bits − 23) of itself in float32: 0.00049 at 12 bits.
    *Measured*: every prediction of the demo network stays; a payload in the lowest 8 bits is gone, one in signs comes
    back bit-exact (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, _ = demo.digits()
        >>> net = demo.target()
        >>> bool((privacy.RandomizeLowBits().protect(net).labels(x) == net.labels(x)).all())
        True

    Attributes:
        bits: how many, from the lowest up.
        seed: of the draw; the trainer must not know it.
    """

    bits: int = 12
    seed: int = 0

    def protect(self, target: Target) -> TorchTarget:
        """A copy with other low bits. Raises ``TargetError`` (PRV603) where there are none."""

        def drawn(weights: Tensor, index: int) -> Tensor:
            kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[weights.element_size()]
            low = _stream(self.seed, index).bits(weights.numel())[0].reshape(weights.shape) & ((1 << self.bits) - 1)
            return (weights.view(kind) ^ low.to(kind)).view(weights.dtype)

        return _changed(target, self, drawn)


@dataclass(frozen=True, kw_only=True)
class WeightNoise:
    """Adds Gaussian noise to every weight, as strong as a share of its tensor's own spread.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, on countermeasures: what fine-tuning does to weights, without its
    data.
    *Needs*: weights.
    *Cost*: one pass over the weights.
    *Blind spots*: signs of large weights and memorized labels survive whatever the model's own accuracy survives.
    *Held to*: the noise's standard deviation is 0.05 of the weights' own.
    *Measured*: the payload in the low bits is gone, one in labels and one in values come back bit-exact, of
    one in signs 99.6 % of the bytes; 99.6 to 100 % of the predictions of four demo networks stay
    (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, _ = demo.digits()
        >>> net = demo.target()
        >>> bool((privacy.WeightNoise().protect(net).labels(x) == net.labels(x)).float().mean() > 0.98)
        True

    Attributes:
        scale: the noise's standard deviation, as a share of each tensor's.
        seed: of the noise.
    """

    scale: float = 0.05
    seed: int = 0

    def protect(self, target: Target) -> TorchTarget:
        """A copy with noisy weights. Raises ``TargetError`` (PRV603) where there are none."""

        def noisy(weights: Tensor, index: int) -> Tensor:
            noise = _stream(self.seed, index).normal(weights.numel(), dtype=weights.dtype)[0].reshape(weights.shape)
            return weights + self.scale * weights.std(correction=0) * noise

        return _changed(target, self, noisy)


def _changed(target: Target, defense: object, change: Callable[[Tensor, int], Tensor]) -> TorchTarget:
    """A copy of the network with every floating parameter changed; the caller's own is left alone."""
    if not isinstance(target, WhiteBox):
        raise TargetError("PRV603", f"{name_of(defense)} needs weights, and {target.name} is no network")
    module = deepcopy(target.module())
    for index, parameter in enumerate(module.parameters()):
        if parameter.is_floating_point():
            parameter.data = change(parameter.detach().contiguous(), index)
    bounds = (target.bounds.lower, target.bounds.upper)
    return torch_target(module, bounds=bounds, name=f"{target.name} after {name_of(defense)}")


def _stream(seed: int, index: int) -> Stream:
    return Stream.seeded(seed, torch.tensor([index]))
