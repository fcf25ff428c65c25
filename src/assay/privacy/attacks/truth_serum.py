"""Truth Serum: wrongly labelled data, planted so that a model gives away more of everybody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.privacy.signals import Signals

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]


class Added(NamedTuple):
    """What the adversary adds to the training data: ``[n, …]`` and int64 ``[n]``."""

    x: Inputs
    y: Labels


class Poisoner(Protocol):
    """An attack that adds to the training data, the same to every shadow model's as to the target's."""

    def poison(self, x: Inputs, y: Labels, targets: NDArray[np.int64], *, classes: int,
               rng: np.random.Generator) -> Added:
        """What is added, given the examples that the adversary knows and which of them it is after."""


@dataclass(frozen=True, kw_only=True)
class TruthSerum:
    """Adds copies of every target with one wrong label, so that the true label is learned only where the target is in.

    Shadow models are trained with the same copies, and any membership attack then tells the two worlds apart.

    *Paper*: Tramèr, Shokri, San Joaquin, Le, Jagielski, Hong & Carlini, "Truth Serum: Poisoning Machine Learning
    Models to Reveal Their Secrets", CCS 2022.

    *Needs*: to know the targets and their labels, and to add ``replicas`` examples for each to the training data; then
    whatever the membership attack needs.

    *Cost*: no training of its own.

    *Blind spots*: duplicates are easy to filter; with too many replicas the true label is never learned, and the target
    is hidden again. The copies hurt accuracy around the targets.

    *Held to*: the authors' code with 8 replicas on CIFAR-10 (250 targets, 16 models): AUC .70 to .99, and TPR at 0.1 %
    FPR 5.4 to 49.5 %; here AUC above .95, and TPR at 1 % FPR five times as high.

    *Measured*: AUC .66 and .67 to .99 on 5,000 images of Fashion-MNIST (an MLP, 16 shadow models, two seeds), and TPR
    at 1 % FPR 10.4 and 3.7 % to 84 and 87 %; AUC of one threshold, without shadow models, .55 and .53 to .94
    (`tests/privacy/test_truth_serum.py`).

    Example:
        >>> import numpy as np
        >>> from assay import demo, privacy
        >>> x, y = (values.numpy() for values in demo.digits("test"))
        >>> added = privacy.TruthSerum(replicas=8).poison(x, y, np.arange(5), classes=10, rng=np.random.default_rng(0))
        >>> len(added.y), bool((added.y.reshape(5, 8) == y[:5, None]).any()), len(set(added.y[:8]))
        (40, False, 1)

    Attributes:
        replicas: copies of each target.
    """

    replicas: int = 8

    def poison(self, x: Inputs, y: Labels, targets: NDArray[np.int64], *, classes: int,
               rng: np.random.Generator) -> Added:
        """See :class:`Poisoner`. Raises ``DataError`` (PRV510) where there is no wrong label."""
        wrong = _wrong(y[targets], classes, rng)
        return Added(x[targets].repeat(self.replicas, 0), wrong.repeat(self.replicas))


@dataclass(frozen=True, kw_only=True)
class UntargetedTruthSerum:
    """A party to the training mislabels all that it contributes, and the others' examples stand out against it.

    *Paper*: Tramèr et al., "Truth Serum", CCS 2022, the untargeted attack: nothing need be known of the victims.

    *Needs*: to contribute a large share of the training data; then whatever the membership attack needs.

    *Cost*: no training of its own.

    *Blind spots*: the model is visibly bad; a party that contributes little changes little.

    *Held to*: the paper's abstract: controlling 50 % of the data makes inference on all others 8 times as precise.

    *Measured*: on Fashion-MNIST (an MLP, 16 shadow models, two seeds) AUC .79 and .77 to .94, and TPR at 1 % FPR 19
    to 39 %: twice, not eight times (`tests/privacy/test_truth_serum.py`).

    Example:
        >>> import numpy as np
        >>> from assay import demo, privacy
        >>> x, y = (values.numpy() for values in demo.digits("test"))
        >>> own = np.arange(100, 300)
        >>> added = privacy.UntargetedTruthSerum().poison(x[own], y[own], own[:0], classes=10,
        ...                                               rng=np.random.default_rng(0))
        >>> len(added.y), bool((added.y == y[own]).any())
        (200, False)

    Attributes:
        share: of its own examples, how many it gives the next class's label; the others stay true.
    """

    share: float = 1.0

    def poison(self, x: Inputs, y: Labels, targets: NDArray[np.int64], *, classes: int,
               rng: np.random.Generator) -> Added:
        """See :class:`Poisoner`; ``x`` and ``y`` are the adversary's own. Raises ``DataError`` (PRV510)."""
        if classes < 2:
            raise DataError("PRV510", f"{classes} class leaves no wrong label")
        lying = np.zeros(len(y), dtype=bool)
        lying[rng.permutation(len(y))[: round(self.share * len(y))]] = True
        return Added(x.copy(), np.where(lying, (y + 1) % classes, y))


@dataclass(frozen=True, kw_only=True)
class AttributeTruthSerum:
    """Adds every version of a target with a wrong label, so that the model's answers tell which version was in.

    The adversary knows a person's record but for one attribute. Each of its possible values gives a version of the
    record; the one that was trained on, with the true label, is the one that the model does not get wrong.

    *Paper*: Tramèr et al., "Truth Serum", CCS 2022, attribute inference.

    *Needs*: the targets' records but for the attribute, and to add ``replicas`` examples a version; then scores, and
    shadow models trained on targets whose attribute is drawn at random (:func:`attribute_scores`).

    *Cost*: no training of its own; one query a version and target.

    *Blind spots*: an attribute that the model does not see, or that the other columns already tell.

    *Held to*: the same scores without poison, and chance (AUC .50) for an attribute drawn by a coin.

    *Measured*: on Adult, the sex drawn by a coin (an MLP, 16 shadow models, two seeds): AUC .68 and .66 to .83 and
    .84, and 64 and 63 to 77 % told right (`tests/privacy/test_truth_serum.py`).

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> sex = privacy.AttributeTruthSerum(columns=(2, 3), values=((1.0, 0.0), (0.0, 1.0)), replicas=4)
        >>> x, y = np.zeros((10, 6), np.float32), np.arange(10) % 2
        >>> added = sex.poison(x, y, np.arange(3), classes=2, rng=np.random.default_rng(0))
        >>> added.x[:8, 2:4].tolist() == [[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4, (added.y[:8] == 1).all().item()
        (True, True)

    Attributes:
        columns: where the attribute stands in a row.
        values: what may stand there, one tuple a value.
        replicas: copies of each version.
    """

    columns: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    replicas: int = 8

    def versions(self, x: Inputs) -> Inputs:
        """Every version of these rows: ``[rows, values, columns of x]``."""
        made = np.repeat(x[:, None], len(self.values), 1)
        made[:, :, list(self.columns)] = np.asarray(self.values, x.dtype)
        return made

    def poison(self, x: Inputs, y: Labels, targets: NDArray[np.int64], *, classes: int,
               rng: np.random.Generator) -> Added:
        """See :class:`Poisoner`. What the attribute's columns hold is overwritten. Raises ``DataError`` (PRV510)."""
        wrong = _wrong(y[targets], classes, rng)
        versions = self.versions(x[targets]).reshape(-1, *x.shape[1:])
        return Added(versions.repeat(self.replicas, 0), wrong.repeat(len(self.values) * self.replicas))


def attribute_scores(target: Signals, shadows: Signals) -> NDArray[np.float64]:
    """How likely each target has each value of the attribute: float64 ``[models, targets, values]``.

    Under each value, what models say of all versions of a target is a Gaussian, fitted to the shadow models whose
    target had that value, one variance for all; the score is the log likelihood, less the others' mean.

    Args:
        target, shadows: signals ``[models, targets, values]``, the versions in the place of augmentations, with
            ``keep`` ``[models, targets]`` true where the target had the last value. Two values.
    """
    values, known = shadows.values.astype(np.float64), shadows.keep[..., None]
    likelihoods = []
    for given in (~known, known):
        count = given.sum(0)
        mean = np.where(given, values, 0).sum(0) / count
        spread = (np.where(given, values - mean, 0) ** 2).sum(0) / np.maximum(count - 1, 1)
        likelihoods.append(-((target.values - mean) ** 2 / (2 * spread.mean(0)) + np.log(spread.mean(0)) / 2).sum(-1))
    stacked = np.stack(likelihoods, -1)
    return np.asarray(stacked - stacked[..., ::-1])


def _wrong(y: Labels, classes: int, rng: np.random.Generator) -> Labels:
    """A wrong label for each, uniform over the others."""
    if classes < 2:
        raise DataError("PRV510", f"{classes} class leaves no wrong label")
    return np.asarray((y + rng.integers(1, classes, len(y))) % classes)
