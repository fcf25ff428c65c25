"""Cheap measures in training: stop early, or teach a student. What they lessen is average leakage."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data import Dataset
from assay.errors import ConfigError
from assay.games import name_of
from assay.targets.procedure import Training


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Training ends after so many epochs.

    *Paper*: Song & Mittal, USENIX Security 2021, §5.3: early stopping does as well as defenses built for the purpose.

    *Needs*: a procedure that is a dataclass with an attribute ``epochs``, such as ``privacy.Recipe``.

    *Cost*: less than none.

    *Blind spots*: an outlier is learned when it is learned; a mislabeled example that is kept in memory at all gives
    itself away. It proves nothing.

    *Held to*: fewer epochs leak less on average: LiRA's AUC on natural examples falls by more than 0.05 where epochs
    fall from 40 to 5.

    *Measured*: on the demo's digits in `tests/privacy/defenses/test_cheap_defenses.py`.

    Example:
        >>> from assay import privacy
        >>> privacy.EarlyStopping(epochs=5).epochs
        5

    Attributes:
        epochs: after how many.
    """

    epochs: int

    def train(self, training: Training) -> Training:
        """The procedure with fewer epochs. Raises ``ConfigError`` (PRV121) where it has none."""
        fit: Any = training.fit
        if not (is_dataclass(fit) and any(f.name == "epochs" for f in fields(fit))):
            raise ConfigError("PRV121", f"{training.name} has no epochs to stop after")
        shorter: Any = replace(fit, epochs=self.epochs)  # type: ignore[type-var]  # a dataclass, as was just seen
        return replace(training, fit=shorter, name=f"{training.name} + {name_of(self)}",
                       bare=training.bare or training)


@dataclass(frozen=True, kw_only=True, eq=False)
class Distillation:
    """What is published is a student, trained on other inputs that a teacher labeled; the teacher saw the data.

    *Paper*: Shejwalkar & Houmansadr, "Membership Privacy for Machine Learning Models Through Knowledge Transfer",
    AAAI 2021, with hard labels, so that it works with any procedure.

    *Needs*: unlabeled inputs that are not private.

    *Cost*: two trainings.

    *Blind spots*: a student parrots its teacher on inputs near the private ones (Jagielski et al., NeurIPS 2023). It
    proves nothing.

    *Held to*: a student of inputs that the teacher labels rightly is as good as one trained on their true labels, to
    0.03 in accuracy; LiRA's AUC on mislabeled examples falls by more than 0.05, from 1.00 to 0.86.

    *Measured*: on the demo's digits in `tests/privacy/defenses/test_cheap_defenses.py`.

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> privacy.Distillation(public=np.zeros((5, 4), np.float32)).public.shape
        (5, 4)

    Attributes:
        public: inputs for the student, float32 ``[n, …]``.
    """

    public: NDArray[np.float32]

    def train(self, training: Training) -> Training:
        """A procedure that trains a teacher, and returns its student."""
        def fit(data: Dataset, seed: int) -> object:
            teacher = training.train(data, seed)
            inputs = torch.as_tensor(self.public).to(teacher.device, teacher.dtype)
            taught = replace(data, x=self.public, y=teacher.labels(inputs).cpu().numpy().astype(np.int64))
            return training.fit(taught, seed + 1)

        return replace(training, fit=fit, name=f"{training.name} + Distillation()", bare=training.bare or training)
