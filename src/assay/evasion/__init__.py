"""Evasion: inputs changed at test time, within a budget, so that the model errs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.evasion.attacks.apgd import APGD as APGD
    from assay.evasion.attacks.apgd import TargetedAPGD as TargetedAPGD
    from assay.evasion.attacks.auto_attack import AutoAttack as AutoAttack
    from assay.evasion.attacks.boundary import Boundary as Boundary
    from assay.evasion.attacks.carlini_wagner import CarliniWagner as CarliniWagner
    from assay.evasion.attacks.ddn import DDN as DDN
    from assay.evasion.attacks.decision_tree import DecisionTreeAttack as DecisionTreeAttack
    from assay.evasion.attacks.deepfool import DeepFool as DeepFool
    from assay.evasion.attacks.elastic_net import ElasticNet as ElasticNet
    from assay.evasion.attacks.fab import FAB as FAB
    from assay.evasion.attacks.feature_collision import FeatureCollision as FeatureCollision
    from assay.evasion.attacks.fmn import FMN as FMN
    from assay.evasion.attacks.hclu import HCLU as HCLU
    from assay.evasion.attacks.hopskipjump import HopSkipJump as HopSkipJump
    from assay.evasion.attacks.jsma import JSMA as JSMA
    from assay.evasion.attacks.nes import NES as NES
    from assay.evasion.attacks.newtonfool import NewtonFool as NewtonFool
    from assay.evasion.attacks.pgd import BIM as BIM
    from assay.evasion.attacks.pgd import FGSM as FGSM
    from assay.evasion.attacks.pgd import MIFGSM as MIFGSM
    from assay.evasion.attacks.pgd import PGD as PGD
    from assay.evasion.attacks.pixel import PixelAttack as PixelAttack
    from assay.evasion.attacks.record_search import RecordSearch as RecordSearch
    from assay.evasion.attacks.sigma_zero import SigmaZero as SigmaZero
    from assay.evasion.attacks.simba import SimBA as SimBA
    from assay.evasion.attacks.spatial import SpatialSearch as SpatialSearch
    from assay.evasion.attacks.spatial import StAdv as StAdv
    from assay.evasion.attacks.spsa import SPSA as SPSA
    from assay.evasion.attacks.square import Square as Square
    from assay.evasion.attacks.threshold import ThresholdAttack as ThresholdAttack
    from assay.evasion.attacks.transfer import Transfer as Transfer
    from assay.evasion.attacks.tree_exact import TreeExact as TreeExact
    from assay.evasion.attacks.universal import UniversalPerturbation as UniversalPerturbation
    from assay.evasion.attacks.vat import VAT as VAT
    from assay.evasion.attacks.zoo_attack import ZOO as ZOO
    from assay.evasion.changes import Flow as Flow
    from assay.evasion.changes import Rotation as Rotation
    from assay.evasion.changes import Semantic as Semantic
    from assay.evasion.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
    from assay.evasion.defenses.cleansing.autoencoder import Autoencoder as Autoencoder
    from assay.evasion.defenses.cleansing.blurring import GaussianBlur as GaussianBlur
    from assay.evasion.defenses.cleansing.jpeg import JPEG as JPEG
    from assay.evasion.defenses.cleansing.resizing import RandomResizePad as RandomResizePad
    from assay.evasion.defenses.cleansing.resizing import Rescale as Rescale
    from assay.evasion.defenses.cleansing.squeezing import BitDepth as BitDepth
    from assay.evasion.defenses.cleansing.squeezing import MedianBlur as MedianBlur
    from assay.evasion.defenses.cleansing.total_variation import TotalVariation as TotalVariation
    from assay.evasion.defenses.lid import LID as LID
    from assay.evasion.defenses.mahalanobis import Mahalanobis as Mahalanobis
    from assay.evasion.defenses.obfuscation.activations import KWTA as KWTA
    from assay.evasion.defenses.obfuscation.activations import ActivationPruning as ActivationPruning
    from assay.evasion.defenses.obfuscation.activations import RoundActivations as RoundActivations
    from assay.evasion.defenses.obfuscation.temperature import Temperature as Temperature
    from assay.evasion.defenses.odds import StatisticalOdds as StatisticalOdds
    from assay.evasion.defenses.smoothing import Smoothing as Smoothing
    from assay.evasion.defenses.squeezing import FeatureSqueezing as FeatureSqueezing
    from assay.evasion.game import EvasionGame as EvasionGame
    from assay.evasion.proofs.crown import CROWN as CROWN
    from assay.evasion.proofs.crown_ibp import CROWNIBP as CROWNIBP
    from assay.evasion.proofs.ibp import IBP as IBP
    from assay.evasion.proofs.smoothing import SmoothingRadius as SmoothingRadius
    from assay.evasion.proofs.tree_exact import TreeRadius as TreeRadius
    from assay.evasion.records import Records as Records
    from assay.evasion.records import Schema as Schema
    from assay.evasion.threat import L0 as L0
    from assay.evasion.threat import L1 as L1
    from assay.evasion.threat import L2 as L2
    from assay.evasion.threat import Linf as Linf

_LAZY = {
    "APGD": "assay.evasion.attacks.apgd",
    "ActivationPruning": "assay.evasion.defenses.obfuscation.activations",
    "AdversarialTraining": "assay.evasion.defenses.adversarial_training",
    "AutoAttack": "assay.evasion.attacks.auto_attack",
    "Autoencoder": "assay.evasion.defenses.cleansing.autoencoder",
    "BIM": "assay.evasion.attacks.pgd",
    "BitDepth": "assay.evasion.defenses.cleansing.squeezing",
    "Boundary": "assay.evasion.attacks.boundary",
    "CROWN": "assay.evasion.proofs.crown",
    "CROWNIBP": "assay.evasion.proofs.crown_ibp",
    "CarliniWagner": "assay.evasion.attacks.carlini_wagner",
    "DDN": "assay.evasion.attacks.ddn",
    "DecisionTreeAttack": "assay.evasion.attacks.decision_tree",
    "DeepFool": "assay.evasion.attacks.deepfool",
    "ElasticNet": "assay.evasion.attacks.elastic_net",
    "EvasionGame": "assay.evasion.game",
    "FAB": "assay.evasion.attacks.fab",
    "FGSM": "assay.evasion.attacks.pgd",
    "FMN": "assay.evasion.attacks.fmn",
    "FeatureCollision": "assay.evasion.attacks.feature_collision",
    "FeatureSqueezing": "assay.evasion.defenses.squeezing",
    "Flow": "assay.evasion.changes",
    "GaussianBlur": "assay.evasion.defenses.cleansing.blurring",
    "HCLU": "assay.evasion.attacks.hclu",
    "HopSkipJump": "assay.evasion.attacks.hopskipjump",
    "IBP": "assay.evasion.proofs.ibp",
    "JPEG": "assay.evasion.defenses.cleansing.jpeg",
    "JSMA": "assay.evasion.attacks.jsma",
    "KWTA": "assay.evasion.defenses.obfuscation.activations",
    "L0": "assay.evasion.threat",
    "L1": "assay.evasion.threat",
    "L2": "assay.evasion.threat",
    "LID": "assay.evasion.defenses.lid",
    "Linf": "assay.evasion.threat",
    "MIFGSM": "assay.evasion.attacks.pgd",
    "Mahalanobis": "assay.evasion.defenses.mahalanobis",
    "MedianBlur": "assay.evasion.defenses.cleansing.squeezing",
    "NES": "assay.evasion.attacks.nes",
    "NewtonFool": "assay.evasion.attacks.newtonfool",
    "PGD": "assay.evasion.attacks.pgd",
    "PixelAttack": "assay.evasion.attacks.pixel",
    "RandomResizePad": "assay.evasion.defenses.cleansing.resizing",
    "RecordSearch": "assay.evasion.attacks.record_search",
    "Records": "assay.evasion.records",
    "Rescale": "assay.evasion.defenses.cleansing.resizing",
    "Rotation": "assay.evasion.changes",
    "RoundActivations": "assay.evasion.defenses.obfuscation.activations",
    "SPSA": "assay.evasion.attacks.spsa",
    "Schema": "assay.evasion.records",
    "Semantic": "assay.evasion.changes",
    "SigmaZero": "assay.evasion.attacks.sigma_zero",
    "SimBA": "assay.evasion.attacks.simba",
    "Smoothing": "assay.evasion.defenses.smoothing",
    "SmoothingRadius": "assay.evasion.proofs.smoothing",
    "SpatialSearch": "assay.evasion.attacks.spatial",
    "Square": "assay.evasion.attacks.square",
    "StAdv": "assay.evasion.attacks.spatial",
    "StatisticalOdds": "assay.evasion.defenses.odds",
    "TargetedAPGD": "assay.evasion.attacks.apgd",
    "Temperature": "assay.evasion.defenses.obfuscation.temperature",
    "ThresholdAttack": "assay.evasion.attacks.threshold",
    "TotalVariation": "assay.evasion.defenses.cleansing.total_variation",
    "Transfer": "assay.evasion.attacks.transfer",
    "TreeExact": "assay.evasion.attacks.tree_exact",
    "TreeRadius": "assay.evasion.proofs.tree_exact",
    "UniversalPerturbation": "assay.evasion.attacks.universal",
    "VAT": "assay.evasion.attacks.vat",
    "ZOO": "assay.evasion.attacks.zoo_attack",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
