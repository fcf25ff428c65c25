"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.numerics.chunks import processes as processes
    from assay.numerics.ensembles import mirror as mirror
    from assay.numerics.ensembles import random_mirror as random_mirror
    from assay.privacy.attacks.conjugate_lira import ConjugateLiRA as ConjugateLiRA
    from assay.privacy.attacks.exfiltration.capacity import CapacityAbuse as CapacityAbuse
    from assay.privacy.attacks.exfiltration.correlated import CorrelatedValues as CorrelatedValues
    from assay.privacy.attacks.exfiltration.framing import Frame as Frame
    from assay.privacy.attacks.exfiltration.framing import Received as Received
    from assay.privacy.attacks.exfiltration.low_bits import LowBits as LowBits
    from assay.privacy.attacks.exfiltration.signs import Signs as Signs
    from assay.privacy.attacks.label_only import LabelOnly as LabelOnly
    from assay.privacy.attacks.lira import LiRA as LiRA
    from assay.privacy.attacks.loss import CalibratedLoss as CalibratedLoss
    from assay.privacy.attacks.loss import Gap as Gap
    from assay.privacy.attacks.loss import LossThreshold as LossThreshold
    from assay.privacy.attacks.loss import ModifiedEntropy as ModifiedEntropy
    from assay.privacy.attacks.rmia import RMIA as RMIA
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
    from assay.privacy.auditing.thresholds import audit_scores as audit_scores
    from assay.privacy.canaries import Blank as Blank
    from assay.privacy.canaries import Canaries as Canaries
    from assay.privacy.canaries import Mislabeled as Mislabeled
    from assay.privacy.canaries import Natural as Natural
    from assay.privacy.canaries import OutOfDistribution as OutOfDistribution
    from assay.privacy.canaries import WorstOf as WorstOf
    from assay.privacy.defenses.dpsgd import DPSGD as DPSGD
    from assay.privacy.defenses.outputs import RoundScores as RoundScores
    from assay.privacy.defenses.outputs import SoftScores as SoftScores
    from assay.privacy.defenses.outputs import TopK as TopK
    from assay.privacy.defenses.regularizing import Distillation as Distillation
    from assay.privacy.defenses.regularizing import EarlyStopping as EarlyStopping
    from assay.privacy.defenses.scattering import Scattering as Scattering
    from assay.privacy.defenses.weight_changes import QuantizeWeights as QuantizeWeights
    from assay.privacy.defenses.weight_changes import RandomizeLowBits as RandomizeLowBits
    from assay.privacy.defenses.weight_changes import WeightNoise as WeightNoise
    from assay.privacy.games.auditing import AuditGame as AuditGame
    from assay.privacy.games.exfiltration import ExfiltrationGame as ExfiltrationGame
    from assay.privacy.games.membership import MembershipGame as MembershipGame
    from assay.privacy.mechanisms import Composed as Composed
    from assay.privacy.mechanisms import Gaussian as Gaussian
    from assay.privacy.mechanisms import Renyi as Renyi
    from assay.privacy.mechanisms import SampledGaussian as SampledGaussian
    from assay.privacy.methods import Sight as Sight
    from assay.privacy.methods import judge as judge
    from assay.privacy.per_example import PerExample as PerExample
    from assay.privacy.private import Private as Private
    from assay.privacy.private import Procedure as Procedure
    from assay.privacy.proofs.accountant import Accountant as Accountant
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.recipe import Recipe as Recipe
    from assay.privacy.shadows import Shadows as Shadows
    from assay.privacy.shadows import seeds_of as seeds_of
    from assay.privacy.shadows import train_each as train_each
    from assay.privacy.shadows import train_shadows as train_shadows
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale
    from assay.privacy.threat import People as People
    from assay.privacy.threat import labels as labels
    from assay.privacy.threat import scores as scores

_LAZY = {
    "APIAccess": ("assay.privacy.auditing.adversaries", "APIAccess"),
    "Accountant": ("assay.privacy.proofs.accountant", "Accountant"),
    "AuditGame": ("assay.privacy.games.auditing", "AuditGame"),
    "AuditResult": ("assay.privacy.auditing.result", "AuditResult"),
    "Blank": ("assay.privacy.canaries", "Blank"),
    "CalibratedLoss": ("assay.privacy.attacks.loss", "CalibratedLoss"),
    "Canaries": ("assay.privacy.canaries", "Canaries"),
    "CapacityAbuse": ("assay.privacy.attacks.exfiltration.capacity", "CapacityAbuse"),
    "Composed": ("assay.privacy.mechanisms", "Composed"),
    "ConjugateLiRA": ("assay.privacy.attacks.conjugate_lira", "ConjugateLiRA"),
    "CorrelatedValues": ("assay.privacy.attacks.exfiltration.correlated", "CorrelatedValues"),
    "DPSGD": ("assay.privacy.defenses.dpsgd", "DPSGD"),
    "Distillation": ("assay.privacy.defenses.regularizing", "Distillation"),
    "EarlyStopping": ("assay.privacy.defenses.regularizing", "EarlyStopping"),
    "Exact": ("assay.privacy.auditing.counts", "Exact"),
    "ExfiltrationGame": ("assay.privacy.games.exfiltration", "ExfiltrationGame"),
    "Frame": ("assay.privacy.attacks.exfiltration.framing", "Frame"),
    "Gap": ("assay.privacy.attacks.loss", "Gap"),
    "Gaussian": ("assay.privacy.mechanisms", "Gaussian"),
    "GaussianCurve": ("assay.privacy.auditing.counts", "GaussianCurve"),
    "GradientCanary": ("assay.privacy.auditing.insiders", "GradientCanary"),
    "IntermediateModels": ("assay.privacy.auditing.insiders", "IntermediateModels"),
    "LabelOnly": ("assay.privacy.attacks.label_only", "LabelOnly"),
    "LiRA": ("assay.privacy.attacks.lira", "LiRA"),
    "LossThreshold": ("assay.privacy.attacks.loss", "LossThreshold"),
    "LowBits": ("assay.privacy.attacks.exfiltration.low_bits", "LowBits"),
    "MaliciousData": ("assay.privacy.auditing.insiders", "MaliciousData"),
    "MembershipGame": ("assay.privacy.games.membership", "MembershipGame"),
    "Mislabeled": ("assay.privacy.canaries", "Mislabeled"),
    "ModifiedEntropy": ("assay.privacy.attacks.loss", "ModifiedEntropy"),
    "Natural": ("assay.privacy.canaries", "Natural"),
    "OneRun": ("assay.privacy.auditing.one_run", "OneRun"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "OutOfDistribution": ("assay.privacy.canaries", "OutOfDistribution"),
    "People": ("assay.privacy.threat", "People"),
    "PerExample": ("assay.privacy.per_example", "PerExample"),
    "PerStep": ("assay.privacy.auditing.counts", "PerStep"),
    "Private": ("assay.privacy.private", "Private"),
    "Procedure": ("assay.privacy.private", "Procedure"),
    "QuantizeWeights": ("assay.privacy.defenses.weight_changes", "QuantizeWeights"),
    "RMIA": ("assay.privacy.attacks.rmia", "RMIA"),
    "RandomizeLowBits": ("assay.privacy.defenses.weight_changes", "RandomizeLowBits"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Received": ("assay.privacy.attacks.exfiltration.framing", "Received"),
    "Recipe": ("assay.privacy.recipe", "Recipe"),
    "Renyi": ("assay.privacy.mechanisms", "Renyi"),
    "RoundScores": ("assay.privacy.defenses.outputs", "RoundScores"),
    "SampledGaussian": ("assay.privacy.mechanisms", "SampledGaussian"),
    "Scattering": ("assay.privacy.defenses.scattering", "Scattering"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Shadows": ("assay.privacy.shadows", "Shadows"),
    "Sight": ("assay.privacy.methods", "Sight"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "Signs": ("assay.privacy.attacks.exfiltration.signs", "Signs"),
    "SoftScores": ("assay.privacy.defenses.outputs", "SoftScores"),
    "StaticInput": ("assay.privacy.auditing.adversaries", "StaticInput"),
    "Steps": ("assay.privacy.auditing.steps", "Steps"),
    "TopK": ("assay.privacy.defenses.outputs", "TopK"),
    "WeightNoise": ("assay.privacy.defenses.weight_changes", "WeightNoise"),
    "WorstOf": ("assay.privacy.canaries", "WorstOf"),
    "audit": ("assay.privacy.auditing.audit", "audit"),
    "audit_scores": ("assay.privacy.auditing.thresholds", "audit_scores"),
    "balanced_keep": ("assay.privacy.signals", "balanced_keep"),
    "judge": ("assay.privacy.methods", "judge"),
    "labels": ("assay.privacy.threat", "labels"),
    "logit_of_probability": ("assay.privacy.signals", "logit_of_probability"),
    "logit_scale": ("assay.privacy.signals", "logit_scale"),
    "scores": ("assay.privacy.threat", "scores"),
    "seeds_of": ("assay.privacy.shadows", "seeds_of"),
    "train_each": ("assay.privacy.shadows", "train_each"),
    "train_shadows": ("assay.privacy.shadows", "train_shadows"),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
