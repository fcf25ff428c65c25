"""Thin: parse, call audits, hand to report. stdout is data, stderr is talk."""

from __future__ import annotations

import os
import sys

import click

from assay.cli.evidence import check, compare, replay, report, schema, verify
from assay.cli.explore import explain, init, list_
from assay.cli.run import demo, run
from assay.errors import AssayError

EPILOG = (
    "Exit codes: 0 no claim broken · 1 a claim broken · 2 configuration · 3 not enough evidence · "
    "4 target unreachable · 5 trust failure · 130 interrupted."
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="assay", prog_name="assay")
def group() -> None:
    """Play the adversary against a machine-learning model, keep the evidence, and say what it is worth."""


for _command in (demo, init, list_, explain, run, check, report, compare, replay, verify, schema):
    group.add_command(_command)


def main() -> None:
    """The console entry point: coded errors become one message on stderr and an exit code."""
    # Threads that spin while they wait make a busy machine many times slower; asleep they cost next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.exit(group.main(standalone_mode=False) or 0)
    except AssayError as error:
        click.echo(error.render(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was earned is in the ledger, and the same command resumes", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away: nothing to say and nobody to say it to
        sys.exit(0)
