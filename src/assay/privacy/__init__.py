"""Privacy: what a model gives away about its training data, bracketed between an attack and a proof."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from assay.privacy.rates import Operating as Operating
    from assay.privacy.rates import Rate as Rate
    from assay.privacy.rates import Scores as Scores
    from assay.privacy.signals import Signals as Signals
    from assay.privacy.signals import balanced_keep as balanced_keep
    from assay.privacy.signals import logit_of_probability as logit_of_probability
    from assay.privacy.signals import logit_scale as logit_scale

_LAZY = {
    "APIAccess": ("assay.privacy.auditing.adversaries", "APIAccess"),
    "AuditResult": ("assay.privacy.auditing.result", "AuditResult"),
    "Blank": ("assay.privacy.canaries", "Blank"),
    "Canaries": ("assay.privacy.canaries", "Canaries"),
    "Exact": ("assay.privacy.auditing.counts", "Exact"),
    "GaussianCurve": ("assay.privacy.auditing.counts", "GaussianCurve"),
    "GradientCanary": ("assay.privacy.auditing.insiders", "GradientCanary"),
    "IntermediateModels": ("assay.privacy.auditing.insiders", "IntermediateModels"),
    "MaliciousData": ("assay.privacy.auditing.insiders", "MaliciousData"),
    "Mislabeled": ("assay.privacy.canaries", "Mislabeled"),
    "Natural": ("assay.privacy.canaries", "Natural"),
    "OneRun": ("assay.privacy.auditing.one_run", "OneRun"),
    "Operating": ("assay.privacy.rates", "Operating"),
    "OutOfDistribution": ("assay.privacy.canaries", "OutOfDistribution"),
    "PerStep": ("assay.privacy.auditing.counts", "PerStep"),
    "Rate": ("assay.privacy.rates", "Rate"),
    "Scores": ("assay.privacy.rates", "Scores"),
    "Signals": ("assay.privacy.signals", "Signals"),
    "StaticInput": ("assay.privacy.auditing.adversaries", "StaticInput"),
    "Steps": ("assay.privacy.auditing.steps", "Steps"),
    "WorstOf": ("assay.privacy.canaries", "WorstOf"),
    "audit": ("assay.privacy.auditing.audit", "audit"),
    "balanced_keep": ("assay.privacy.signals", "balanced_keep"),
    "audit_scores": ("assay.privacy.auditing.thresholds", "audit_scores"),
    "logit_of_probability": ("assay.privacy.signals", "logit_of_probability"),
    "logit_scale": ("assay.privacy.signals", "logit_scale"),
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
