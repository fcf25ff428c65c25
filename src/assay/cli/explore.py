"""The verbs that explain: what there is, what a code or a method means, and a plan to start from."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path

import click

from assay import catalog
from assay.cli.screen import save
from assay.errors import ConfigError, findings, nearest

TEMPLATE = """\
# An audit: what is under test, on what, against whom, and what must hold.   assay run {name}

[target]
kind = "torch"                     # torch | onnx | sklearn | http
load = "model.py:build"            # a callable that returns the model; onnx: a file; http: an address
# weights = "model.safetensors"    # or .pth with tensors only
bounds = [0, 1]                    # the box in which inputs live, before normalization
# normalize = "cifar10"            # or [[means], [stds]]; leave out where the model does it itself

[data]
load = "data.npz#test[:1000]"      # npz, npy pair, mnist: folder, images/, table.csv#label=y, hf:org/name

[[trial]]
id = "linf"
threat = {{ access = "gradients", budget = "linf 8/255" }}
attacks = ["auto-attack"]          # the demonstrated side
proofs = ["crown"]                 # the proved side; the game plays them together
# curve = ["1/255", "2/255", "4/255"]

[[claim]]
id = "ROB-1"
that = "robust accuracy >= 0.40"
"""


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("audit.toml"))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(path: Path, force: bool) -> None:
    """Write a plan to start from."""
    if path.exists() and not force:
        raise ConfigError("CFG105", f"{path} exists", where=str(path))
    save(path, TEMPLATE.format(name=path.name))
    click.echo(f"wrote {path}; next: edit it, then assay run {path}", err=True)


@click.command("list")
@click.option("--kind", type=click.Choice(["game", "attack", "proof", "defense"]), default=None, help="Only this kind.")
@click.option("--wing", default="", help="Only this family, such as evasion.")
@click.option(
    "--stage",
    type=click.Choice(["data", "training", "model", "serving"]),
    default=None,
    help="Only this stage of a model's life.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the cards as JSON.")
def list_(kind: str | None, wing: str, stage: str | None, as_json: bool) -> None:
    """List every game, attack, proof and defense."""
    rows = list(catalog.listed(kind=kind or "", wing=wing, stage=stage or ""))
    if as_json:
        click.echo(json.dumps([asdict(card) for card in rows], indent=2))
        return
    width = max((len(card.name) for card in rows), default=0)
    for card in rows:
        click.echo(
            f"{card.name:<{width}}  {card.kind:<7}  {card.needs or '-':<9}  {' '.join(card.norms) or '-':<16}  "
            f"{card.summary}"
        )


@click.command()
@click.argument("name")
def explain(name: str) -> None:
    """Explain a code (TGT102) or a method (evasion.apgd)."""
    table = findings()
    if name.upper() in table:
        finding = table[name.upper()]
        click.echo(f"{finding.code}  {finding.title}\n\nWhy it matters\n  {finding.why}\n\nWhat to do\n  {finding.fix}")
        return
    known = [*table, *catalog.cards(), *(card.method for card in catalog.cards().values())]
    if name not in known:
        raise ConfigError("CFG131", f"there is no code or method called {name!r}{nearest(name, known)}")
    card = catalog.find(name)
    ids = ", ".join((*card.atlas, *card.nist, *card.owasp))
    click.echo(f"{card.name} ({card.kind}): {card.summary}\n")
    click.echo(inspect.getdoc(catalog.load(card)) or "")
    plans = any(row.name == card.game for row in catalog.listed(kind="game"))
    plays = f" · plays in {card.game}{'' if plans else ', from Python alone'}" if card.game else ""
    click.echo(f"\nstage {card.stage}{plays}" + (f" · taxonomy {ids}" if ids else ""))
