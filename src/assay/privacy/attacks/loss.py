"""Membership by how well the model does: its loss, its loss beside what is usual, its entropy, its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from assay.privacy.attacks.moments import moments
from assay.privacy.methods import Sight
from assay.privacy.signals import Values
from assay.targets.access import Access


def log_probability(signals: Values) -> Values:
    """The label's log probability from its logit, without cancellation."""
    return np.asarray(-np.logaddexp(0.0, -signals))


@dataclass(frozen=True, kw_only=True)
class LossThreshold:
    """Members have a lower loss than others: one threshold for all examples.

    *Paper*: Yeom, Giacomelli, Fredrikson & Jha, "Privacy Risk in Machine Learning", CSF 2018.

    *Needs*: scores.

    *Cost*: one query an example.

    *Blind spots*: hard examples have a high loss even as members, so it finds next to none of them at a low false
    positive rate, however many it gets right on average.

    *Held to*: on Gaussian worlds without differences between examples the optimum: TPR = Φ(Φ⁻¹(0.01) + d), 9.2 % at
    1 % FPR for d = 1.

    *Measured*: inside the exact interval in `tests/privacy/test_membership.py`.

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> keep = privacy.balanced_keep(2, 4000, seed=0)
        >>> signals = privacy.Signals(np.random.default_rng(0).normal(size=keep.shape) + 2 * keep, keep)
        >>> bool(0.91 < privacy.judge(privacy.LossThreshold(), target=signals).auc() < 0.93)
        True
    """

    needs: ClassVar[Access] = Access.SCORES

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """Logits of the label, which order examples as their losses do: float64 ``[targets, examples]``."""
        return np.asarray(sight.signals.mean(-1))


@dataclass(frozen=True, kw_only=True)
class CalibratedLoss:
    """The loss beside the mean loss of models that did not see the example.

    *Paper*: Watson, Guo, Cormode & Sablayrolles, "On the Importance of Difficulty Calibration in Membership Inference
    Attacks", ICLR 2022; Sablayrolles et al., ICML 2019.

    *Needs*: scores, and shadow models.

    *Cost*: ``shadows`` trainings; one query an example.

    *Blind spots*: it knows how hard an example is, not how much models differ about it.

    *Held to*: above the global threshold and below LiRA where examples differ in difficulty and in spread, the order
    of the LiRA paper's table at 0.1 % FPR (0.0, 1.3, 7.1 %).

    *Measured*: that order, with intervals apart, in `tests/privacy/test_membership.py`.

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> rng = np.random.default_rng(0)
        >>> keep = privacy.balanced_keep(17, 4000, seed=0)
        >>> losses = np.logaddexp(0, -(rng.normal(size=4000) * 3 + rng.normal(size=keep.shape) + 2 * keep))
        >>> signals = privacy.Signals(-np.log(np.expm1(losses)), keep)
        >>> target, shadows = signals.models([16]), signals.models(slice(16))
        >>> scores = privacy.judge(privacy.CalibratedLoss(), target=target, shadows=shadows)
        >>> scores.auc() > privacy.judge(privacy.LossThreshold(), target=target).auc() + 0.05
        True

    Attributes:
        shadows: how many models to train.
    """

    needs: ClassVar[Access] = Access.SCORES

    shadows: int = 16

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """By how much the label's log probability exceeds what is usual: float64 ``[targets, examples]``."""
        models = sight.models
        usual = moments(type(models)(log_probability(models.values.astype(np.float64)), models.keep), inside=False)
        return np.asarray((log_probability(sight.signals) - usual.mean).mean(-1))


@dataclass(frozen=True, kw_only=True)
class ModifiedEntropy:
    """Members are answered with confidence and rightly: entropy that counts the label apart; the scores alone.

    *Paper*: Song & Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security 2021,
    equation 8; thresholds for each class by shadow models or one for all.

    *Needs*: scores: what an API returns, probabilities or logits, is enough.

    *Cost*: one query an example.

    *Blind spots*: those of a global threshold on the loss.

    *Held to*: entropies computed by hand: 0 for a sure right answer, log 2 halves for two even classes (0.693).

    *Measured*: equal to 1e-12 in `tests/privacy/test_membership.py`.

    Example:
        >>> from assay.privacy.attacks.loss import modified_entropy
        >>> import torch
        >>> [round(v, 3) for v in modified_entropy(torch.zeros(1, 2), torch.tensor([0])).tolist()]
        [0.693]
    """

    needs: ClassVar[Access] = Access.SCORES

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """The negated modified entropy, float64 ``[targets, examples]``."""
        x, y = torch.as_tensor(sight.x), torch.as_tensor(sight.y)
        found = []
        for view in sight.views:
            scores = view.scores(x, torch.arange(len(x)))
            found.append(-modified_entropy(scores, y).numpy())
        return np.stack(found)


def modified_entropy(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """``−(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i)``: float64 ``[rows]`` of logits ``[rows, classes]``."""
    z = scores.to(torch.float64).log_softmax(-1)
    p = z.exp()
    right = torch.nn.functional.one_hot(y, z.shape[1]).bool()
    rest = torch.log1p(-p.clamp(max=1 - 1e-16))
    return torch.where(right, -(1 - p) * z, -p * rest).sum(1)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Members are labeled rightly more often: the label alone, one bit an example.

    *Paper*: Yeom et al., CSF 2018, §3: the advantage equals the gap between training and test accuracy.

    *Needs*: labels.

    *Cost*: one query an example.

    *Blind spots*: it says the same of every right answer; a model without errors on either side gives nothing away.

    *Held to*: balanced accuracy ½ + gap/2 exactly: 0.75 for a model right on all members and half of the others.

    *Measured*: exactly that in `tests/privacy/test_membership.py`.

    Example:
        >>> from assay import privacy
        >>> privacy.Gap().needs.name
        'LABELS'
    """

    needs: ClassVar[Access] = Access.LABELS

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """One where the label is right, else zero: float64 ``[targets, examples]``."""
        x = torch.as_tensor(sight.x)
        asked = [view.labels(x, torch.arange(len(x))).cpu().numpy() for view in sight.views]
        return np.stack([(labels == sight.y).astype(np.float64) for labels in asked])
