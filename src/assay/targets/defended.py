"""What a defended target declares of its design, so that an adversary who knows it can be composed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol, cast, runtime_checkable

from assay.targets.base import Target, WhiteBox


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a defense that mislead an attack which does not know them.

    Attributes:
        surrogate: a step without usable gradients; the adapted target goes back through a stand-in for it (BPDA).
        randomness: answers vary; gradients have to be averaged over draws (EOT).
        detector: inputs may be refused; an attack has to pass the detector too.
        ensemble: several models or copies answer together.
        temperature: scores are rescaled until losses on them saturate.
    """

    surrogate: bool = False
    randomness: bool = False
    detector: bool = False
    ensemble: bool = False
    temperature: bool = False

    def __or__(self, other: Parts) -> Parts:
        """The parts of a defense around another."""
        return Parts(**{f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)})

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the parts that are there."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name))


@runtime_checkable
class Defended(Target, Protocol):
    """A target under a defense that declares its parts.

    Attributes:
        bare: the model below, which knows nothing of the defense.
        parts: what the defense declares of itself and of the defenses below it.
    """

    @property
    def bare(self) -> WhiteBox: ...
    @property
    def parts(self) -> Parts: ...

    def naive(self) -> WhiteBox:
        """What an attack sees that takes the whole for one more network: gradients as autograd gives them, no detector.

        Where a step has no gradient at all, the gradient is zero.
        """

    def adapted(self) -> WhiteBox:
        """What an attack sees that knows the design: the true scores of one look, and gradients that are of use.

        They go through the stand-ins for what has none, and come from the logits before any temperature. A detector's
        refusal is the last column of the scores, differentiable, in units of the other scores (see ``Refusing``).
        One look is one draw: averaging is the composer's business.
        """


def parts_of(target: Target) -> Parts:
    """What the target declares of its design; of one that is not defended, nothing."""
    return target.parts if isinstance(target, Defended) else Parts()


def bare_of(target: Target) -> WhiteBox:
    """The model below every defense that is declared; it has no gradients where the target is a black box."""
    return target.bare if isinstance(target, Defended) else cast(WhiteBox, target)


def naive_of(target: Target) -> WhiteBox:
    """What an attack sees that does not know the design: see :meth:`Defended.naive`."""
    return target.naive() if isinstance(target, Defended) else cast(WhiteBox, target)


def adapted_of(target: Target) -> WhiteBox:
    """What an attack sees that knows the design: see :meth:`Defended.adapted`."""
    return target.adapted() if isinstance(target, Defended) else cast(WhiteBox, target)
