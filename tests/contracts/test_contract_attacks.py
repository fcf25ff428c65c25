"""Every row of the catalog keeps to the contract, and the contract catches those that do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import assay
from assay import catalog, evasion, privacy, targets, testing
from assay.contract import convolutional
from assay.errors import ConfigError
from assay.evasion.changes import FAMILIES
from assay.evasion.methods import Cascade, Certifier, Perturber, kinds_of
from assay.evasion.threat import BUDGETS
from assay.targets.access import Access
from assay.targets.base import Protector
from assay.targets.defended import Defended

CHEAP: dict[str, dict[str, object]] = {
    "evasion.pgd": {"steps": 10, "restarts": 2},
    "evasion.apgd": {"steps": 20},
    "evasion.apgd-t": {"steps": 20, "targets": 2},
    "evasion.fab": {"steps": 10},
    "evasion.feature-collision": {"steps": 10, "refine": 10},
    "evasion.square": {"queries": 60},
    "evasion.transfer": {"surrogates": (convolutional().target,), "steps": 10},
    "evasion.ddn": {"steps": 20},
    "evasion.fmn": {"steps": 20},
    "evasion.hclu": {"confidence": 0.6, "steps": 100},
    "evasion.nes": {"draws": 10},
    "evasion.spsa": {"draws": 10},
    "evasion.zoo": {"coordinates": 12},
    "evasion.carlini-wagner": {"steps": 30, "searches": 2},
    "evasion.elastic-net": {"steps": 30, "searches": 2},
    "evasion.smoothing-radius": {"n": 2000},
    "evasion.smoothing": {"sigma": 0.1, "n": 10},
    "evasion.adversarial-training": {"budget": evasion.Linf(0.1), "epochs": 1},
}
FITTED: dict[str, Callable[[Tensor], object]] = {
    "evasion.autoencoder": lambda x: evasion.Autoencoder.fit(x, seed=0, epochs=1, width=4),
}
"""Defenses that are fitted to clean examples first."""
EASY = frozenset({float("inf"), 2.0})


def made(card: catalog.Card) -> object:
    """The method of a row, with parameters that make it fast."""
    return catalog.load(card)(**CHEAP.get(card.name, {}))


def rows(kind: str) -> list[object]:
    return [pytest.param(card, id=card.method) for card in catalog.listed(kind=kind, wing="evasion")]


@pytest.mark.parametrize("card", rows("attack"))
def test_every_attack_keeps_to_the_contract(card: catalog.Card) -> None:
    attack = made(card)
    assert isinstance(attack, Perturber)
    testing.check_attack(attack)


@pytest.mark.parametrize("card", rows("proof"))
def test_every_proof_keeps_to_the_contract(card: catalog.Card) -> None:
    proof = made(card)
    assert isinstance(proof, Certifier)
    testing.check_proof(proof, defense=evasion.Smoothing(sigma=0.2) if card.needs == "labels" else None)


DETECTORS = {"feature-squeezing", "lid", "mahalanobis", "statistical-odds"}
"""Fitted to more points than there are here: tests/evasion/defenses/test_detection.py tries their contract."""


def test_detectors_are_the_defenses_that_are_fitted_to_a_target() -> None:
    recipes = {card.method for card in catalog.listed(kind="defense", wing="evasion") if hasattr(catalog.load(card), "false_positives")}
    assert recipes == DETECTORS


@pytest.mark.parametrize("card", [row for row in rows("defense") if row.id not in DETECTORS])
def test_every_defense_keeps_to_the_contract(card: catalog.Card) -> None:
    setting = convolutional()
    setting.module.eval()
    fitted = FITTED.get(card.name)
    defense = fitted(setting.x) if fitted is not None else made(card)
    testing.check_defense(defense, setting.target, setting.x)
    safe = defense.protect(setting.target) if isinstance(defense, Protector) else None
    if isinstance(safe, Defended):
        assert safe.bare is setting.target
        for seen in (safe.naive(), safe.adapted()):
            testing.check_target(seen, setting.x)


def test_the_contract_catches_a_defense_that_is_none() -> None:
    setting = convolutional()
    with pytest.raises(AssertionError, match="neither protect nor fit"):
        testing.check_defense(object(), setting.target, setting.x)


@pytest.mark.parametrize("card", [pytest.param(c, id=c.name) for c in catalog.listed(wing="evasion")])
def test_every_row_says_what_its_class_says(card: catalog.Card) -> None:
    cls = catalog.load(card)
    assert cls.__module__.startswith("assay.")
    if card.kind in ("attack", "proof"):
        assert card.needs == str(cls.needs)
        norms = {BUDGETS[name].norm for name in card.norms if name in BUDGETS}
        assert norms == (set() if kinds_of(cls) else set(cls.norms))
        assert set(card.norms) - set(BUDGETS) == kinds_of(cls)
    else:
        assert (card.needs, card.norms) == ("", ())


def test_every_public_method_has_a_row() -> None:
    listed = {catalog.load(card) for card in catalog.listed(wing="evasion")}
    budgets = {*BUDGETS.values(), *FAMILIES.values(), evasion.Records, evasion.Schema}
    public = {getattr(evasion, name) for name in evasion.__all__} - budgets
    assert public == listed


@pytest.mark.parametrize("package", [assay, evasion, privacy, targets], ids=lambda p: p.__name__)
def test_every_public_name_resolves(package) -> None:
    missing = []
    for name in package.__all__:
        try:
            getattr(package, name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert missing == []


def test_an_unknown_row_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.find("evasion.apgdd")
    assert caught.value.code == "CFG131"
    assert "did you mean 'evasion.apgd'" in caught.value.what


def test_listing_imports_no_torch() -> None:
    code = "import sys, assay.catalog as c; n = len(list(c.listed())); sys.exit(0 if n >= 16 and 'torch' not in sys.modules else 1)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_findings_name_every_code_that_the_sources_raise() -> None:
    import re
    from pathlib import Path

    from assay.errors import findings

    root = Path(import_module("assay").__file__).parent
    said = {code for path in root.rglob("*.py") for code in re.findall(r"\"((?:ATK|CFG|DAT|DBT|LGR|PRF|RUN|TGT|THR)\d{3})\"", path.read_text())}
    assert said - set(findings()) == set()


@dataclass(frozen=True)
class _Wrong:
    """PGD, spoiled in one way."""

    how: str
    needs: ClassVar[Access] = Access.GRADIENTS
    norms: ClassVar[frozenset[float]] = EASY

    def perturb(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        z = evasion.PGD(steps=5).perturb(view, x, y, budget, rng)
        spoil = {
            "far": lambda: x + 3 * (z - x),
            "outside": lambda: z - 0.01,
            "lies": lambda: budget.random(x, view.bounds, rng),
            "mixes": lambda: budget.project(z + 1e-3 * x.mean(0), x, view.bounds) if (z != x).any() else x,
            "global": lambda: torch.where(torch.rand(1) > 2, x, z),
            "writes": lambda: x.mul_(1.0).add_(1e-3) * 0 + z,
            "weak": lambda: x,
            "greedy": lambda: view.module() and z,
            "unlike": lambda: z.float(),
            "timid": lambda: torch.where((x > 0) & (x < 1), z, x),
        }
        return spoil[self.how]()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("far", "left the budget"), ("outside", "left the budget or the box"), ("lies", "did not return the original"),
        ("mixes", "did not return the original|influence each other"), ("global", "random numbers"),
        ("writes", "caller's tensors"), ("weak", "broke none"), ("greedy", "was denied"), ("unlike", "returned torch.float32"),
        ("timid", "never moves a pixel|did not return the original"),
    ],
)
def test_the_contract_catches_an_attack_that_is(how: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check_attack(_Wrong(how))


@dataclass(frozen=True)
class _Overspends:
    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})

    def perturb(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        at = torch.arange(len(x))
        for _ in range(testing.QUERIES + 1):
            view.scores(x, at)
        return x


def test_the_contract_catches_an_attack_that_overspends() -> None:
    with pytest.raises(AssertionError, match="budget of 100 queries"):
        testing.check_attack(_Overspends())


@dataclass(frozen=True)
class _Boasts:
    needs: ClassVar[Access] = Access.WEIGHTS
    norms: ClassVar[frozenset[float]] = frozenset({float("inf")})
    failure: float = 0.0
    wrong_labels: bool = False

    def certify(self, view, x: Tensor, y: Tensor, budget, rng) -> Tensor:
        right = view.labels(x, torch.arange(len(x))) == y
        radii = torch.full((len(x),), budget.radius, dtype=torch.float64)
        return radii if self.wrong_labels else radii.masked_fill(~right, -torch.inf)


def test_the_contract_refutes_a_proof_that_certifies_everything() -> None:
    with pytest.raises(AssertionError, match="beyond their true distance"):
        testing.check_proof(_Boasts())
    with pytest.raises(AssertionError, match="which PGD broke"):
        testing._check_on_network(_Boasts(), evasion.Linf(0.2))
    with pytest.raises(AssertionError, match="a label that is not the prediction"):
        testing._check_on_network(_Boasts(wrong_labels=True), evasion.Linf(1e-9))


def test_the_contract_of_targets_holds_and_catches() -> None:
    setting = convolutional()
    testing.check_target(setting.target, setting.x)

    class Coupled(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores = x.flatten(1)[:, :3]
            return scores - scores.mean(0)

    with pytest.raises(AssertionError, match="of rows alone differ"):
        testing.check_target(targets.torch(Coupled()), torch.rand(8, 5, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(AssertionError, match="at least two examples"):
        testing.check_target(setting.target, setting.x[:1])


def test_a_cascade_plays_its_stages_by_access() -> None:
    cascade = evasion.AutoAttack()
    assert isinstance(cascade, Cascade)
    assert [type(s).__name__ for s in cascade.stages(evasion.Linf(0.1), Access.SCORES)] == ["Square"]
    names = [type(s).__name__ for s in cascade.stages(evasion.Linf(0.1), Access.GRADIENTS)]
    assert names == ["APGD", "TargetedAPGD", "FAB", "Square"]
