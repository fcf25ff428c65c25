"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.privacy.attacks.exfiltration.capacity import CapacityAbuse as CapacityAbuse
    from assay.privacy.attacks.exfiltration.correlated import CorrelatedValues as CorrelatedValues
    from assay.privacy.attacks.exfiltration.framing import Frame as Frame
    from assay.privacy.attacks.exfiltration.framing import Received as Received
    from assay.privacy.attacks.exfiltration.low_bits import LowBits as LowBits
    from assay.privacy.attacks.exfiltration.signs import Signs as Signs
    from assay.privacy.defenses.weight_changes import QuantizeWeights as QuantizeWeights
    from assay.privacy.defenses.weight_changes import RandomizeLowBits as RandomizeLowBits
    from assay.privacy.defenses.weight_changes import WeightNoise as WeightNoise
    from assay.privacy.defenses.weight_scan import Scan as Scan
    from assay.privacy.defenses.weight_scan import WeightScan as WeightScan
    from assay.privacy.games.exfiltration import ExfiltrationGame as ExfiltrationGame
    from assay.privacy.games.supply_chain import SupplyChainGame as SupplyChainGame
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.recipe import Recipe as Recipe
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale

_LAZY = {
    "CapacityAbuse": ("assay.privacy.attacks.exfiltration.capacity", "CapacityAbuse"),
    "CorrelatedValues": ("assay.privacy.attacks.exfiltration.correlated", "CorrelatedValues"),
    "ExfiltrationGame": ("assay.privacy.games.exfiltration", "ExfiltrationGame"),
    "Frame": ("assay.privacy.attacks.exfiltration.framing", "Frame"),
    "LowBits": ("assay.privacy.attacks.exfiltration.low_bits", "LowBits"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "QuantizeWeights": ("assay.privacy.defenses.weight_changes", "QuantizeWeights"),
    "RandomizeLowBits": ("assay.privacy.defenses.weight_changes", "RandomizeLowBits"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Received": ("assay.privacy.attacks.exfiltration.framing", "Received"),
    "Recipe": ("assay.privacy.recipe", "Recipe"),
    "Scan": ("assay.privacy.defenses.weight_scan", "Scan"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "Signs": ("assay.privacy.attacks.exfiltration.signs", "Signs"),
    "SupplyChainGame": ("assay.privacy.games.supply_chain", "SupplyChainGame"),
    "WeightNoise": ("assay.privacy.defenses.weight_changes", "WeightNoise"),
    "WeightScan": ("assay.privacy.defenses.weight_scan", "WeightScan"),
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
