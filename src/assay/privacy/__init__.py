"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.privacy.defenses.dpsgd import DPSGD as DPSGD
    from assay.privacy.defenses.dpsgd import Private as Private
    from assay.privacy.mechanisms import Composed as Composed
    from assay.privacy.mechanisms import Gaussian as Gaussian
    from assay.privacy.mechanisms import Renyi as Renyi
    from assay.privacy.mechanisms import SampledGaussian as SampledGaussian
    from assay.privacy.per_example import PerExample as PerExample
    from assay.privacy.proofs.accountant import Accountant as Accountant
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale

_LAZY = {
    "Accountant": ("assay.privacy.proofs.accountant", "Accountant"),
    "Composed": ("assay.privacy.mechanisms", "Composed"),
    "DPSGD": ("assay.privacy.defenses.dpsgd", "DPSGD"),
    "Gaussian": ("assay.privacy.mechanisms", "Gaussian"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "PerExample": ("assay.privacy.per_example", "PerExample"),
    "Private": ("assay.privacy.defenses.dpsgd", "Private"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Renyi": ("assay.privacy.mechanisms", "Renyi"),
    "SampledGaussian": ("assay.privacy.mechanisms", "SampledGaussian"),
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
