"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.numerics.chunks import processes as processes
    from assay.numerics.ensembles import Recipe as Recipe
    from assay.numerics.ensembles import mirror as mirror
    from assay.numerics.ensembles import random_mirror as random_mirror
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.shadows import Shadows as Shadows
    from assay.privacy.shadows import seeds_of as seeds_of
    from assay.privacy.shadows import train_each as train_each
    from assay.privacy.shadows import train_shadows as train_shadows
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale

_LAZY = {
    "Operating": ("assay.privacy.rates", "Operating"),
    "Recipe": ("assay.numerics.ensembles", "Recipe"),
    "Shadows": ("assay.privacy.shadows", "Shadows"),
    "mirror": ("assay.numerics.ensembles", "mirror"),
    "processes": ("assay.numerics.chunks", "processes"),
    "random_mirror": ("assay.numerics.ensembles", "random_mirror"),
    "seeds_of": ("assay.privacy.shadows", "seeds_of"),
    "train_each": ("assay.privacy.shadows", "train_each"),
    "train_shadows": ("assay.privacy.shadows", "train_shadows"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "balanced_keep": ("assay.privacy.signals", "balanced_keep"),
    "logit_of_probability": ("assay.privacy.signals", "logit_of_probability"),
    "logit_scale": ("assay.privacy.signals", "logit_scale"),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
