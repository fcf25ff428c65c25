"""The JSON object of ``assay run --json``, and the JSON Schema of it that ``assay schema`` publishes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

from assay.evidence.bound import Side
from assay.evidence.claim import Judgment, Verdict
from assay.evidence.record import Evidence, Kind

JsonSchema = dict[str, object]

_TOTAL = "Summed over all points of the trial; divide by n for the cost per point."


def to_json(evidence: Sequence[Evidence], judgments: Sequence[Judgment]) -> dict[str, object]:
    """The object, of plain data that any JSON writer takes; a bound that is infinite or no number becomes null."""
    whole = {"evidence": [e.to_json() for e in evidence], "claims": [j.to_json() for j in judgments]}
    return {key: _finite(value) for key, value in whole.items()}


def schema() -> JsonSchema:
    """JSON Schema 2020-12 of :func:`to_json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Assay audit",
        **_object("What was played, proved and could not run, and what it means for the claims.", {
            "evidence": _list("One entry a method of a trial.", {"$ref": "#/$defs/evidence"}),
            "claims": _list("One entry a claim, in the order of the plan.", {"$ref": "#/$defs/claim"}),
        }),
        "$defs": {
            "evidence": _evidence(), "threat": _threat(), "bound": _bound(), "cost": _cost(), "doubt": _doubt(),
            "claim": _claim(),
        },
    }


def _evidence() -> JsonSchema:
    return _object("One played, proved or not run trial, and what it is worth.", {
        "id": _text("A short name: the first twelve digits of `trial`."),
        "kind": _choice("played: an attack's side. proved: a proof's side. not run: it could not run, and says "
                        "nothing for or against the target; see `error`.", get_args(Kind)),
        "game": _text("What was played, such as evasion."),
        "trial": _text("Hash, in hexadecimal, of everything that determines the result; a ledger resumes by it."),
        "target": _text("The model or procedure under test."),
        "threat": {"$ref": "#/$defs/threat"},
        "attack": _text("The method, attack or proof, with the parameters that differ from its defaults."),
        "seed": _whole("The seed of all randomness of the trial.", least=None),
        "bounds": _list("What was established, one-sided; empty for a trial that did not run.",
                        {"$ref": "#/$defs/bound"}),
        "cost": {"$ref": "#/$defs/cost"},
        "doubts": _list("Reasons to trust this evaluation less.", {"$ref": "#/$defs/doubt"}),
        "artefacts": _texts("By name, the sha256 in hexadecimal of arrays that outlive the run: adversarial inputs, …"),
        "provenance": _texts("What replay checks: versions, fingerprints of data and model, pickles loaded."),
        "error": _text("Of a trial that could not run, the coded reason; otherwise empty."),
        "error_exit": _whole("The exit code that this reason stands for; 0 for a trial that ran."),
    })


def _threat() -> JsonSchema:
    return _object("What the adversary wants, sees, knows and may do.", {
        "goal": _text("What counts as a success, such as misclassify or targeted."),
        "access": _text("What the adversary sees of the target: labels, scores, gradients or weights."),
        "budget": _text("How much it may change: a norm and a radius in the data's units, such as linf 0.03."),
        "knows": _list("What it knows of the design, such as model or defense.", {"type": "string"}),
        "queries": {"description": "How many inputs it may submit per point; null for no limit.",
                    "type": ["integer", "null"], "minimum": 0},
    })


def _bound() -> JsonSchema:
    return _object("One-sided knowledge of a quantity.", {
        "quantity": _text("What is bounded, such as robust accuracy; at another budget than the threat's own, "
                          "robust accuracy @ linf 0.05."),
        "side": _choice("Whether the quantity is at most or at least the numbers given.", get_args(Side)),
        "estimate": _number("The fact about the n tested points, in the quantity's own unit: a share of 0 to 1 for "
                            "accuracies and rates. null if not finite."),
        "value": _number("The bound it implies for the distribution that the points were drawn from, at `confidence`; "
                         "same unit as `estimate`. null if not finite."),
        "confidence": {"description": "One-sided confidence of `value`, strictly between 0 and 1.", "type": "number",
                       "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "n": _whole("How many points were tested."),
        "method": _text("What established the bound."),
    })


def _cost() -> JsonSchema:
    return _object(f"What the adversary or the prover spent. {_TOTAL}", {
        "forwards": _whole(f"Examples through the model, forward passes. {_TOTAL}"),
        "backwards": _whole(f"Input gradients, backward passes of one example. {_TOTAL}"),
        "queries": _whole("Examples submitted by the adversary; one query of a smoothed target is many forwards. "
                          + _TOTAL),
        "seconds": {"description": "Wall-clock seconds of the whole trial.", "type": "number", "minimum": 0},
    })


def _doubt() -> JsonSchema:
    return _object("A reason to trust the evaluation less.", {
        "code": {"description": "A code that `assay explain` knows; DBT120 is a contradiction.", "type": "string",
                 "pattern": "^[A-Z]{3}[0-9]{3}$"},
        "text": _text("What was seen."),
    })


def _claim() -> JsonSchema:
    return _object("What must hold, and how the evidence judges it.", {
        "id": _text("The claim's name in the plan, or the claim itself where it has none."),
        "claim": _text("Quantity, operator and level."),
        "verdict": _choice("broken: shown false. standing: attacked soundly and not broken, but not proven either. "
                           "proven: a proof implies it. undecided: the evidence does not tell.", get_args(Verdict)),
        "because": _text("The reason, in a sentence."),
    })


def _object(description: str, properties: Mapping[str, JsonSchema]) -> JsonSchema:
    return {"description": description, "type": "object", "required": list(properties), "properties": dict(properties)}


def _list(description: str, items: JsonSchema) -> JsonSchema:
    return {"description": description, "type": "array", "items": items}


def _text(description: str) -> JsonSchema:
    return {"description": description, "type": "string"}


def _texts(description: str) -> JsonSchema:
    return {"description": description, "type": "object", "additionalProperties": {"type": "string"}}


def _choice(description: str, values: Sequence[str]) -> JsonSchema:
    return {"description": description, "type": "string", "enum": list(values)}


def _whole(description: str, *, least: int | None = 0) -> JsonSchema:
    return {"description": description, "type": "integer", **({} if least is None else {"minimum": least})}


def _number(description: str) -> JsonSchema:
    return {"description": description, "type": ["number", "null"]}


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
