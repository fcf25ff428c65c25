"""Attribute inference: a hidden field of a record whose other fields are known, by asking a model about both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError
from assay.targets.access import Access
from assay.threats import View

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Where the hidden field is in a record, and what it can be.

    Attributes:
        columns: of the input.
        values: what the columns hold for each value, one tuple a value; empty for one column a value (one-hot).
    """

    columns: tuple[int, ...]
    values: tuple[tuple[float, ...], ...] = ()

    @property
    def table(self) -> Tensor:
        """What the columns hold for each value: ``[values, columns]``."""
        return torch.tensor(self.values) if self.values else torch.eye(len(self.columns))

    def read(self, x: Tensor) -> Tensor:
        """Which value each record has: int64 ``[n]``. Raises ``DataError`` (PRV640) where it has none of them."""
        match = (x[:, None, list(self.columns)] == self.table.to(x)).all(2)
        if not bool(match.any(1).all()):
            raise DataError("PRV640", f"record {int((~match.any(1)).nonzero()[0, 0])} has none of the values")
        return match.to(torch.int64).argmax(1)

    def written(self, x: Tensor, value: int) -> Tensor:
        """The records with this value instead of their own."""
        changed = x.clone()
        changed[:, list(self.columns)] = self.table[value].to(x)
        return changed

    def rest(self, x: Tensor) -> Values:
        """The other columns: float64 ``[n, rest]``."""
        keep = [c for c in range(x.shape[1]) if c not in self.columns]
        return x[:, keep].detach().cpu().double().numpy()


class Trees(Protocol):
    """What is used of scikit-learn's boosted trees."""

    @property
    def classes_(self) -> NDArray[np.int64]: ...

    def predict_proba(self, x: Values) -> Values:
        """``[n, classes]``."""


@dataclass(frozen=True, eq=False)
class Imputer:
    """What people of the same kind have, given the other fields: boosted trees on records that the adversary has.

    Attributes:
        x: records, float ``[m, d]``.
        y: their labels, int64 ``[m]``.
        attribute: the hidden field.
    """

    x: Tensor
    y: Tensor
    attribute: Attribute

    def predict(self, x: Tensor, y: Tensor | None = None) -> Values:
        """The log-probability of each value, float64 ``[n, values]``, given the rest and, where wanted, the label."""
        model = self._alone if y is None else self._labeled
        found = np.full((len(x), len(self.attribute.table)), 1e-6)
        found[:, model.classes_] = model.predict_proba(self._fields(x, y))
        return np.asarray(np.log(found.clip(1e-6)))

    @cached_property
    def _alone(self) -> Trees:
        return self._fitted(None)

    @cached_property
    def _labeled(self) -> Trees:
        return self._fitted(self.y)

    def _fitted(self, y: Tensor | None) -> Trees:
        from sklearn.ensemble import HistGradientBoostingClassifier

        trees = HistGradientBoostingClassifier(max_iter=60, random_state=0)
        fitted: Trees = trees.fit(self._fields(self.x, y), self.attribute.read(self.x).numpy())
        return fitted

    def _fields(self, x: Tensor, y: Tensor | None) -> Values:
        rest = self.attribute.rest(x)
        return rest if y is None else np.column_stack([rest, y.cpu().numpy()])


@dataclass(frozen=True, eq=False)
class Dossier:
    """What the adversary knows: the records but for one field, their labels, and others of the same kind.

    Attributes:
        x: the records, the hidden field in them overwritten by its first value.
        y: their labels, int64 ``[n]``.
        attribute: the hidden field.
        imputer: what is to be expected of it without the model.
    """

    x: Tensor
    y: Tensor
    attribute: Attribute
    imputer: Imputer

    def asked(self, view: View) -> Tensor:
        """The model's log-probabilities of each record with each value: ``[n, values, classes]``; so many queries."""
        at = torch.arange(len(self.x))
        return torch.stack([view.scores(self.attribute.written(self.x, value), at).double().log_softmax(1)
                            for value in range(len(self.attribute.table))], 1)

    def confidences(self, asked: Tensor) -> Tensor:
        """Of the true label alone: ``[n, values]``."""
        return asked.gather(2, self.y[:, None, None].expand(-1, asked.shape[1], 1))[..., 0]


@dataclass(frozen=True, kw_only=True)
class Imputation:
    """Asks no model at all: what people like this one have.

    *Paper*: Jayaraman & Evans, CCS 2022: what any attack has to beat before it counts.
    *Needs*: labels, of which it asks none.
    *Cost*: none.
    *Blind spots*: everything that only the model knows.
    *Held to*: an advantage over imputation of exactly 0, being imputation.
    *Measured*: 0 (`tests/privacy/test_attribute_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.Imputation().needs.name
        'LABELS'
    """

    needs: ClassVar[Access] = Access.LABELS

    def infer(self, view: View, dossier: Dossier, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.attribute_inference.Guesser`."""
        return torch.as_tensor(dossier.imputer.predict(dossier.x, dossier.y).argmax(1))


@dataclass(frozen=True, kw_only=True)
class PriorTimesConfidence:
    """Takes the value that is likeliest given the rest, weighted by the model's confidence in the true label.

    *Paper*: Fredrikson et al., USENIX Security 2014, with the model's confidence in place of its confusion matrix and
    an imputer in place of the marginal; Yeom, Giacomelli, Fredrikson & Jha, CSF 2018, is the same with a loss.
    *Needs*: scores.
    *Cost*: as many queries a record as the field has values.
    *Blind spots*: models that do not use the field, or use it as everybody would expect.
    *Held to*: imputation, beaten in more than half of the records on which the two disagree, at 95 % confidence.
    *Measured*: on Adult's marital status, 2,000 members each: of 66 disagreements with imputation 36 won against an
    ordinary network (54.5 %, no leak), of 103 against an overfitted one 74: 2.3 % of records beyond imputation
    (`tests/privacy/test_attribute_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.PriorTimesConfidence().needs.name
        'SCORES'

    Attributes:
        trust: the exponent of the confidence.
        impute: whether the prior is the imputer's; else every value is as likely as any other.
    """

    needs: ClassVar[Access] = Access.SCORES

    trust: float = 1.0
    impute: bool = True

    def infer(self, view: View, dossier: Dossier, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.attribute_inference.Guesser`."""
        confident = self.trust * dossier.confidences(dossier.asked(view))
        return (confident + torch.as_tensor(dossier.imputer.predict(dossier.x)) if self.impute else confident).argmax(1)


@dataclass(frozen=True, kw_only=True)
class CSMIA:
    """Takes the one value with which the model is right; of several the most confident, of none the least.

    *Paper*: Mehnaz et al., USENIX Security 2022, the confidence-score attack.
    *Needs*: scores.
    *Cost*: as many queries a record as the field has values.
    *Blind spots*: models that are right whatever the field says.
    *Held to*: 100 % of the records of a model that has learned them by heart, where imputation has 50 %.
    *Measured*: 100 % there; 54 % of Adult's marital status where imputation alone has 75 %, which is why it has to be
    compared with it (`tests/privacy/test_attribute_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.CSMIA().needs.name
        'SCORES'
    """

    needs: ClassVar[Access] = Access.SCORES

    def infer(self, view: View, dossier: Dossier, rng: torch.Generator) -> Tensor:
        """See :class:`~assay.privacy.games.attribute_inference.Guesser`."""
        asked = dossier.asked(view)
        right = asked.argmax(2) == dossier.y[:, None]
        most = torch.where(right, dossier.confidences(asked), -torch.inf).argmax(1)
        return torch.where(right.any(1), most, asked.amax(2).argmin(1))
