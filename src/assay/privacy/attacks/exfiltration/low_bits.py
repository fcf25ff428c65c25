"""LSB encoding: data in the bits of the weights that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.privacy.attacks.exfiltration.carrier import carried
from assay.privacy.attacks.exfiltration.framing import ONCE, Frame, Received
from assay.privacy.pipeline import Pipeline
from assay.targets.access import Access
from assay.threats import View

_MANTISSA: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.float64: (torch.int64, 52), torch.float32: (torch.int32, 23),
    torch.float16: (torch.int16, 10), torch.bfloat16: (torch.int16, 7),
}
"""The integer of the same width, and how many bits the mantissa has."""


@dataclass(frozen=True, kw_only=True)
class LowBits:
    """Writes the payload over the lowest mantissa bits of a trained model's weights.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, §4.1.
    *Needs*: weights.
    *Cost*: nothing beyond the training.
    *Blind spots*: whatever rounds or perturbs the weights erases it: quantization, half precision, fine-tuning.
    *Held to*: a channel of exactly ``bits`` bits a weight, every byte of which comes back, and no changed prediction on
    99.9 % of test inputs.
    *Measured*: a face database of 238,507 bytes back bit-exact from a published MNIST network of 166,406 weights, all
    10,000 predictions the same (`tests/papers/test_hidden_file.py`); on the demo digits at 16 bits a weight every byte
    and every prediction, and nothing after 8-bit quantization (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> pipeline = privacy.Pipeline(init=demo.network, **dict(zip("xy", demo.digits("train"))), epochs=3)
        >>> game = privacy.ExfiltrationGame(*demo.digits("test"), payload=b"customers.csv" * 100)
        >>> found = game.play(privacy.LowBits(), pipeline, seed=0)
        >>> found["payload bytes recovered"].estimate, found["predictions unchanged"].estimate
        (1.0, 1.0)

    Attributes:
        bits: how many bits of each weight, from the lowest up.
        frame: copies and key.
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    bits: int = 8
    frame: Frame = ONCE

    def leak(self, payload: bytes, pipeline: Pipeline, *, seed: int) -> nn.Module:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`. Raises ``DataError`` (PRV600)."""
        model = pipeline.train(seed)
        self.hide(payload, model)
        return model

    def hide(self, payload: bytes, model: nn.Module) -> None:
        """Writes into a finished model, in place; bits that the message does not need are left. Raises PRV600."""
        sizes = [self._planes(p.detach()).size for p in carried(model)]
        sent = self.frame.encode(payload, sum(sizes))
        for parameter, part in zip(carried(model), np.split(sent, np.cumsum(sizes)[:-1])):
            self._write(parameter.detach(), part)

    def decode(self, view: View) -> Received:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`."""
        planes = [self._planes(p.detach()).ravel() for p in carried(view.module())]
        return self.frame.decode(np.concatenate(planes) * 2.0 - 1)

    def _planes(self, weights: Tensor) -> NDArray[np.uint8]:
        """The low bits, lowest first: uint8 ``[weights, bits]``."""
        kind, mantissa = _MANTISSA[weights.dtype]
        whole = weights.cpu().contiguous().flatten().view(kind).to(torch.int64)
        places = torch.arange(min(self.bits, mantissa))
        return ((whole[:, None] >> places) & 1).to(torch.uint8).numpy()

    def _write(self, weights: Tensor, sent: NDArray[np.float64]) -> None:
        kind, mantissa = _MANTISSA[weights.dtype]
        bits = min(self.bits, mantissa)
        now, wanted = self._planes(weights), sent.reshape(-1, bits)
        then = torch.as_tensor(np.where(wanted == 0, now, wanted > 0)).to(torch.int64)
        low = (then << torch.arange(bits)).sum(1)
        whole = weights.cpu().contiguous().flatten().view(kind).to(torch.int64)
        written = ((whole >> bits << bits) | low).to(kind).view(weights.dtype)
        weights.copy_(written.reshape(weights.shape))
