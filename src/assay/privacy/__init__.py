"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.numerics.chunks import processes as processes
    from assay.numerics.ensembles import Recipe as Recipe
    from assay.numerics.ensembles import mirror as mirror
    from assay.numerics.ensembles import random_mirror as random_mirror
    from assay.privacy.attacks.attribute_inference import CSMIA as CSMIA
    from assay.privacy.attacks.attribute_inference import Attribute as Attribute
    from assay.privacy.attacks.attribute_inference import Imputation as Imputation
    from assay.privacy.attacks.attribute_inference import Imputer as Imputer
    from assay.privacy.attacks.attribute_inference import PriorTimesConfidence as PriorTimesConfidence
    from assay.privacy.attacks.conjugate_lira import ConjugateLiRA as ConjugateLiRA
    from assay.privacy.attacks.discoverable import DiscoverableExtraction as DiscoverableExtraction
    from assay.privacy.attacks.exfiltration.capacity import CapacityAbuse as CapacityAbuse
    from assay.privacy.attacks.exfiltration.correlated import CorrelatedValues as CorrelatedValues
    from assay.privacy.attacks.exfiltration.framing import Frame as Frame
    from assay.privacy.attacks.exfiltration.framing import Received as Received
    from assay.privacy.attacks.exfiltration.low_bits import LowBits as LowBits
    from assay.privacy.attacks.exfiltration.signs import Signs as Signs
    from assay.privacy.attacks.exposure import Exposure as Exposure
    from assay.privacy.attacks.extraction import Extracted as Extracted
    from assay.privacy.attacks.extraction import Extraction as Extraction
    from assay.privacy.attacks.extraction import Prompts as Prompts
    from assay.privacy.attacks.gradient_inversion import DLG as DLG
    from assay.privacy.attacks.gradient_inversion import CosineInversion as CosineInversion
    from assay.privacy.attacks.gradient_inversion import LinearInversion as LinearInversion
    from assay.privacy.attacks.label_only import LabelOnly as LabelOnly
    from assay.privacy.attacks.lira import LiRA as LiRA
    from assay.privacy.attacks.loss import CalibratedLoss as CalibratedLoss
    from assay.privacy.attacks.loss import Gap as Gap
    from assay.privacy.attacks.loss import LossThreshold as LossThreshold
    from assay.privacy.attacks.loss import ModifiedEntropy as ModifiedEntropy
    from assay.privacy.attacks.model_inversion import MIFace as MIFace
    from assay.privacy.attacks.model_inversion import Prior as Prior
    from assay.privacy.attacks.model_inversion import PriorInversion as PriorInversion
    from assay.privacy.attacks.model_inversion import ScoreInversion as ScoreInversion
    from assay.privacy.attacks.property_inference import QueryProfile as QueryProfile
    from assay.privacy.attacks.property_inference import SortedWeights as SortedWeights
    from assay.privacy.attacks.property_inference import WeightPaths as WeightPaths
    from assay.privacy.attacks.rmia import RMIA as RMIA
    from assay.privacy.attacks.truth_serum import AttributeTruthSerum as AttributeTruthSerum
    from assay.privacy.attacks.truth_serum import TruthSerum as TruthSerum
    from assay.privacy.attacks.truth_serum import UntargetedTruthSerum as UntargetedTruthSerum
    from assay.privacy.attacks.truth_serum import attribute_scores as attribute_scores
    from assay.privacy.attacks.truth_serum_text import TruthSerumText as TruthSerumText
    from assay.privacy.attacks.weight_scan import Scan as Scan
    from assay.privacy.attacks.weight_scan import WeightScan as WeightScan
    from assay.privacy.auditing.adversaries import APIAccess as APIAccess
    from assay.privacy.auditing.adversaries import StaticInput as StaticInput
    from assay.privacy.auditing.audit import audit as audit
    from assay.privacy.auditing.counts import Exact as Exact
    from assay.privacy.auditing.counts import GaussianCurve as GaussianCurve
    from assay.privacy.auditing.counts import PerStep as PerStep
    from assay.privacy.auditing.insiders import GradientCanary as GradientCanary
    from assay.privacy.auditing.insiders import IntermediateModels as IntermediateModels
    from assay.privacy.auditing.insiders import MaliciousData as MaliciousData
    from assay.privacy.auditing.one_run import OneRun as OneRun
    from assay.privacy.auditing.result import AuditResult as AuditResult
    from assay.privacy.auditing.steps import Steps as Steps
    from assay.privacy.auditing.thresholds import Bonferroni as Bonferroni
    from assay.privacy.auditing.thresholds import Explicit as Explicit
    from assay.privacy.auditing.thresholds import MultiSplit as MultiSplit
    from assay.privacy.auditing.thresholds import Split as Split
    from assay.privacy.auditing.thresholds import audit_scores as audit_scores
    from assay.privacy.canaries import Blank as Blank
    from assay.privacy.canaries import Canaries as Canaries
    from assay.privacy.canaries import Mislabeled as Mislabeled
    from assay.privacy.canaries import Natural as Natural
    from assay.privacy.canaries import OutOfDistribution as OutOfDistribution
    from assay.privacy.canaries import WorstOf as WorstOf
    from assay.privacy.defenses.dpftrl import DPFTRL as DPFTRL
    from assay.privacy.defenses.dpsgd import DPSGD as DPSGD
    from assay.privacy.defenses.fine_tuning import FineTune as FineTune
    from assay.privacy.defenses.outputs import RoundScores as RoundScores
    from assay.privacy.defenses.outputs import SoftScores as SoftScores
    from assay.privacy.defenses.outputs import TopK as TopK
    from assay.privacy.defenses.pate import PATE as PATE
    from assay.privacy.defenses.pate import Taught as Taught
    from assay.privacy.defenses.public_features import PublicFeatures as PublicFeatures
    from assay.privacy.defenses.regularizing import Distillation as Distillation
    from assay.privacy.defenses.regularizing import EarlyStopping as EarlyStopping
    from assay.privacy.defenses.scattering import Scattering as Scattering
    from assay.privacy.defenses.scatternet import ScatterNet as ScatterNet
    from assay.privacy.defenses.weight_changes import QuantizeWeights as QuantizeWeights
    from assay.privacy.defenses.weight_changes import RandomizeLowBits as RandomizeLowBits
    from assay.privacy.defenses.weight_changes import WeightNoise as WeightNoise
    from assay.privacy.games.attribute_inference import AttributeGame as AttributeGame
    from assay.privacy.games.auditing import AuditGame as AuditGame
    from assay.privacy.games.discovery import DiscoveryGame as DiscoveryGame
    from assay.privacy.games.exfiltration import ExfiltrationGame as ExfiltrationGame
    from assay.privacy.games.exposure import ExposureGame as ExposureGame
    from assay.privacy.games.extraction import ExtractionGame as ExtractionGame
    from assay.privacy.games.gradient_inversion import GradientInversionGame as GradientInversionGame
    from assay.privacy.games.membership import MembershipGame as MembershipGame
    from assay.privacy.games.model_inversion import ModelInversionGame as ModelInversionGame
    from assay.privacy.games.poisoned_exposure import PoisonedExposureGame as PoisonedExposureGame
    from assay.privacy.games.poisoned_exposure import TextTraining as TextTraining
    from assay.privacy.games.property_inference import PropertyGame as PropertyGame
    from assay.privacy.games.supply_chain import SupplyChainGame as SupplyChainGame
    from assay.privacy.mechanisms import Composed as Composed
    from assay.privacy.mechanisms import Gaussian as Gaussian
    from assay.privacy.mechanisms import Renyi as Renyi
    from assay.privacy.mechanisms import SampledGaussian as SampledGaussian
    from assay.privacy.methods import Sight as Sight
    from assay.privacy.methods import judge as judge
    from assay.privacy.per_example import PerExample as PerExample
    from assay.privacy.pipeline import Pipeline as Pipeline
    from assay.privacy.private import Private as Private
    from assay.privacy.private import Procedure as Procedure
    from assay.privacy.proofs.accountant import Accountant as Accountant
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
    from assay.privacy.text.language import Questioned as Questioned
    from assay.privacy.text.planting import Secret as Secret
    from assay.privacy.text.planting import TextCanary as TextCanary
    from assay.privacy.text.planting import planted as planted
    from assay.privacy.text.planting import text_canaries as text_canaries
    from assay.privacy.text.ranking import Lowercase as Lowercase
    from assay.privacy.text.ranking import Perplexity as Perplexity
    from assay.privacy.text.ranking import Reading as Reading
    from assay.privacy.text.ranking import Reference as Reference
    from assay.privacy.text.ranking import Window as Window
    from assay.privacy.text.ranking import Zlib as Zlib
    from assay.privacy.text.sampling import DecayingTemperature as DecayingTemperature
    from assay.privacy.text.sampling import TopKSampling as TopKSampling
    from assay.privacy.text.verbatim import Corpus as Corpus
    from assay.privacy.threat import People as People
    from assay.privacy.threat import labels as labels
    from assay.privacy.threat import scores as scores

_LAZY = {
    "APIAccess": ("assay.privacy.auditing.adversaries", "APIAccess"),
    "Accountant": ("assay.privacy.proofs.accountant", "Accountant"),
    "Attribute": ("assay.privacy.attacks.attribute_inference", "Attribute"),
    "AttributeGame": ("assay.privacy.games.attribute_inference", "AttributeGame"),
    "AttributeTruthSerum": ("assay.privacy.attacks.truth_serum", "AttributeTruthSerum"),
    "AuditGame": ("assay.privacy.games.auditing", "AuditGame"),
    "AuditResult": ("assay.privacy.auditing.result", "AuditResult"),
    "Blank": ("assay.privacy.canaries", "Blank"),
    "Bonferroni": ("assay.privacy.auditing.thresholds", "Bonferroni"),
    "CSMIA": ("assay.privacy.attacks.attribute_inference", "CSMIA"),
    "CalibratedLoss": ("assay.privacy.attacks.loss", "CalibratedLoss"),
    "Canaries": ("assay.privacy.canaries", "Canaries"),
    "CapacityAbuse": ("assay.privacy.attacks.exfiltration.capacity", "CapacityAbuse"),
    "Composed": ("assay.privacy.mechanisms", "Composed"),
    "ConjugateLiRA": ("assay.privacy.attacks.conjugate_lira", "ConjugateLiRA"),
    "Corpus": ("assay.privacy.text.verbatim", "Corpus"),
    "CorrelatedValues": ("assay.privacy.attacks.exfiltration.correlated", "CorrelatedValues"),
    "CosineInversion": ("assay.privacy.attacks.gradient_inversion", "CosineInversion"),
    "DLG": ("assay.privacy.attacks.gradient_inversion", "DLG"),
    "DPFTRL": ("assay.privacy.defenses.dpftrl", "DPFTRL"),
    "DPSGD": ("assay.privacy.defenses.dpsgd", "DPSGD"),
    "DecayingTemperature": ("assay.privacy.text.sampling", "DecayingTemperature"),
    "DiscoverableExtraction": ("assay.privacy.attacks.discoverable", "DiscoverableExtraction"),
    "DiscoveryGame": ("assay.privacy.games.discovery", "DiscoveryGame"),
    "Distillation": ("assay.privacy.defenses.regularizing", "Distillation"),
    "EarlyStopping": ("assay.privacy.defenses.regularizing", "EarlyStopping"),
    "Exact": ("assay.privacy.auditing.counts", "Exact"),
    "ExfiltrationGame": ("assay.privacy.games.exfiltration", "ExfiltrationGame"),
    "Explicit": ("assay.privacy.auditing.thresholds", "Explicit"),
    "Exposure": ("assay.privacy.attacks.exposure", "Exposure"),
    "ExposureGame": ("assay.privacy.games.exposure", "ExposureGame"),
    "Extracted": ("assay.privacy.attacks.extraction", "Extracted"),
    "Extraction": ("assay.privacy.attacks.extraction", "Extraction"),
    "ExtractionGame": ("assay.privacy.games.extraction", "ExtractionGame"),
    "FineTune": ("assay.privacy.defenses.fine_tuning", "FineTune"),
    "Frame": ("assay.privacy.attacks.exfiltration.framing", "Frame"),
    "Gap": ("assay.privacy.attacks.loss", "Gap"),
    "Gaussian": ("assay.privacy.mechanisms", "Gaussian"),
    "GaussianCurve": ("assay.privacy.auditing.counts", "GaussianCurve"),
    "GradientCanary": ("assay.privacy.auditing.insiders", "GradientCanary"),
    "GradientInversionGame": ("assay.privacy.games.gradient_inversion", "GradientInversionGame"),
    "Imputation": ("assay.privacy.attacks.attribute_inference", "Imputation"),
    "Imputer": ("assay.privacy.attacks.attribute_inference", "Imputer"),
    "IntermediateModels": ("assay.privacy.auditing.insiders", "IntermediateModels"),
    "LabelOnly": ("assay.privacy.attacks.label_only", "LabelOnly"),
    "LiRA": ("assay.privacy.attacks.lira", "LiRA"),
    "LinearInversion": ("assay.privacy.attacks.gradient_inversion", "LinearInversion"),
    "LossThreshold": ("assay.privacy.attacks.loss", "LossThreshold"),
    "LowBits": ("assay.privacy.attacks.exfiltration.low_bits", "LowBits"),
    "Lowercase": ("assay.privacy.text.ranking", "Lowercase"),
    "MIFace": ("assay.privacy.attacks.model_inversion", "MIFace"),
    "MaliciousData": ("assay.privacy.auditing.insiders", "MaliciousData"),
    "MembershipGame": ("assay.privacy.games.membership", "MembershipGame"),
    "Mislabeled": ("assay.privacy.canaries", "Mislabeled"),
    "ModelInversionGame": ("assay.privacy.games.model_inversion", "ModelInversionGame"),
    "ModifiedEntropy": ("assay.privacy.attacks.loss", "ModifiedEntropy"),
    "MultiSplit": ("assay.privacy.auditing.thresholds", "MultiSplit"),
    "Natural": ("assay.privacy.canaries", "Natural"),
    "OneRun": ("assay.privacy.auditing.one_run", "OneRun"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "OutOfDistribution": ("assay.privacy.canaries", "OutOfDistribution"),
    "PATE": ("assay.privacy.defenses.pate", "PATE"),
    "People": ("assay.privacy.threat", "People"),
    "PerExample": ("assay.privacy.per_example", "PerExample"),
    "PerStep": ("assay.privacy.auditing.counts", "PerStep"),
    "Perplexity": ("assay.privacy.text.ranking", "Perplexity"),
    "Pipeline": ("assay.privacy.pipeline", "Pipeline"),
    "PoisonedExposureGame": ("assay.privacy.games.poisoned_exposure", "PoisonedExposureGame"),
    "Prior": ("assay.privacy.attacks.model_inversion", "Prior"),
    "PriorInversion": ("assay.privacy.attacks.model_inversion", "PriorInversion"),
    "PriorTimesConfidence": ("assay.privacy.attacks.attribute_inference", "PriorTimesConfidence"),
    "Private": ("assay.privacy.private", "Private"),
    "Procedure": ("assay.privacy.private", "Procedure"),
    "Prompts": ("assay.privacy.attacks.extraction", "Prompts"),
    "PropertyGame": ("assay.privacy.games.property_inference", "PropertyGame"),
    "PublicFeatures": ("assay.privacy.defenses.public_features", "PublicFeatures"),
    "QuantizeWeights": ("assay.privacy.defenses.weight_changes", "QuantizeWeights"),
    "QueryProfile": ("assay.privacy.attacks.property_inference", "QueryProfile"),
    "Questioned": ("assay.privacy.text.language", "Questioned"),
    "RMIA": ("assay.privacy.attacks.rmia", "RMIA"),
    "RandomizeLowBits": ("assay.privacy.defenses.weight_changes", "RandomizeLowBits"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Reading": ("assay.privacy.text.ranking", "Reading"),
    "Received": ("assay.privacy.attacks.exfiltration.framing", "Received"),
    "Recipe": ("assay.numerics.ensembles", "Recipe"),
    "Reference": ("assay.privacy.text.ranking", "Reference"),
    "Renyi": ("assay.privacy.mechanisms", "Renyi"),
    "RoundScores": ("assay.privacy.defenses.outputs", "RoundScores"),
    "SampledGaussian": ("assay.privacy.mechanisms", "SampledGaussian"),
    "Scan": ("assay.privacy.attacks.weight_scan", "Scan"),
    "ScatterNet": ("assay.privacy.defenses.scatternet", "ScatterNet"),
    "Scattering": ("assay.privacy.defenses.scattering", "Scattering"),
    "ScoreInversion": ("assay.privacy.attacks.model_inversion", "ScoreInversion"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Secret": ("assay.privacy.text.planting", "Secret"),
    "Shadows": ("assay.privacy.shadows", "Shadows"),
    "Sight": ("assay.privacy.methods", "Sight"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "Signs": ("assay.privacy.attacks.exfiltration.signs", "Signs"),
    "SoftScores": ("assay.privacy.defenses.outputs", "SoftScores"),
    "SortedWeights": ("assay.privacy.attacks.property_inference", "SortedWeights"),
    "Split": ("assay.privacy.auditing.thresholds", "Split"),
    "StaticInput": ("assay.privacy.auditing.adversaries", "StaticInput"),
    "Steps": ("assay.privacy.auditing.steps", "Steps"),
    "SupplyChainGame": ("assay.privacy.games.supply_chain", "SupplyChainGame"),
    "Taught": ("assay.privacy.defenses.pate", "Taught"),
    "TextCanary": ("assay.privacy.text.planting", "TextCanary"),
    "TextTraining": ("assay.privacy.games.poisoned_exposure", "TextTraining"),
    "TopK": ("assay.privacy.defenses.outputs", "TopK"),
    "TopKSampling": ("assay.privacy.text.sampling", "TopKSampling"),
    "TruthSerum": ("assay.privacy.attacks.truth_serum", "TruthSerum"),
    "TruthSerumText": ("assay.privacy.attacks.truth_serum_text", "TruthSerumText"),
    "UntargetedTruthSerum": ("assay.privacy.attacks.truth_serum", "UntargetedTruthSerum"),
    "WeightNoise": ("assay.privacy.defenses.weight_changes", "WeightNoise"),
    "WeightPaths": ("assay.privacy.attacks.property_inference", "WeightPaths"),
    "WeightScan": ("assay.privacy.attacks.weight_scan", "WeightScan"),
    "Window": ("assay.privacy.text.ranking", "Window"),
    "WorstOf": ("assay.privacy.canaries", "WorstOf"),
    "Zlib": ("assay.privacy.text.ranking", "Zlib"),
    "attribute_scores": ("assay.privacy.attacks.truth_serum", "attribute_scores"),
    "audit": ("assay.privacy.auditing.audit", "audit"),
    "audit_scores": ("assay.privacy.auditing.thresholds", "audit_scores"),
    "balanced_keep": ("assay.privacy.signals", "balanced_keep"),
    "judge": ("assay.privacy.methods", "judge"),
    "labels": ("assay.privacy.threat", "labels"),
    "logit_of_probability": ("assay.privacy.signals", "logit_of_probability"),
    "logit_scale": ("assay.privacy.signals", "logit_scale"),
    "mirror": ("assay.numerics.ensembles", "mirror"),
    "planted": ("assay.privacy.text.planting", "planted"),
    "processes": ("assay.numerics.chunks", "processes"),
    "random_mirror": ("assay.numerics.ensembles", "random_mirror"),
    "scores": ("assay.privacy.threat", "scores"),
    "seeds_of": ("assay.privacy.shadows", "seeds_of"),
    "text_canaries": ("assay.privacy.text.planting", "text_canaries"),
    "train_each": ("assay.privacy.shadows", "train_each"),
    "train_shadows": ("assay.privacy.shadows", "train_shadows"),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
