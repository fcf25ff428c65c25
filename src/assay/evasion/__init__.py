"""Evasion: inputs changed at test time, within a budget, so that the model errs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.evasion.attacks.apgd import APGD as APGD
    from assay.evasion.attacks.apgd import TargetedAPGD as TargetedAPGD
    from assay.evasion.attacks.auto_attack import AutoAttack as AutoAttack
    from assay.evasion.attacks.fab import FAB as FAB
    from assay.evasion.attacks.nes import NES as NES
    from assay.evasion.attacks.pgd import BIM as BIM
    from assay.evasion.attacks.pgd import FGSM as FGSM
    from assay.evasion.attacks.pgd import MIFGSM as MIFGSM
    from assay.evasion.attacks.pgd import PGD as PGD
    from assay.evasion.attacks.pixel import PixelAttack as PixelAttack
    from assay.evasion.attacks.simba import SimBA as SimBA
    from assay.evasion.attacks.spsa import SPSA as SPSA
    from assay.evasion.attacks.square import Square as Square
    from assay.evasion.attacks.threshold import ThresholdAttack as ThresholdAttack
    from assay.evasion.attacks.zoo_attack import ZOO as ZOO
    from assay.evasion.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
    from assay.evasion.defenses.smoothing import Smoothing as Smoothing
    from assay.evasion.game import EvasionGame as EvasionGame
    from assay.evasion.proofs.crown import CROWN as CROWN
    from assay.evasion.proofs.crown_ibp import CROWNIBP as CROWNIBP
    from assay.evasion.proofs.ibp import IBP as IBP
    from assay.evasion.proofs.smoothing import SmoothingRadius as SmoothingRadius
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
    "FAB": "assay.evasion.attacks.fab",
    "FGSM": "assay.evasion.attacks.pgd",
    "IBP": "assay.evasion.proofs.ibp",
    "L0": "assay.evasion.threat",
    "L1": "assay.evasion.threat",
    "L2": "assay.evasion.threat",
    "Linf": "assay.evasion.threat",
    "MIFGSM": "assay.evasion.attacks.pgd",
    "NES": "assay.evasion.attacks.nes",
    "PGD": "assay.evasion.attacks.pgd",
    "EvasionGame": "assay.evasion.game",
    "PixelAttack": "assay.evasion.attacks.pixel",
    "SPSA": "assay.evasion.attacks.spsa",
    "SimBA": "assay.evasion.attacks.simba",
    "Smoothing": "assay.evasion.defenses.smoothing",
    "SmoothingRadius": "assay.evasion.proofs.smoothing",
    "Square": "assay.evasion.attacks.square",
    "TargetedAPGD": "assay.evasion.attacks.apgd",
    "ThresholdAttack": "assay.evasion.attacks.threshold",
    "ZOO": "assay.evasion.attacks.zoo_attack",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
