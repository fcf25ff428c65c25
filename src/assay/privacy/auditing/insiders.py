"""Adversaries inside the training: they see its steps, forge a gradient, and in the end choose the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import TargetError
from assay.privacy.auditing.adversaries import Trial
from assay.privacy.auditing.procedure import procedure_name
from assay.privacy.canaries import NATURAL, WORST, Planter
from assay.targets.access import Access

Look = Callable[[int, Tensor, Tensor], Tensor]
"""What a step says: ``(step, parameters [runs, parameters], released) -> [runs]``."""


@dataclass(frozen=True, eq=False)
class _Notes:
    """A watch that writes down one number a run and step.

    Attributes:
        runs: how many there are.
        look: the number.
        forged: the gradient of each step, ``None`` for the canary's own.
    """

    runs: int
    look: Look
    forged: Callable[[int, Tensor], Tensor] | None = None
    columns: dict[int, Tensor] = field(default_factory=dict)

    def forge(self, step: int, parameters: Tensor) -> Tensor | None:
        return None if self.forged is None else self.forged(step, parameters)

    def see(self, step: int, parameters: Tensor, released: Tensor, at: slice = slice(None)) -> None:
        column = self.columns.setdefault(step, torch.zeros(self.runs, dtype=torch.float64))
        column[at] = self.look(step, parameters, released).detach().double()

    def table(self, of: object) -> Tensor:
        """``[runs, steps]``. Raises ``TargetError`` (PRV321) where nothing was shown."""
        if not self.columns:
            raise TargetError("PRV321", f"{procedure_name(of)} showed no step")
        return torch.stack([self.columns[step] for step in sorted(self.columns)], 1)


@dataclass(frozen=True, kw_only=True)
class IntermediateModels:
    """Sees every step, and how far each went the canary's way.

    *Paper*: Nasr et al., S&P 2021, §IV-C; the statistic of Nasr et al., USENIX Security 2023: the product of what a
    step released with the canary's gradient at that point, over the gradient's length.
    *Needs*: every step's parameters and noisy gradient, and one example of its own in the data.
    *Cost*: 1 training a run; 1 forward and 1 backward of the canary a step.
    *Blind spots*: a canary that is soon fitted has no gradient left; noise that is the same in every step.
    *Held to*: an ε of 4.377, that of 20 full-batch steps of DP-SGD, and the finished model's 1.6 for an ordinary
    example.
    *Measured*: 3.4 in 2000 runs under a Gaussian curve (`tests/privacy/auditing/test_ladder.py`), no more than the
    finished model gives away of the same canaries where it is so small and linear; 1.8 against 1.4 by exact rates. A
    clipped mean is refuted by it at once (`tests/privacy/auditing/test_zoo.py`).

    Example:
        >>> from assay import demo, privacy, targets
        >>> from torch import nn
        >>> def linear():
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> trainer = privacy.DPSGD(noise=0.1, batch=20, epochs=3)
        >>> training = targets.training(trainer.procedure(linear), demo.digits("train[:20]"))
        >>> attack = privacy.IntermediateModels(canary=privacy.Mislabeled())
        >>> found = privacy.AuditGame((1, 1e-5), runs=60).play(attack, training, seed=0)
        >>> found["epsilon@delta=1e-05"].value > 1
        True

    Attributes:
        canary: what is added; of several, an audit keeps the one that stood out in pilot runs.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    watches: ClassVar[bool] = True

    canary: Planter = WORST

    def infer(self, trial: Trial) -> Tensor:
        """See :class:`~assay.privacy.auditing.adversaries.Adversary`: ``[runs, steps]``."""

        def look(step: int, parameters: Tensor, released: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = parameters.detach().requires_grad_()
                logits = trial.procedure.forward(leaf, trial.canary.x)[:, 0]
                loss = F.cross_entropy(logits, trial.canary.y.expand(len(logits)), reduction="sum")
                gradient: Tensor = torch.autograd.grad(loss, leaf)[0]
            along: Tensor = (released * gradient).sum(1) / gradient.norm(dim=1).clamp_min(1e-12)
            return along

        notes = _Notes(len(trial), look)
        trial.train(notes)
        return notes.table(trial.procedure)


@dataclass(frozen=True, kw_only=True)
class GradientCanary:
    """Puts a gradient of its own making in the place of an example's, and looks for it in every step.

    The gradient is long, has no zero coordinate and changes its sign from step to step: whatever is left unclipped
    lets it through, and noise that repeats itself cancels.

    *Paper*: Nasr et al., S&P 2021, §IV-E, and USENIX Security 2023 (random and Dirac canaries).
    *Needs*: every step's noisy gradient, and one example's gradient before it is clipped.
    *Cost*: 1 training a run.
    *Blind spots*: what happens to the data before gradients are taken, such as statistics that are not private.
    *Held to*: DP-SGD's own ε, 4.377, of which 2000 runs can show 3.8 on average under a Gaussian curve.
    *Measured*: 3.5 (`tests/privacy/auditing/test_ladder.py`); unclipped biases and repeated noise are refuted by it
    (`tests/privacy/auditing/test_zoo.py`).

    Example:
        >>> from assay import demo, privacy, targets
        >>> from torch import nn
        >>> def linear():
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> trainer = privacy.DPSGD(noise=0.1, batch=20, epochs=3)
        >>> training = targets.training(trainer.procedure(linear), demo.digits("train[:20]"))
        >>> found = privacy.AuditGame((1, 1e-5), runs=60).play(privacy.GradientCanary(), training, seed=0)
        >>> found["epsilon@delta=1e-05"].value > 1
        True

    Attributes:
        length: of the gradient; whatever the procedure clips to should be far below it.
        canary: the example whose gradient is replaced.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    watches: ClassVar[bool] = True

    length: float = 1e4
    canary: Planter = NATURAL

    def infer(self, trial: Trial) -> Tensor:
        """See :class:`~assay.privacy.auditing.adversaries.Adversary`: ``[runs, steps]``."""
        return _forged(trial, self.length, None)


@dataclass(frozen=True, kw_only=True)
class MaliciousData:
    """Chooses the other examples too: blank ones, whose gradients stay out of the way of the forged one.

    *Paper*: Nasr et al., S&P 2021, §IV-F: the rung at which the demonstrated ε meets the proved one.
    *Needs*: every step's noisy gradient, one example's gradient before it is clipped, and the data.
    *Cost*: 1 training a run.
    *Blind spots*: as :class:`GradientCanary`; what happens on natural data only.
    *Held to*: theory: 4.377 at μ = 1 and δ = 1e-5, of which 2000 runs can show 3.8 on average under a Gaussian curve.
    *Measured*: 3.5, with a standard deviation of 0.3 (`tests/privacy/auditing/test_ladder.py`); by its single steps 7.7
    of 10.0 in 200 runs, in the median.

    Example:
        >>> from assay import demo, privacy, targets
        >>> from torch import nn
        >>> def linear():
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> trainer = privacy.DPSGD(noise=0.1, batch=20, epochs=3)
        >>> training = targets.training(trainer.procedure(linear), demo.digits("train[:20]"))
        >>> found = privacy.AuditGame((1, 1e-5), runs=60).play(privacy.MaliciousData(), training, seed=0)
        >>> found["epsilon@delta=1e-05"].value > 1
        True

    Attributes:
        length: of the gradient; whatever the procedure clips to should be far below it.
        canary: the example whose gradient is replaced.
    """

    needs: ClassVar[Access] = Access.GRADIENTS
    watches: ClassVar[bool] = True

    length: float = 1e4
    canary: Planter = NATURAL

    def infer(self, trial: Trial) -> Tensor:
        """See :class:`~assay.privacy.auditing.adversaries.Adversary`: ``[runs, steps]``."""
        return _forged(trial, self.length, torch.full_like(trial.x, float(trial.x.min())))


def _forged(trial: Trial, length: float, x: Tensor | None) -> Tensor:
    """How much of the forged gradient every step released: ``[runs, steps]``."""

    def direction(step: int, parameters: Tensor) -> Tensor:
        count = parameters.shape[-1]
        signs: Tensor = torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(count)) * 2.0 - 1
        turned: Tensor = (-1) ** step * signs / math.sqrt(count)
        return turned.to(parameters)

    notes = _Notes(len(trial), lambda step, parameters, released: released @ direction(step, parameters),
                   lambda step, parameters: length * direction(step, parameters))
    trial.train(notes, x=x)
    return notes.table(trial.procedure)
