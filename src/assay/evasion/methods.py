"""What this wing's methods are: attacks perturb, proofs certify, a cascade is attacks from cheap to dear."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from assay.evasion.threat import Ball
from assay.games import identity_of as identity_of
from assay.games import name_of as name_of
from assay.numerics.seeds import Stream
from assay.targets.access import Access
from assay.threats import View


@runtime_checkable
class Perturber(Protocol):
    """An attack: a frozen dataclass with one verb.

    It may declare ``needs``, the least access it can work with, and ``norms``, the ones it plays (``inf``, 2, 1, 0),
    as class variables; see :func:`needs_of` and :func:`norms_of` for what holds of an attack that does not.
    """

    def perturb(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """Adversarial inputs for the points ``x [points, …]`` with labels ``y [points]``.

        ``view`` and ``rng`` are about these very points. ``y`` is the label to leave, or, where
        ``view.threat.goal`` is ``"targeted"``, the label to reach. Of a point that was not broken the original is
        returned, bit for bit.
        """


@runtime_checkable
class Minimizer(Perturber, Protocol):
    """An attack that looks for the nearest adversarial input of each point: one run gives the whole curve.

    Under a finite radius a point's search may end as soon as an input within it is found. Under an infinite one,
    ``perturb`` returns the nearest input that the whole search found.

    Attributes:
        minimal: always true; its presence is the declaration.
    """

    minimal: ClassVar[Literal[True]]


@runtime_checkable
class Cascade(Protocol):
    """An attack made of attacks; the game plays each stage on what the earlier ones left standing."""

    def stages(self, budget: Ball, access: Access) -> tuple[Perturber, ...]:
        """The members that can play under this budget and access, from cheap to dear."""


@runtime_checkable
class Certifier(Protocol):
    """A proof: a frozen dataclass with one verb.

    Attributes:
        needs: the access a *prover* has to have; it is granted by the game, whatever the adversary sees.
        norms: the norms it certifies.
        failure: the chance that one point's certificate is wrong (0 for a deterministic bound).
    """

    needs: ClassVar[Access]
    norms: ClassVar[frozenset[float]]

    @property
    def failure(self) -> float: ...

    def certify(self, view: View, x: Tensor, y: Tensor, budget: Ball, rng: Stream) -> Tensor:
        """The radius up to which each point provably keeps its label, in ``budget``'s norm, ``[points]``.

        ``-inf`` where nothing is proved (also where the method abstains). Methods that decide one radius only
        return that radius where they succeed.
        """


@runtime_checkable
class Surveyor(Certifier, Protocol):
    """A proof that finds the largest radius it can prove of each point at once, whatever radius it is asked for.

    The game asks it once, not at every radius of a curve.

    Attributes:
        once: always true; its presence is the declaration.
    """

    once: ClassVar[Literal[True]]


Method = Perturber | Cascade | Certifier


ALL_NORMS = frozenset({float("inf"), 2.0, 1.0, 0.0})


def needs_of(method: Perturber | Certifier) -> Access:
    """The access a method declares; of one that declares nothing the view alone is the judge: gradients."""
    needs: Access = getattr(method, "needs", Access.GRADIENTS)
    return needs


def kinds_of(method: Perturber | Certifier) -> frozenset[str]:
    """The kinds of budget that a method is made for, where it is made for some alone; empty for any in its norms.

    Attacks that declare none move parameters of a transformation as they move inputs.
    """
    kinds: frozenset[str] = getattr(method, "kinds", frozenset())
    return kinds


def norms_of(method: Perturber | Certifier) -> frozenset[float]:
    """The norms a method declares to play; of one that declares nothing, all: the referee checks the budget."""
    norms: frozenset[float] = getattr(method, "norms", ALL_NORMS)
    return norms
