"""LiRA: is the model's answer more like those of models that saw the example, or of those that did not?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from assay.privacy.attacks.moments import FLOOR, Moments, moments
from assay.privacy.methods import Sight
from assay.privacy.signals import Values
from assay.targets.access import Access

ENOUGH = 64
"""Shadow models from which on each example's own variance beats one for all (the paper, figure 9)."""


@dataclass(frozen=True, kw_only=True)
class LiRA:
    """A likelihood ratio of two Gaussians fitted to each example, from shadow models that saw it and did not.

    *Paper*: Carlini, Chien, Nasr, Song, Terzis & Tramèr, "Membership Inference Attacks From First Principles",
    S&P 2022, algorithm 1 and equation 4.

    *Needs*: scores, and the adversary's own models trained on data like the target's.

    *Cost*: ``shadows`` trainings; one query an augmentation and example.

    *Blind spots*: few shadow models, or ones trained unlike the target, widen or shift the Gaussians; a model that
    answers with labels alone, or rounds, gives it little to read.

    *Held to*: on Gaussian worlds the Neyman-Pearson optimum, TPR = Φ(Φ⁻¹(0.001) + d) at 0.1 % FPR for shifts d of 1
    to 4: 1.8, 13.8, 46.4, 81.9 %.

    *Measured*: inside the exact interval at every d, online and offline, in `tests/privacy/test_membership.py`.

    Example:
        >>> import numpy as np
        >>> from assay import privacy
        >>> rng = np.random.default_rng(0)
        >>> keep = privacy.balanced_keep(65, 4000, seed=0)
        >>> values = rng.normal(size=keep.shape) + 3 * keep
        >>> signals = privacy.Signals(values, keep)
        >>> scores = privacy.judge(privacy.LiRA(), target=signals.models([64]), shadows=signals.models(slice(64)))
        >>> bool(0.97 < scores.auc() < 0.99)
        True

    Attributes:
        mode: ``"online"`` compares with models that saw the example and with ones that did not; ``"offline"`` with
            the latter alone, so that models can be trained before the examples are known.
        variance: of the Gaussians: each example's own, one for all, or ``"auto"``: its own from 64 models on.
        shadows: how many models to train.
        augment: ``"mirror"`` asks about the mirrored image too.
    """

    needs: ClassVar[Access] = Access.SCORES

    mode: Literal["online", "offline"] = "online"
    variance: Literal["auto", "example", "global"] = "auto"
    shadows: int = 64
    augment: Literal["none", "mirror"] = "none"

    def infer(self, sight: Sight, rng: np.random.Generator) -> Values:
        """Log likelihood ratios (online) or one-sided z-scores (offline), float64 ``[targets, examples]``."""
        signals, models = sight.signals, sight.models
        each = self.variance == "example" or (self.variance == "auto" and len(models) >= ENOUGH)
        out = moments(models, inside=False)
        if self.mode == "offline":
            # Equation 4, 1 − Pr[Z > φ], rises with the z-score, which does not saturate; over augmentations their sum.
            z = (signals - out.mean) / np.sqrt(_spread(out, each))
            return np.asarray(z.sum(-1) / np.sqrt(z.shape[-1]))
        inside = moments(models, inside=True)
        ratio = _density(signals, inside, each) - _density(signals, out, each)
        return np.asarray(ratio.mean(-1))


def _spread(world: Moments, each: bool) -> Values:
    return np.maximum(world.variance if each else world.pooled, FLOOR)


def _density(signals: Values, world: Moments, each: bool) -> Values:
    variance = _spread(world, each)
    return np.asarray(-((signals - world.mean) ** 2) / (2 * variance) - np.log(variance) / 2)
