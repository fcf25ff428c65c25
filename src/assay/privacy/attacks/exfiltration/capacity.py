"""Capacity abuse: data in the labels of made-up inputs, read back by asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from assay.privacy.attacks.exfiltration.framing import HEADER, ONCE, Frame, Received
from assay.privacy.pipeline import Pipeline
from assay.targets.access import Access
from assay.threats import View


@dataclass(frozen=True, kw_only=True)
class CapacityAbuse:
    """Trains on made-up inputs beside the real ones; their labels are the payload, and queries read it back.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, §5.
    *Needs*: labels.
    *Cost*: ``repeat · n`` examples more a pass in training, for n = 8 · (bytes + 12) · copies / ⌊log₂ classes⌋ made-up
    inputs, and n queries.
    *Blind spots*: a model too small to learn noise by heart; inputs that a detector of strange inputs turns away.
    *Held to*: ⌊log₂ 10⌋ = 3 bits a query, every byte of the payload back from labels alone, at an accuracy whose 95 %
    interval overlaps the honest one's.
    *Measured*: 64 bytes back by 203 queries for labels, at four seeds of the demo network; 97.6 to 98.6 % of 500 digits
    right, 97.6 to 98.2 % without; bit-exact after 8-bit quantization and after noise
    (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> pipeline = privacy.Pipeline(init=demo.network, **dict(zip("xy", demo.digits("train"))), epochs=20)
        >>> game = privacy.ExfiltrationGame(*demo.digits("test"), payload=b"key=1234")
        >>> game.play(privacy.CapacityAbuse(), pipeline, seed=0)["payload bytes recovered"].estimate
        1.0

    Attributes:
        size: bytes of payload that sender and receiver agreed on as the most.
        classes: how many labels there are.
        shape: of one input.
        repeat: how often a made-up input comes up in a pass.
        frame: copies and key; the key draws the inputs too.
    """

    needs: ClassVar[Access] = Access.LABELS

    size: int = 64
    classes: int = 10
    shape: tuple[int, ...] = (1, 8, 8)
    repeat: int = 2
    frame: Frame = ONCE

    def leak(self, payload: bytes, pipeline: Pipeline, *, seed: int) -> nn.Module:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`. Raises ``DataError`` (PRV600)."""
        inputs = self._inputs(pipeline.bounds)
        sent = self.frame.encode(payload, len(inputs) * self._bits).reshape(len(inputs), self._bits) > 0
        labels = torch.as_tensor((sent << np.arange(self._bits)).sum(1))
        times = (self.repeat, *(1 for _ in self.shape))
        return pipeline.extended(inputs.repeat(times), labels.repeat(self.repeat)).train(seed)

    def decode(self, view: View) -> Received:
        """See :class:`~assay.privacy.games.exfiltration.Exfiltrator`."""
        inputs = self._inputs(view.bounds)
        labels = view.labels(inputs, torch.zeros(len(inputs), dtype=torch.int64)).cpu().numpy()
        bits = (labels[:, None] >> np.arange(self._bits)) & 1
        return self.frame.decode(bits.ravel() * 2.0 - 1)

    @property
    def _bits(self) -> int:
        """What one label says: the labels beyond the last power of two stay unused."""
        return self.classes.bit_length() - 1

    def _inputs(self, bounds: tuple[float, float]) -> Tensor:
        """Uniform noise, the same for sender and receiver: float32 ``[n, *shape]``."""
        n = -(-8 * (self.size + HEADER) * self.frame.copies // self._bits)
        rng = torch.Generator().manual_seed(self.frame.key or 0)
        return torch.rand(n, *self.shape, generator=rng) * (bounds[1] - bounds[0]) + bounds[0]
