"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.privacy.attacks.discoverable import DiscoverableExtraction as DiscoverableExtraction
    from assay.privacy.attacks.exposure import Exposure as Exposure
    from assay.privacy.attacks.extraction import Extracted as Extracted
    from assay.privacy.attacks.extraction import Extraction as Extraction
    from assay.privacy.attacks.extraction import Prompts as Prompts
    from assay.privacy.games.discovery import DiscoveryGame as DiscoveryGame
    from assay.privacy.games.exposure import ExposureGame as ExposureGame
    from assay.privacy.games.extraction import ExtractionGame as ExtractionGame
    from assay.privacy.language import Questioned as Questioned
    from assay.privacy.planting import Secret as Secret
    from assay.privacy.planting import TextCanary as TextCanary
    from assay.privacy.planting import planted as planted
    from assay.privacy.planting import text_canaries as text_canaries
    from assay.privacy.ranking import Lowercase as Lowercase
    from assay.privacy.ranking import Perplexity as Perplexity
    from assay.privacy.ranking import Reading as Reading
    from assay.privacy.ranking import Reference as Reference
    from assay.privacy.ranking import Window as Window
    from assay.privacy.ranking import Zlib as Zlib
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.sampling import DecayingTemperature as DecayingTemperature
    from assay.privacy.sampling import TopK as TopK
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale
    from assay.privacy.verbatim import Corpus as Corpus

_LAZY = {
    "Corpus": ("assay.privacy.verbatim", "Corpus"),
    "DecayingTemperature": ("assay.privacy.sampling", "DecayingTemperature"),
    "DiscoverableExtraction": ("assay.privacy.attacks.discoverable", "DiscoverableExtraction"),
    "DiscoveryGame": ("assay.privacy.games.discovery", "DiscoveryGame"),
    "Exposure": ("assay.privacy.attacks.exposure", "Exposure"),
    "ExposureGame": ("assay.privacy.games.exposure", "ExposureGame"),
    "Extracted": ("assay.privacy.attacks.extraction", "Extracted"),
    "Extraction": ("assay.privacy.attacks.extraction", "Extraction"),
    "ExtractionGame": ("assay.privacy.games.extraction", "ExtractionGame"),
    "Lowercase": ("assay.privacy.ranking", "Lowercase"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "Perplexity": ("assay.privacy.ranking", "Perplexity"),
    "Prompts": ("assay.privacy.attacks.extraction", "Prompts"),
    "Questioned": ("assay.privacy.language", "Questioned"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Reading": ("assay.privacy.ranking", "Reading"),
    "Reference": ("assay.privacy.ranking", "Reference"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Secret": ("assay.privacy.planting", "Secret"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "TextCanary": ("assay.privacy.planting", "TextCanary"),
    "TopK": ("assay.privacy.sampling", "TopK"),
    "Window": ("assay.privacy.ranking", "Window"),
    "Zlib": ("assay.privacy.ranking", "Zlib"),
    "balanced_keep": ("assay.privacy.signals", "balanced_keep"),
    "logit_of_probability": ("assay.privacy.signals", "logit_of_probability"),
    "logit_scale": ("assay.privacy.signals", "logit_scale"),
    "planted": ("assay.privacy.planting", "planted"),
    "text_canaries": ("assay.privacy.planting", "text_canaries"),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
