"""Cheap measures at the answer: fewer digits, softer scores, fewer classes. What they keep back, labels still tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from assay.errors import ConfigError
from assay.games import name_of
from assay.targets.access import Access
from assay.targets.around import Around, Declared
from assay.targets.base import Target
from assay.targets.defended import Parts
from assay.targets.procedure import Training

SMALLEST = 1e-30
"""What an answer of probability 0 is taken for: its logarithm has to be a number."""


class Answering(Declared, Protocol):
    """A measure that changes the probabilities that are answered."""

    def answer(self, p: Tensor) -> Tensor:
        """What is said instead of the probabilities ``p [rows, classes]``."""

    def protect(self, target: Target) -> AnsweringTarget:
        """``target`` with its answers changed; itself unchanged."""


@dataclass(frozen=True, eq=False)
class AnsweringTarget(Around):
    """A target that answers with changed probabilities and hides everything behind them."""

    defense: Answering

    @property
    def offers(self) -> Access:
        """Answers, never gradients."""
        return min(self.base.offers, Access.SCORES)

    @property
    def refuses(self) -> bool:
        """Never: a refusal below is one more class of the answer."""
        return False

    def labels(self, x: Tensor) -> Tensor:
        """Those of what is answered: rounded probabilities may tie, and the first class wins."""
        return self.scores(x).argmax(-1) if self.base.offers >= Access.SCORES else self.base.labels(x)

    def scores(self, x: Tensor) -> Tensor:
        """Logarithms of what is answered, ``[rows, classes]``."""
        p = self.base.scores(x).softmax(-1)
        return self.defense.answer(p).clamp_min(SMALLEST).log()

    def check(self, x: Tensor) -> None:
        """The check of the target below."""
        self.base.check(x)


def answering(training: Training, defense: Answering) -> Training:
    """A procedure whose models answer as ``defense`` says."""
    def fit(data: object, seed: int) -> Target:
        return defense.protect(training.wrapped(training.fit(data, seed)))  # type: ignore[arg-type]  # a Dataset

    return replace(training, fit=fit, name=f"{training.name} + {name_of(defense)}", bare=training.bare or training)


@dataclass(frozen=True, kw_only=True)
class RoundScores:
    """Probabilities are answered with so many decimals.

    *Paper*: Shokri, Stronati, Song & Shmatikov, S&P 2017, §VIII-B; Fredrikson, Jha & Ristenpart, CCS 2015.

    *Needs*: scores of the model.

    *Cost*: a rounding.

    *Blind spots*: what is left tells members apart nearly as well, and labels alone do (label-only attacks). It is
    here to be seen through: it proves nothing.

    *Held to*: Shokri et al. found rounding to 3 digits and to 1 to change little; here LiRA whose shadow models round
    alike keeps at least 80 % of its advantage in AUC at 3 decimals.

    *Measured*: on the demo's digits in `tests/privacy/defenses/test_cheap_defenses.py`.

    Example:
        >>> import torch
        >>> from assay import privacy
        >>> privacy.RoundScores(decimals=1).answer(torch.tensor([[0.86, 0.09, 0.05]])).tolist()[0][0]
        0.8999999761581421

    Attributes:
        decimals: how many are kept.
    """

    parts: ClassVar[Parts] = Parts()

    decimals: int = 2

    def __post_init__(self) -> None:
        if self.decimals < 0:
            raise ConfigError("PRV120", f"decimals = {self.decimals}")

    def answer(self, p: Tensor) -> Tensor:
        """Rounded to the nearest."""
        return torch.round(p, decimals=self.decimals)

    def protect(self, target: Target) -> AnsweringTarget:
        """``target`` with rounded probabilities; itself unchanged."""
        return AnsweringTarget(target, self)

    def train(self, training: Training) -> Training:
        """The procedure, its models answering with rounded probabilities."""
        return answering(training, self)


@dataclass(frozen=True, kw_only=True)
class SoftScores:
    """Probabilities of logits divided by a temperature, so that none is near 1.

    *Paper*: Shokri, Stronati, Song & Shmatikov, S&P 2017, §VIII-B.

    *Needs*: scores of the model.

    *Cost*: a division.

    *Blind spots*: it is invertible: whoever knows of it, or has shadow models that do the same, loses nothing. It is
    here to be seen through: it proves nothing.

    *Held to*: LiRA with shadow models of the same temperature finds the same members: its AUC moves by less than
    0.02 at temperature 20.

    *Measured*: on the demo's digits in `tests/privacy/defenses/test_cheap_defenses.py`.

    Example:
        >>> import torch
        >>> from assay import privacy
        >>> soft = privacy.SoftScores(temperature=20).answer(torch.tensor([[0.98, 0.02]]))
        >>> round(float(soft[0, 0]), 2)
        0.55

    Attributes:
        temperature: above 1.
    """

    parts: ClassVar[Parts] = Parts(temperature=True)

    temperature: float = 20.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError("PRV120", f"temperature = {self.temperature}")

    def answer(self, p: Tensor) -> Tensor:
        """Powers of the probabilities, normalized again."""
        return (p.clamp_min(SMALLEST).log() / self.temperature).softmax(-1)

    def protect(self, target: Target) -> AnsweringTarget:
        """``target`` with softened probabilities; itself unchanged."""
        return AnsweringTarget(target, self)

    def train(self, training: Training) -> Training:
        """The procedure, its models answering with softened probabilities."""
        return answering(training, self)


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Only the k likeliest classes are answered with a probability; the rest is shared by the others evenly.

    *Paper*: Shokri, Stronati, Song & Shmatikov, S&P 2017, §VIII-B.

    *Needs*: scores of the model.

    *Cost*: a sort of the classes.

    *Blind spots*: the answered probability of the label is the very signal that membership is told by. It is here to
    be seen through: it proves nothing.

    *Held to*: at k = 1 LiRA with shadow models that answer alike keeps at least 50 % of its advantage in AUC, at
    k = 3 at least 80 %.

    *Measured*: on the demo's digits in `tests/privacy/defenses/test_cheap_defenses.py`.

    Example:
        >>> import torch
        >>> from assay import privacy
        >>> [round(v, 2) for v in privacy.TopK(k=1).answer(torch.tensor([[0.7, 0.2, 0.1]]))[0].tolist()]
        [0.7, 0.15, 0.15]

    Attributes:
        k: how many classes are answered.
    """

    parts: ClassVar[Parts] = Parts()

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError("PRV120", f"k = {self.k}")

    def answer(self, p: Tensor) -> Tensor:
        """The k largest as they are; what is left over, evenly on the others."""
        classes = p.shape[-1]
        if self.k >= classes:
            return p
        kept = p.topk(self.k, dim=-1)
        rest = (1 - kept.values.sum(-1, keepdim=True)).clamp_min(0) / (classes - self.k)
        return rest.expand_as(p).scatter(-1, kept.indices, kept.values)

    def protect(self, target: Target) -> AnsweringTarget:
        """``target`` with probabilities of k classes; itself unchanged."""
        return AnsweringTarget(target, self)

    def train(self, training: Training) -> Training:
        """The procedure, its models answering with k classes."""
        return answering(training, self)
