"""Evasion: inputs changed at test time, within a budget, so that the model errs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.evasion.attacks.apgd import APGD as APGD
    from assay.evasion.attacks.apgd import TargetedAPGD as TargetedAPGD
    from assay.evasion.attacks.auto_attack import AutoAttack as AutoAttack
    from assay.evasion.attacks.ddn import DDN as DDN
    from assay.evasion.attacks.decision_tree import DecisionTreeAttack as DecisionTreeAttack
    from assay.evasion.attacks.deepfool import DeepFool as DeepFool
    from assay.evasion.attacks.fab import FAB as FAB
    from assay.evasion.attacks.hclu import HCLU as HCLU
    from assay.evasion.attacks.pgd import BIM as BIM
    from assay.evasion.attacks.pgd import FGSM as FGSM
    from assay.evasion.attacks.pgd import MIFGSM as MIFGSM
    from assay.evasion.attacks.pgd import PGD as PGD
    from assay.evasion.attacks.record_search import RecordSearch as RecordSearch
    from assay.evasion.attacks.sigma_zero import SigmaZero as SigmaZero
    from assay.evasion.attacks.spatial import SpatialSearch as SpatialSearch
    from assay.evasion.attacks.spatial import StAdv as StAdv
    from assay.evasion.attacks.square import Square as Square
    from assay.evasion.attacks.transfer import Transfer as Transfer
    from assay.evasion.attacks.tree_exact import TreeExact as TreeExact
    from assay.evasion.attacks.universal import UniversalPerturbation as UniversalPerturbation
    from assay.evasion.changes import Flow as Flow
    from assay.evasion.changes import Rotation as Rotation
    from assay.evasion.changes import Semantic as Semantic
    from assay.evasion.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
    from assay.evasion.defenses.smoothing import Smoothing as Smoothing
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
    "AdversarialTraining": "assay.evasion.defenses.adversarial_training",
    "AutoAttack": "assay.evasion.attacks.auto_attack",
    "BIM": "assay.evasion.attacks.pgd",
    "CROWN": "assay.evasion.proofs.crown",
    "CROWNIBP": "assay.evasion.proofs.crown_ibp",
    "DecisionTreeAttack": "assay.evasion.attacks.decision_tree",
    "FAB": "assay.evasion.attacks.fab",
    "FGSM": "assay.evasion.attacks.pgd",
    "HCLU": "assay.evasion.attacks.hclu",
    "DDN": "assay.evasion.attacks.ddn",
    "DeepFool": "assay.evasion.attacks.deepfool",
    "Flow": "assay.evasion.changes",
    "IBP": "assay.evasion.proofs.ibp",
    "L0": "assay.evasion.threat",
    "L1": "assay.evasion.threat",
    "L2": "assay.evasion.threat",
    "Linf": "assay.evasion.threat",
    "MIFGSM": "assay.evasion.attacks.pgd",
    "PGD": "assay.evasion.attacks.pgd",
    "EvasionGame": "assay.evasion.game",
    "Rotation": "assay.evasion.changes",
    "Semantic": "assay.evasion.changes",
    "RecordSearch": "assay.evasion.attacks.record_search",
    "Records": "assay.evasion.records",
    "Schema": "assay.evasion.records",
    "SigmaZero": "assay.evasion.attacks.sigma_zero",
    "Smoothing": "assay.evasion.defenses.smoothing",
    "SmoothingRadius": "assay.evasion.proofs.smoothing",
    "SpatialSearch": "assay.evasion.attacks.spatial",
    "Square": "assay.evasion.attacks.square",
    "StAdv": "assay.evasion.attacks.spatial",
    "TargetedAPGD": "assay.evasion.attacks.apgd",
    "Transfer": "assay.evasion.attacks.transfer",
    "UniversalPerturbation": "assay.evasion.attacks.universal",
    "TreeExact": "assay.evasion.attacks.tree_exact",
    "TreeRadius": "assay.evasion.proofs.tree_exact",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
