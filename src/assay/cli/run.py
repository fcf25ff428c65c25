"""The verbs that play: run a plan, run the demonstration."""

from __future__ import annotations

from pathlib import Path

import click

from assay.cli.screen import document, follow, formats, show, write

LEDGER = "assay-ledger"


@click.command()
@click.argument("plan", type=click.Path(path_type=Path), default=Path("audit.toml"))
@click.option("--suite", default="", help="quick, standard or thorough: points, and methods where the plan has none.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    default=None,
    help=f"Folder of the evidence; default: {LEDGER} beside the plan.",
)
@click.option(
    "--format", "wanted", default="html", show_default=True, help="Files to write: html, json, junit, markdown, sarif."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder for these files; default: here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (assay schema) instead of the summary.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(plan: Path, suite: str, ledger: Path | None, wanted: str, out: Path, as_json: bool, quiet: bool) -> int:
    """Play every trial of PLAN, judge its claims, write the report; run again to resume."""
    names = formats(wanted)
    from assay.audits.plan import Plan, read_text
    from assay.audits.run import perform
    from assay.evidence.ledger import Ledger

    text = read_text(plan)
    parsed = Plan.parse(text, name=plan.name)
    where = ledger or plan.parent / LEDGER
    with Ledger.open(where) as book:
        book.plan(text, folder=str(plan.parent.resolve()))
        outcome = follow(perform(parsed, folder=plan.parent, ledger=book, suite=suite), quiet=quiet)
    report = document(
        outcome,
        bounds=(parsed.target.bounds[0], parsed.target.bounds[1]),
        plan=plan.name,
        replay=f"assay replay --ledger {where}",
    )
    show(report, outcome, as_json=as_json)
    write(report, outcome, names, out)
    return outcome.exit_code


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder for report.html; default: here.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the training and of every attack.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (assay schema) instead of the summary.")
@click.option("--quiet", is_flag=True, help="No progress.")
def demo(out: Path, seed: int, as_json: bool, quiet: bool) -> int:
    """Train a small network on real digits, audit it, harden it, audit it again."""
    from assay.audits.demo import perform_demo

    outcome = follow(perform_demo(seed=seed), quiet=quiet)
    report = document(
        outcome,
        bounds=(0.0, 1.0),
        plan="the demonstration",
        replay=f"assay demo --seed {seed}  # plays again",
        title="A digit classifier, before and after hardening",
    )
    show(report, outcome, as_json=as_json)
    write(report, outcome, ["html"], out)
    return 0
