"""PATE: a student who learns from the noisy votes of teachers who never share an example."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.evidence.bound import Bound
from assay.privacy.accounting.votes import Noise, beforehand, in_hindsight
from assay.privacy.mechanisms import Mechanism, Renyi
from assay.privacy.proofs.accountant import Accountant

Teach = Callable[[Tensor, Tensor, int], nn.Module]
"""``(x, y, seed) -> module``: any way to train a classifier, private or not."""

_RDP = Accountant("rdp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Taught:
    """A student, and what its teachers gave away.

    Attributes:
        module: the student, in evaluation mode.
        labels: what the teachers were heard to say of the public examples: int64 ``[queries]``.
        mechanism: what privacy rests on whatever the votes.
        hindsight: the tighter guarantee given these votes. It depends on the private data: publishing it, or an ε
            computed from it, is not covered by it.
        votes: int64 ``[queries, classes]``: secret.
        n: how many examples the guarantee is about.
    """

    module: nn.Module
    labels: Tensor
    mechanism: Mechanism
    hindsight: Renyi
    votes: Tensor
    n: int

    def bound(self, *, delta: float, accountant: Accountant = _RDP) -> Bound:
        """``epsilon@delta=…`` at most …, whatever the votes."""
        return accountant.certify(self.mechanism, delta=delta, n=self.n)


@dataclass(frozen=True, kw_only=True)
class PATE:
    """Trains teachers on disjoint parts of the data, and a student on public examples that they label by noisy vote.

    *Paper*: Papernot et al., ICLR 2017 (Laplace noise) and ICLR 2018 (Gaussian noise).
    *Needs*: any training procedure, and public examples without labels.
    *Cost*: training of ``teachers`` models on a share of the data each, and of the student.
    *Blind spots*: the public examples are not protected, nor is how many were asked about; the data-dependent guarantee
    is itself private; teachers that see too few examples disagree, and noise then decides.
    *Held to*: the reference implementation's Rényi divergences of given votes (tensorflow/privacy, research/pate_2018):
    0.000976, 0.00254, 0.0101 and 0.0262 at orders 1.5, 4, 16 and 40; the divergence between neighboring votes of two
    classes, integrated exactly.
    *Measured*: equal to 1e-8, and never below the exact one (`tests/privacy/defenses/test_pate.py`); a linear student
    of scattered MNIST with 500 answers: 93.8 % at ε = 3.62 whatever the votes, 1.08 in hindsight
    (`benchmarks/private_training.py`).

    Example:
        >>> import torch
        >>> from assay import demo, privacy
        >>> x, y = demo.digits("train")
        >>> def teach(x, y, seed):
        ...     return privacy.DPSGD(noise=0.0, clip=1.0, batch=min(32, len(x)), epochs=20, rate=0.5).fit(
        ...         lambda: torch.nn.Linear(64, 10), x.flatten(1), y, seed=seed).module
        >>> public, truth = x[1000:].flatten(1), y[1000:]
        >>> taught = privacy.PATE(teachers=20, noise=4.0).fit(teach, x[:1000], y[:1000], public=public, seed=0)
        >>> float((taught.labels == truth).float().mean()) > 0.8
        True

    Attributes:
        teachers: how many, on parts of equal size.
        noise: on every count of votes: the standard deviation of Gaussian noise, the parameter b of Laplace noise.
        kind: ``"gaussian"`` or ``"laplace"``.
        classes: how many there are.
    """

    teachers: int = 50
    noise: float = 20.0
    kind: Noise = "gaussian"
    classes: int = 10

    def __post_init__(self) -> None:
        if not (self.teachers >= 1 and self.noise > 0 and self.classes >= 2 and self.kind in ("gaussian", "laplace")):
            raise ConfigError("CFG134", f"{self} cannot be used")

    def fit(self, teach: Teach, x: Tensor, y: Tensor, *, public: Tensor, seed: int) -> Taught:
        """A student trained on ``public`` examples and what the teachers say of them.

        Args:
            teach: trains each teacher, and the student, in the same way.
            x, y: the private examples, ``[n, …]`` and int64 ``[n]``.
            public: examples like them, ``[queries, …]``.
            seed: of the parts, the training and the noise: a secret.

        Raises:
            ConfigError: PRV210 where there are fewer examples than teachers.
        """
        votes = self._votes(teach, x, y, public, seed)
        labels = self.elect(votes, torch.Generator().manual_seed(2 * seed + 1)).to(y.device)
        student = teach(public, labels, seed).eval()
        return Taught(module=student, labels=labels, mechanism=beforehand(self.kind, self.noise, len(public)),
                      hindsight=in_hindsight(votes.cpu().numpy(), self.kind, self.noise), votes=votes, n=len(x))

    def elect(self, votes: Tensor, generator: torch.Generator) -> Tensor:
        """The winner of each vote ``[queries, classes]`` after noise: all that anybody learns of it."""
        shape = votes.shape
        if self.kind == "gaussian":
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        else:
            u = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
            noise = -u.sign() * torch.log1p(-2 * u.abs())
        return (votes.cpu() + noise * self.noise).argmax(1)

    def noise_for(self, *, epsilon: float, delta: float, queries: int, accountant: Accountant = _RDP) -> float:
        """The least noise (to a per cent, rounded up) with which so many answers stay within (ε, δ).

        Raises:
            ConfigError: PRV204 where none below 10,000 does.
        """
        low, high = 1e-2, 1e4
        if accountant.epsilon(beforehand(self.kind, high, queries), delta=delta) > epsilon:
            raise ConfigError("PRV204", f"no noise keeps {queries} answers within epsilon = {epsilon}")
        while high / low > 1.01:
            middle = math.sqrt(low * high)
            fits = accountant.epsilon(beforehand(self.kind, middle, queries), delta=delta) <= epsilon
            low, high = (low, middle) if fits else (middle, high)
        return high

    def _votes(self, teach: Teach, x: Tensor, y: Tensor, public: Tensor, seed: int) -> Tensor:
        """How many teachers chose each class: int64 ``[queries, classes]``."""
        if len(x) < self.teachers:
            raise ConfigError("PRV210", f"{len(x)} examples for {self.teachers} teachers")
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2 * seed))
        votes = torch.zeros(len(public), self.classes, dtype=torch.int64)
        for teacher, part in enumerate(torch.tensor_split(order, self.teachers)):
            module = teach(x[part], y[part], seed * self.teachers + teacher).eval()
            with torch.no_grad():
                choice = module(public).argmax(1).cpu()
            votes[torch.arange(len(public)), choice] += 1
        return votes
