"""Detectors of adversarial inputs: what guards a model, how its threshold is set, and the target that refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from assay.errors import ConfigError, TargetError
from assay.numerics.intervals import clopper_pearson_lower, clopper_pearson_upper
from assay.targets.access import Access
from assay.targets.around import Over
from assay.targets.base import Graded, Loss, Target, WhiteBox, passed_on, refuses
from assay.targets.defended import Parts, adapted_of, bare_of, naive_of, parts_of
from assay.targets.differentiable import Network

BATCH = 512
"""The most rows of the model that one step of a detector asks for."""


class Judged(NamedTuple):
    """What a detector says of each row.

    Attributes:
        scores: the model's, ``[rows, classes]``.
        suspicion: the larger, the less the input looks natural, ``[rows]``.
    """

    scores: Tensor
    suspicion: Tensor


class Detector(Protocol):
    """A number for every input that is large where the input does not look natural; fitted, without a threshold."""

    @property
    def name(self) -> str:
        """How evidence calls it."""

    @property
    def parts(self) -> Parts:
        """What of it misleads attacks that do not know it; ``detector`` goes without saying."""

    def looks(self, *, climbing: bool) -> int:
        """Rows of the model for one input: to be judged, or to be given a gradient."""

    def judge(self, network: Network, x: Tensor, *, climbing: bool, informed: bool) -> Judged:
        """Scores and suspicion, of each row by itself.

        Args:
            network: the model, differentiable where gradients are enabled.
            climbing: whether it is for a gradient, for which fewer draws may do.
            informed: whether gradients go through stand-ins for what has none.
        """

    def state(self) -> dict[str, object]:
        """Everything that determines its judgment, for the fingerprint: tensors, and what prints as itself."""


@runtime_checkable
class Recipe(Protocol):
    """A detector before it has seen data.

    Attributes:
        false_positives: the share of natural inputs that may be refused.
    """

    @property
    def false_positives(self) -> float: ...

    def fit(self, target: Target, x: Tensor, y: Tensor, *, seed: int = 0) -> Guard:
        """The detector for ``target``, learned from natural inputs and their labels, with its threshold."""


class Rate(NamedTuple):
    """The share of natural inputs that a threshold refuses, with its exact 95 % interval.

    The threshold lies between the two suspicions of ``of`` that part those refused from the others. The share of inputs
    beyond the smaller one is distributed as Beta(refused + 1, of − refused), and beyond the larger one as
    Beta(refused, of − refused + 1), whatever the distribution of the suspicion: of the first Clopper and Pearson's
    interval has the upper quantile, of the second the lower one.
    """

    refused: int
    of: int

    @property
    def estimate(self) -> float:
        """Of the inputs that the threshold was set on."""
        return self.refused / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided, 95 %."""
        return clopper_pearson_lower(self.refused, self.of, 0.975), clopper_pearson_upper(self.refused, self.of, 0.975)


@dataclass(frozen=True, eq=False)
class Guard:
    """A detector with its threshold: a protector. What ``fit`` of a detector returns.

    Attributes:
        detector: fitted.
        threshold: inputs of larger suspicion are refused.
        scale: logits that one unit of suspicion is worth in the column of refusals.
        rate: of false positives, on the natural inputs that set the threshold.
        classes: how many the guarded model tells apart.
    """

    detector: Detector
    threshold: float
    scale: float
    rate: Rate
    classes: int

    @classmethod
    def calibrated(cls, detector: Detector, target: Target, x: Tensor, false_positives: float, seed: int) -> Guard:
        """The detector with the threshold that refuses no more than this share of the natural inputs ``x``.

        Its scale makes one standard deviation of the suspicion worth the median margin of the model, so that neither
        of the two drowns the other in a sum of gradients.
        """
        with seeded(seed, target):
            judged = suspicions(detector, target, x)
        refused = int(false_positives * len(x))
        if not len(x) or (false_positives > 0 and not refused):
            raise ConfigError("PRF142", f"{len(x)} natural inputs cannot set a threshold for {false_positives:.3g}")
        ordered = judged.suspicion.double().sort(descending=True).values
        threshold = float((ordered[max(refused - 1, 0)] + ordered[refused]) / 2)  # on none: rounding decides nothing
        top = judged.scores.topk(2, dim=1).values
        spread, width = float((top[:, 0] - top[:, 1]).median()), float(judged.suspicion.std())
        scale = spread / width if spread > 0 and width > 0 else 1.0
        rate = Rate(int((judged.suspicion > threshold).sum()), len(x))
        return cls(detector, threshold, scale, rate, judged.scores.shape[1])

    def protect(self, target: Target) -> GuardedTarget:
        """``target`` with the guard before it; itself unchanged. It is to be the model that the guard was fitted on."""
        return GuardedTarget(target, self)


@dataclass(frozen=True, eq=False)
class GuardedTarget(Over):
    """A target that refuses what its detector suspects; what :meth:`Guard.protect` returns.

    Its scores are the model's and a last column, the refusal: ``max_j F_j + scale · (D(x) − threshold)``, which wins
    exactly where the suspicion ``D`` exceeds the threshold (Carlini & Wagner, AISec 2017, §3: the combined
    classifier). Its own gradients are what autograd gives for that, :meth:`adapted`'s go through the stand-ins.

    Attributes:
        guard: the detector and its threshold.
        informed: whether gradients go through the stand-ins.
    """

    guard: Guard
    informed: bool = False

    @property
    def name(self) -> str:
        """The model's, and the detector's."""
        return f"{self.base.name}, guarded by {self.guard.detector.name}"

    @property
    def offers(self) -> Access:
        """What the model below offers; of one that is no network, its answers."""
        return self.base.offers if isinstance(self.base, WhiteBox) else passed_on(self.base)

    @property
    def randomized(self) -> bool:
        """Whether model or detector draw random numbers."""
        return self.base.randomized or self.guard.detector.parts.randomness

    @property
    def refuses(self) -> bool:
        """Always."""
        return True

    @property
    def classes(self) -> int:
        """How many the model tells apart; as a label it means refused."""
        return self.guard.classes

    @property
    def bare(self) -> WhiteBox:
        """The model below all defenses."""
        return bare_of(self.base)

    @property
    def parts(self) -> Parts:
        """The detector's, and those of the defenses below."""
        return self.guard.detector.parts | Parts(detector=True) | parts_of(self.base)

    @property
    def forwards_per_query(self) -> int:
        """One look of the detector."""
        return self.guard.detector.looks(climbing=False) * self.base.forwards_per_query

    def passes(self, gradients: int = 1) -> tuple[int, int]:
        """Every gradient goes through all rows that the detector looks at."""
        return Network(self.base).passes(self.guard.detector.looks(climbing=True), gradients)

    def naive(self) -> WhiteBox:
        """The model below, as if there were no detector."""
        return naive_of(self.base)

    def adapted(self) -> GuardedTarget:
        """The same joint scores, with gradients through the stand-ins."""
        return replace(self, base=adapted_of(self.base), informed=True)

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, ``classes`` where the input is refused: int64 ``[rows]``."""
        return self.scores(x).argmax(1)

    def scores(self, x: Tensor) -> Tensor:
        """The model's, and the refusal: ``[rows, classes + 1]``."""
        return self._joint(suspicions(self.guard.detector, self.base, x))

    def suspicion(self, x: Tensor) -> Tensor:
        """What the detector says of each row, ``[rows]``: refused where it exceeds the threshold."""
        return suspicions(self.guard.detector, self.base, x).suspicion

    def graded(self, x: Tensor, loss: Loss, *labels: Tensor) -> Graded:
        """Joint scores, and loss and gradient of them."""
        parts = []
        with torch.enable_grad():
            for rows in _groups(len(x), self.guard.detector.looks(climbing=True)):
                leaf = x[rows].detach().requires_grad_()
                scores = self._climbed(leaf)
                values = loss(scores, *(label[rows] for label in labels))
                (gradient,) = torch.autograd.grad(values.sum(), leaf)
                parts.append(Graded(scores.detach(), values.detach(), gradient))
        return Graded(*(torch.cat(column) for column in zip(*parts)))

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Joint scores and the gradients of some of them, the refusal's among them where it is asked for."""
        all_scores, all_rows = [], []
        with torch.enable_grad():
            for rows in _groups(len(x), self.guard.detector.looks(climbing=True)):
                leaf = x[rows].detach().requires_grad_()
                scores = self._climbed(leaf)
                chosen = scores.gather(1, classes[rows]).sum(0)
                columns = [torch.autograd.grad(column, leaf, retain_graph=True)[0] for column in chosen]
                all_scores.append(scores.detach())
                all_rows.append(torch.stack(columns, 1) if columns else leaf.detach()[:, None][:, :0])
        return torch.cat(all_scores), torch.cat(all_rows)

    def module(self) -> nn.Module:
        """The model below alone: what it is asked for are its features, and the refusal is no part of it."""
        return cast(WhiteBox, self.base).module()

    def check(self, x: Tensor) -> None:
        """Whatever the model below checks."""
        self.base.check(x)

    def fingerprint(self) -> dict[str, str]:
        """The model's; the detector's hash; threshold and scale."""
        guard = self.guard
        digest = hashlib.sha256(guard.detector.name.encode())
        for name, value in sorted(guard.detector.state().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes() if isinstance(value, Tensor)
                          else repr(value).encode())
        said = f"{guard.detector.name} {digest.hexdigest()}, threshold {guard.threshold:.9g}, scale {guard.scale:.9g}"
        return {**self.base.fingerprint(), "detector": said}

    def _climbed(self, leaf: Tensor) -> Tensor:
        judged = self.guard.detector.judge(Network(self.base), leaf, climbing=True, informed=self.informed)
        return self._joint(judged)

    def _joint(self, judged: Judged) -> Tensor:
        scores, suspicion = judged
        top = scores.max(1).values
        refusal = top + self.guard.scale * (suspicion - self.guard.threshold).to(top.dtype)
        # Rounding must not decide: the refusal is above the best score where the threshold is exceeded, only there.
        above = torch.nextafter(top.detach(), torch.full_like(top, torch.inf))
        refused = suspicion > self.guard.threshold
        refusal = torch.where(refused, torch.maximum(refusal, above), torch.minimum(refusal, top.detach()))
        return torch.cat([scores, refusal[:, None]], 1)


def suspicions(detector: Detector, target: Target, x: Tensor) -> Judged:
    """What a detector says of these inputs to ``target``, without gradients, in batches."""
    network, parts = Network(target), []
    with torch.no_grad():
        for rows in _groups(len(x), detector.looks(climbing=False)):
            parts.append(detector.judge(network, x[rows], climbing=False, informed=False))
    return Judged(*(torch.cat(column) for column in zip(*parts)))


def _groups(rows: int, looks: int) -> Iterator[slice]:
    """Rows whose looks share a batch; one empty group where there are no rows."""
    size = max(BATCH // looks, 1)
    return (slice(start, start + size) for start in range(0, max(rows, 1), size))


@contextmanager
def seeded(seed: int, target: Target) -> Iterator[None]:
    """Inside, torch's global random numbers start from this seed; outside they are as before."""
    with torch.random.fork_rng(devices=[target.device] if target.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def prepared(target: Target, x: Tensor, y: Tensor, needs: Access) -> tuple[Tensor, Tensor]:
    """Natural inputs and their labels where the target lives.

    Raises:
        TargetError: PRF140 where the target does not offer what the detector needs, its module is not all of it, or
            it refuses inputs already.
    """
    if refuses(target):
        raise TargetError("PRF140", f"{target.name} refuses inputs already: two refusals would be taken for a class")
    if target.offers < needs:
        raise TargetError("PRF140", f"the detector needs {needs}, and {target.name} offers {target.offers}")
    x, y = x.to(target.device, target.dtype), y.to(target.device, torch.int64)
    if needs >= Access.WEIGHTS:
        with torch.no_grad():
            own, scores = cast(WhiteBox, target).module()(x[:8]), target.scores(x[:8])
        if own.shape != scores.shape or float((own - scores).abs().max()) > 1e-2 * float(scores.abs().max()):
            raise TargetError("PRF140", f"the scores of {target.name} are not those of its module, whose features "
                                        "the detector reads")
    return x, y


def split(x: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint sets of indices in random order: ``share`` of them, and the rest."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    first = round(share * len(x))
    return order[:first], order[first:]
