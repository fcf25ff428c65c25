"""Evasion: inputs changed at test time, within a budget, so that the model errs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assay.evasion.attacks.apgd import APGD as APGD
    from assay.evasion.attacks.apgd import TargetedAPGD as TargetedAPGD
    from assay.evasion.attacks.auto_attack import AutoAttack as AutoAttack
    from assay.evasion.attacks.fab import FAB as FAB
    from assay.evasion.attacks.pgd import BIM as BIM
    from assay.evasion.attacks.pgd import FGSM as FGSM
    from assay.evasion.attacks.pgd import MIFGSM as MIFGSM
    from assay.evasion.attacks.pgd import PGD as PGD
    from assay.evasion.attacks.square import Square as Square
    from assay.evasion.defenses.adversarial_training import AdversarialTraining as AdversarialTraining
    from assay.evasion.defenses.cleansing.autoencoder import Autoencoder as Autoencoder
    from assay.evasion.defenses.cleansing.blurring import GaussianBlur as GaussianBlur
    from assay.evasion.defenses.cleansing.jpeg import JPEG as JPEG
    from assay.evasion.defenses.cleansing.resizing import RandomResizePad as RandomResizePad
    from assay.evasion.defenses.cleansing.resizing import Rescale as Rescale
    from assay.evasion.defenses.cleansing.squeezing import BitDepth as BitDepth
    from assay.evasion.defenses.cleansing.squeezing import MedianBlur as MedianBlur
    from assay.evasion.defenses.cleansing.total_variation import TotalVariation as TotalVariation
    from assay.evasion.defenses.obfuscation.activations import KWTA as KWTA
    from assay.evasion.defenses.obfuscation.activations import ActivationPruning as ActivationPruning
    from assay.evasion.defenses.obfuscation.activations import RoundActivations as RoundActivations
    from assay.evasion.defenses.obfuscation.temperature import Temperature as Temperature
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
    "ActivationPruning": "assay.evasion.defenses.obfuscation.activations",
    "APGD": "assay.evasion.attacks.apgd",
    "AdversarialTraining": "assay.evasion.defenses.adversarial_training",
    "AutoAttack": "assay.evasion.attacks.auto_attack",
    "Autoencoder": "assay.evasion.defenses.cleansing.autoencoder",
    "BIM": "assay.evasion.attacks.pgd",
    "BitDepth": "assay.evasion.defenses.cleansing.squeezing",
    "CROWN": "assay.evasion.proofs.crown",
    "CROWNIBP": "assay.evasion.proofs.crown_ibp",
    "FAB": "assay.evasion.attacks.fab",
    "FGSM": "assay.evasion.attacks.pgd",
    "GaussianBlur": "assay.evasion.defenses.cleansing.blurring",
    "IBP": "assay.evasion.proofs.ibp",
    "JPEG": "assay.evasion.defenses.cleansing.jpeg",
    "KWTA": "assay.evasion.defenses.obfuscation.activations",
    "L0": "assay.evasion.threat",
    "L1": "assay.evasion.threat",
    "L2": "assay.evasion.threat",
    "Linf": "assay.evasion.threat",
    "MedianBlur": "assay.evasion.defenses.cleansing.squeezing",
    "MIFGSM": "assay.evasion.attacks.pgd",
    "PGD": "assay.evasion.attacks.pgd",
    "EvasionGame": "assay.evasion.game",
    "RandomResizePad": "assay.evasion.defenses.cleansing.resizing",
    "Rescale": "assay.evasion.defenses.cleansing.resizing",
    "RoundActivations": "assay.evasion.defenses.obfuscation.activations",
    "Smoothing": "assay.evasion.defenses.smoothing",
    "SmoothingRadius": "assay.evasion.proofs.smoothing",
    "Square": "assay.evasion.attacks.square",
    "TargetedAPGD": "assay.evasion.attacks.apgd",
    "Temperature": "assay.evasion.defenses.obfuscation.temperature",
    "TotalVariation": "assay.evasion.defenses.cleansing.total_variation",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
