"""The verbs on evidence that exists: check, report, compare, replay, verify, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.run import LEDGER
from assay.cli.screen import FORMATS, document, formats, render, save, show, write
from assay.errors import ConfigError, TrustError, nearest

if TYPE_CHECKING:
    from assay.audits.plan import Plan
    from assay.audits.run import Outcome
    from assay.evidence.ledger import Ledger
    from assay.evidence.record import Evidence

_ledger = click.option(
    "--ledger", type=click.Path(path_type=Path), default=Path(LEDGER), show_default=True, help="Folder of the evidence."
)


@click.command()
@click.argument("plan", type=click.Path(path_type=Path), default=None, required=False)
@_ledger
@click.option("--require", "required", multiple=True, help="Fail unless this claim is standing or proven; repeatable.")
@click.option("--format", "wanted", default="", help="Files to write: html, json, junit, markdown, sarif.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder for these files; default: here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (assay schema) instead of the summary.")
def check(plan: Path | None, ledger: Path, required: tuple[str, ...], wanted: str, out: Path, as_json: bool) -> int:
    """Judge the claims (of PLAN, or of the plan last run) on the evidence in the ledger; nothing is attacked."""
    names = formats(wanted)
    from assay.evidence.ledger import Ledger

    with Ledger.open(ledger) as book:
        outcome, parsed, name = _judged(book, plan)
    report = document(
        outcome,
        bounds=(parsed.target.bounds[0], parsed.target.bounds[1]),
        plan=name,
        replay=f"assay replay --ledger {ledger}",
    )
    show(report, outcome, as_json=as_json)
    write(report, outcome, names, out)
    if required:
        try:
            outcome.require(*required)
        except AssertionError as error:
            click.echo(str(error), err=True)
            return outcome.exit_code or 1
    return outcome.exit_code


@click.command()
@_ledger
@click.option(
    "--format", "name", type=click.Choice(sorted(FORMATS)), default="html", show_default=True, help="What to write."
)
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The file; - for stdout; default by format.")
def report(ledger: Path, name: str, out: Path | None) -> int:
    """Write the report of the evidence in the ledger, with its worst cases."""
    from assay.audits.loading import load_data
    from assay.evidence.ledger import Ledger

    with Ledger.open(ledger) as book:
        outcome, parsed, _ = _judged(book, None)
        _, folder = book.last_plan()
    data = load_data(parsed.data, Path(folder))
    outcome = outcome.with_samples(data.x, data.y)
    made = document(
        outcome,
        bounds=(parsed.target.bounds[0], parsed.target.bounds[1]),
        plan="audit",
        replay=f"assay replay --ledger {ledger}",
    )
    text = render(made, outcome, name)
    if str(out) == "-":
        click.echo(text)
        return 0
    path = out or Path(FORMATS[name])
    save(path, text)
    click.echo(f"wrote {path}", err=True)
    return 0


@click.command()
@click.argument("ids", nargs=-1)
@_ledger
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def compare(ids: tuple[str, ...], ledger: Path, as_json: bool) -> int:
    """Set pieces of evidence side by side: bounds, cost per point, doubts. IDS as check --json prints them."""
    from assay.evidence.compare import compare as side_by_side
    from assay.evidence.ledger import Ledger

    with Ledger.open(ledger) as book:
        found = _chosen(book.history(), ids)
    table = side_by_side(*found)
    click.echo(json.dumps(table.to_json(), indent=2) if as_json else str(table))
    return 0


@click.command()
@click.argument("ids", nargs=-1)
@_ledger
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def replay(ids: tuple[str, ...], ledger: Path, as_json: bool) -> int:
    """Re-judge stored adversarial examples against the target as it is now; exit 5 where they no longer hold."""
    from assay.audits.replay import replayed
    from assay.evidence.ledger import Ledger

    rows, failed = [], []
    with Ledger.open(ledger) as book:
        text, folder = book.last_plan()
        for evidence, result in replayed(text, Path(folder), _chosen(book.evidence(), ids)):
            rows.append({"id": evidence.id, "attack": evidence.attack, **result._asdict()})
            if not as_json:
                said = f" ({result.why})" if result.why else ""
                click.echo(f"{evidence.id}  {result.held} of {result.total} hold  {evidence.attack}{said}")
            if result.held < result.total:
                why = f": {result.why}" if result.why else ""
                failed.append(f"{evidence.attack}: {result.held} of {result.total} hold{why}")
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if failed:
        raise TrustError("LGR106", "; ".join(failed), where=str(ledger))
    return 0


@click.command()
@_ledger
def verify(ledger: Path) -> int:
    """Check the ledger's hash chain and every stored array."""
    from assay.evidence.ledger import Ledger

    if not (ledger / "ledger.jsonl").exists():
        raise ConfigError("CFG106", "there is no ledger here", where=str(ledger))
    with Ledger.open(ledger) as book:
        count = book.verify()
        click.echo(f"{len(list(book.entries()))} entries and {count} arrays are whole; head {book.head}")
    return 0


@click.command()
def schema() -> int:
    """Print the JSON Schema of what run --json prints."""
    from assay.reports import schema as published

    click.echo(json.dumps(published(), indent=2))
    return 0


def _judged(book: Ledger, plan: Path | None) -> tuple[Outcome, Plan, str]:
    from assay.audits.plan import Plan, read_text
    from assay.audits.run import judged

    text = read_text(plan) if plan is not None else book.last_plan()[0]
    parsed = Plan.parse(text, name=plan.name if plan else "the plan in the ledger")
    return judged(parsed, book.evidence()), parsed, plan.name if plan else "audit.toml"


def _chosen(found: list[Evidence], ids: tuple[str, ...]) -> list[Evidence]:
    if not ids:
        return found
    chosen = []
    for id in ids:
        matching = [e for e in found if e.trial.startswith(id)]
        if not matching:
            raise ConfigError("CFG106", f"no evidence has the id {id!r}{nearest(id, [e.id for e in found])}")
        chosen += matching
    return chosen
