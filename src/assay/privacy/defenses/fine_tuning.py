"""Going on with the training: what was hidden in weights has to survive every further step."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

from assay.errors import TargetError
from assay.games import name_of
from assay.privacy.pipeline import Pipeline
from assay.targets.base import Target, WhiteBox
from assay.targets.pytorch import TorchTarget, torch_target


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Trains a network that one was given for some epochs more, on data and by code of one's own.

    *Paper*: Song, Ristenpart & Shmatikov, CCS 2017, on countermeasures.
    *Needs*: weights, and training data.
    *Cost*: so many epochs of training.
    *Blind spots*: a payload sent many times over, which averages the steps out.
    *Held to*: chance, 1 byte in 256, at an accuracy that does not fall.
    *Measured*: 30 epochs at the full rate of 0.01 leave 0.3 % of the bytes in the low bits, 24 % in signs and 3 % in
    labels, but all of them in correlated values, at 98.0 to 99.0 % of 500 digits right; at a rate of 0.001 the signs
    keep 88 % and the labels everything (`tests/privacy/test_exfiltration.py`).

    Example:
        >>> from assay import demo, privacy
        >>> x, y = demo.digits("train")
        >>> tune = privacy.FineTune(pipeline=privacy.Pipeline(init=demo.network, x=x, y=y, epochs=1))
        >>> tx, ty = demo.digits()
        >>> float((tune.protect(demo.target()).labels(tx) == ty).float().mean()) > 0.95
        True

    Attributes:
        pipeline: data, epochs and rate; its own initial network is not used.
        seed: of the order of the examples; the trainer must not know it.
    """

    pipeline: Pipeline
    seed: int = 0

    def protect(self, target: Target) -> TorchTarget:
        """A copy, trained on. Raises ``TargetError`` (PRV603) where there are no weights."""
        if not isinstance(target, WhiteBox):
            raise TargetError("PRV603", f"{name_of(self)} needs weights, and {target.name} is no network")
        module = deepcopy(target.module())
        tuned = replace(self.pipeline, init=lambda seed: module).train(self.seed)
        bounds = (target.bounds.lower, target.bounds.upper)
        return torch_target(tuned, bounds=bounds, name=f"{target.name} after {name_of(self)}")
