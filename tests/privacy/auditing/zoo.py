"""A zoo of differentially private trainings: a correct one, and what is wrong with the others.

DP-SGD of a logistic regression, all runs of a call stacked into one tensor, so that a thousand trainings take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.numerics.seeds import Stream
from assay.privacy.auditing.steps import Steps

DELTA = 1e-5
CLASSES = 10

BUGS = {
    "noise-over-batch": "the noise is divided by the batch size (Tramèr et al., 2022)",
    "mean-clipped": "the mean gradient is clipped instead of each example's",
    "same-noise": "every step draws the same noise",
    "bias-unclipped": "the bias' gradient is not clipped",
    "private-statistics": "inputs are normalized by the mean and deviation of the data themselves",
    "wrong-rate": "every step uses all examples, and the accountant is told a tenth",
}


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """DP-SGD of a multinomial logistic regression: Poisson samples, clipped sums, Gaussian noise.

    Attributes:
        noise: the noise multiplier.
        rate: of the Poisson sampling; 1 for the full batch.
        steps, clip, pace: how many, to which norm, and the learning rate.
        bug: what is wrong; empty for nothing.
    """

    noise: float = 6.0
    rate: float = 1.0
    steps: int = 20
    clip: float = 1.0
    pace: float = 2.0
    bug: str = ""

    @property
    def claim(self) -> tuple[float, float]:
        """What its accountant says."""
        rate = 0.1 if self.bug == "wrong-rate" else self.rate
        return Steps(rate=rate, count=self.steps).epsilon(self.noise, DELTA), DELTA

    def runs(self, x: Tensor, y: Tensor, keep: Tensor, seeds: Sequence[int], watch: object = None) -> object:
        """See ``assay.privacy.auditing.procedure.Procedure``."""
        inputs, prepare = self._inputs(x.flatten(1), keep)
        streams = Stream.seeded(0, torch.tensor(seeds))
        parameters = torch.zeros(len(seeds), (x[0].numel() + 1) * CLASSES)
        batch = self.rate * (len(x) - 1)
        for step in range(self.steps):
            drawn = keep.float()
            if self.rate < 1:
                drawn = drawn * (streams.fold("sample").fold(step).uniform(len(x)) < self.rate)
            forged = None if watch is None else watch.forge(step, parameters)
            total = self._sum(parameters, inputs, y, drawn, forged, batch)
            released = total + self._noise(streams, step, parameters.shape[1], batch)
            if watch is not None:
                watch.see(step, parameters, released)
            parameters = parameters - self.pace * released / (1 if self.bug == "mean-clipped" else batch)
        return lambda z: self.forward(parameters, prepare(z.flatten(1)))

    def forward(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Logits of every run."""
        weight, bias = parameters[:, :-CLASSES], parameters[:, -CLASSES:]
        return torch.matmul(x.flatten(-2) if x.ndim > 3 else x, weight.reshape(len(weight), -1, CLASSES)) + bias[:, None]

    def _inputs(self, x: Tensor, keep: Tensor) -> tuple[Tensor, object]:
        """The inputs as every run sees them, and how it will see others."""
        if self.bug != "private-statistics":
            return x, lambda z: z
        share = keep.double() / keep.sum(1, keepdim=True)
        mean = (share @ x.double().mean(1))[:, None, None]
        spread = ((share @ (x.double() ** 2).mean(1))[:, None, None] - mean**2).sqrt().clamp_min(0.01)
        return ((x - mean) / spread).float(), lambda z: ((z - mean) / spread).float()

    def _sum(self, parameters: Tensor, x: Tensor, y: Tensor, drawn: Tensor, forged: Tensor | None, batch: float) -> Tensor:
        """The sum of the clipped gradients, ``[runs, parameters]``, the last example's replaced by the forged one."""
        error = self.forward(parameters, x).softmax(-1) - F.one_hot(y, CLASSES)
        own = drawn if forged is None else torch.cat([drawn[:, :-1], torch.zeros_like(drawn[:, -1:])], 1)
        norm = error.norm(dim=-1) * (x.norm(dim=-1) ** 2 + 1).sqrt()
        if self.bug == "bias-unclipped":
            norm = error.norm(dim=-1) * x.norm(dim=-1)
        scale = own if self.bug == "mean-clipped" else own * (self.clip / norm.clamp_min(1e-12)).clamp_max(1)
        weight = torch.matmul(x.transpose(-1, -2), error * scale[..., None]).flatten(1)
        bias = (error * (own if self.bug == "bias-unclipped" else scale)[..., None]).sum(1)
        total = torch.cat([weight, bias], 1)
        if forged is not None:
            total = total + drawn[:, -1:] * self._clipped(forged)
        if self.bug == "mean-clipped":
            mean = total / batch
            return mean * (self.clip / mean.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        return total

    def _clipped(self, gradient: Tensor) -> Tensor:
        """A forged gradient as this training clips it."""
        if self.bug == "mean-clipped":
            return gradient
        if self.bug == "bias-unclipped":
            weight = gradient[:-CLASSES]
            return torch.cat([weight * min(1.0, self.clip / float(weight.norm())), gradient[-CLASSES:]])
        return gradient * min(1.0, self.clip / float(gradient.norm()))

    def _noise(self, streams: Stream, step: int, size: int, batch: float) -> Tensor:
        scale = self.noise * self.clip / (batch if self.bug in ("noise-over-batch", "mean-clipped") else 1)
        at = 0 if self.bug == "same-noise" else step
        return scale * streams.fold("noise").fold(at).normal(size)


def zoo(**changes: float) -> dict[str, Logistic]:
    """The correct training, under the empty name, and every wrong one."""
    correct = replace(Logistic(), **changes)
    return {bug: replace(correct, bug=bug) for bug in ("", *BUGS)}


def mu_of(training: Logistic) -> float:
    """Full-batch DP-SGD is one Gaussian mechanism with this μ."""
    return math.sqrt(training.steps) / training.noise
