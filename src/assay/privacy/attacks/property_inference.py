"""Property inference: something about the training data as a whole, from models that had it and models that had not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.errors import DataError
from assay.targets.access import Access
from assay.threats import View

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Suspects:
    """What the adversary holds: models of its own whose data it chose, the targets, and records to ask about.

    Attributes:
        shadows: its own models.
        labels: whether the data of each had the property, bool ``[shadows]``.
        targets: the models under attack.
        x: records of the adversary's, in the targets' box, ``[m, …]``.
    """

    shadows: Sequence[View]
    labels: NDArray[np.bool_]
    targets: Sequence[View]
    x: Tensor


@dataclass(frozen=True, kw_only=True)
class SortedWeights:
    """Learns the property from weights, their neurons sorted so that equal networks look equal.

    *Paper*: Ganju, Wang, Yang, Gunter & Borisov, CCS 2018: neurons in the order of the sum of their weights; the
    meta-classifier is ridge regression, its strength chosen by leave-one-out.
    *Needs*: weights.
    *Cost*: as many models trained as there are shadows; no query.
    *Blind spots*: networks that are no chain of dense layers; networks of more weights than there are shadows.
    *Held to*: features equal to 1e-6 for permuted neurons; 30 of 30 where the property moves a bias.
    *Measured*: 52 and 77 of 100 networks told right at two seeds, 20 % from 50 % of women among 2,000 rows of Adult, by
    200 shadow models: a poor figure. The paper trains a deeper meta-classifier on more shadows; :class:`WeightPaths`
    needs neither (`tests/privacy/test_property_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.SortedWeights().needs.name
        'WEIGHTS'
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    def infer(self, suspects: Suspects) -> Values:
        """See :class:`~assay.privacy.games.property_inference.Profiler`. Raises ``DataError`` (PRV651)."""
        known = np.stack([canonical(view.module()) for view in suspects.shadows])
        asked = np.stack([canonical(view.module()) for view in suspects.targets])
        return ridge(known, suspects.labels, asked)


@dataclass(frozen=True, kw_only=True)
class WeightPaths:
    """Learns the property from products of weights along all paths, which no order or scale of neurons changes.

    *Paper*: after Ganju, Wang, Yang, Gunter & Borisov, CCS 2018; products instead of sorting are ours: rectifiers leave
    them alone under every permutation of neurons and under every positive scale that the next layer takes back.
    *Needs*: weights.
    *Cost*: as many models trained as there are shadows; no query.
    *Blind spots*: networks that are no chain of dense layers; what only shows in which neurons are active.
    *Held to*: features equal to 1e-6 for permuted and rescaled neurons; a linear network's products are the network.
    *Measured*: 86 and 93 of 100 networks told right at two seeds, 20 % from 50 % of women among 2,000 rows of Adult, by
    200 shadow models; the answers to 1,000 queries give 78 and 91 of the same networks, sorted weights 52 and 77
    (`tests/privacy/test_property_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.WeightPaths().needs.name
        'WEIGHTS'
    """

    needs: ClassVar[Access] = Access.WEIGHTS

    def infer(self, suspects: Suspects) -> Values:
        """See :class:`~assay.privacy.games.property_inference.Profiler`. Raises ``DataError`` (PRV651)."""
        known = np.stack([products(view.module()) for view in suspects.shadows])
        asked = np.stack([products(view.module()) for view in suspects.targets])
        return ridge(known, suspects.labels, asked)


@dataclass(frozen=True, kw_only=True)
class QueryProfile:
    """Learns the property from what models say of the adversary's own records.

    *Paper*: Zhang, Tople & Ohrimenko, USENIX Security 2021 (leakage of dataset properties), black box; the
    meta-classifier is ridge regression, its strength chosen by leave-one-out.
    *Needs*: scores.
    *Cost*: as many models trained as there are shadows; ``queries`` a target.
    *Blind spots*: what shows on no record that the adversary holds.
    *Held to*: chance, 50 %, on data without the property.
    *Measured*: 78 and 91 of 100 networks told right at two seeds, 20 % from 50 % of women among 2,000 rows of Adult, by
    200 shadow models; 49 of 100 where the property is a coin (`tests/privacy/test_property_inference.py`).

    Example:
        >>> from assay import privacy
        >>> privacy.QueryProfile().needs.name
        'SCORES'

    Attributes:
        queries: records asked about; the first of those that the adversary holds.
    """

    needs: ClassVar[Access] = Access.SCORES

    queries: int = 1000

    def infer(self, suspects: Suspects) -> Values:
        """See :class:`~assay.privacy.games.property_inference.Profiler`."""
        x = suspects.x[: self.queries]
        known = np.stack([_profile(view, x) for view in suspects.shadows])
        asked = np.stack([_profile(view, x) for view in suspects.targets])
        return ridge(known, suspects.labels, asked)


def canonical(module: nn.Module) -> Values:
    """The weights of a chain of dense layers, hidden neurons sorted by the sum of their incoming weights.

    Raises:
        DataError: PRV651 where the network is no such chain.
    """
    layers = _chain(module)
    rows, order = [], np.arange(layers[0][0].shape[1])
    for at, (whole, bias) in enumerate(layers):
        weight = whole[:, order]
        order = np.argsort(weight.sum(1) + bias, kind="stable") if at < len(layers) - 1 else np.arange(len(weight))
        rows.append(np.column_stack([weight, bias])[order].ravel())
    return np.concatenate(rows)


def products(module: nn.Module) -> Values:
    """From every input and every layer's bias to every output, the sum over paths; outputs' mean taken off.

    Raises:
        DataError: PRV651 where the network is no chain of dense layers.
    """
    rows, onward = [], None
    for weight, bias in reversed(_chain(module)):
        onward = np.eye(len(weight)) - 1 / len(weight) if onward is None else onward
        rows.append(onward @ bias)
        onward = onward @ weight
    return np.concatenate([*rows, np.asarray(onward).ravel()])


def _chain(module: nn.Module) -> list[tuple[Values, Values]]:
    """Weight and bias of each dense layer, in their order."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers or sum(p.numel() for p in module.parameters()) != sum(
            p.numel() for layer in layers for p in layer.parameters()):
        raise DataError("PRV651", "the network has layers with weights that are not dense")
    for one, two in pairwise(layers):
        if one.out_features != two.in_features:
            raise DataError("PRV651", f"{one.out_features} neurons are followed by {two.in_features} inputs")
    return [(_numbers(layer.weight), np.zeros(layer.out_features) if layer.bias is None else _numbers(layer.bias))
            for layer in layers]


def _numbers(parameter: Tensor) -> Values:
    return parameter.detach().cpu().double().numpy()


def ridge(known: Values, labels: NDArray[np.bool_], asked: Values) -> Values:
    """Least squares on ±1 with a quadratic penalty: the higher, the likelier true; ``[len(asked)]``.

    Columns are standardized by ``known``. The penalty is the one of 13 with the least leave-one-out error, which for
    linear smoothers is exact: (y − ŷ)ᵢ / (1 − Hᵢᵢ) (Allen, Technometrics 1974).
    """
    mean, scale = known.mean(0), known.std(0)
    scale = np.where(scale > 0, scale, 1.0) * np.sqrt(known.shape[1])
    a, b, y = (known - mean) / scale, (asked - mean) / scale, np.where(labels, 1.0, -1.0)
    values, vectors = np.linalg.eigh(a @ a.T)
    offset = y.mean()

    def solved(penalty: float) -> tuple[float, Values]:
        inverse = (vectors / (values + penalty)) @ vectors.T
        dual = inverse @ (y - offset)
        return float(np.square(dual / np.diag(inverse)).mean()), dual

    _, dual = min((solved(penalty) for penalty in 10.0 ** np.arange(-6, 7) * values.mean()), key=lambda fit: fit[0])
    return np.asarray(b @ (a.T @ dual) + offset, np.float64)


def _profile(view: View, x: Tensor) -> Values:
    at = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    said = view.scores(x, at).double().log_softmax(1)
    return said.flatten().cpu().numpy()
