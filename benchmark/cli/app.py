"""`python -m benchmark`: its commands."""

from collections.abc import Callable

import typer

from benchmark.cli import check, report, rerun, run, search, sensitivity, status, timing
from benchmark.cli.options import run_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Trains the methods of the FW-DTP paper and rebuilds its tables from stored results.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "plan": status.plan,
    "status": status.status_command,
    "run": run.run,
    "report": report.report_command,
    "verify": report.verify,
    "reproduce": run.reproduce,
    "rerun": rerun.rerun_command,
    "replay": rerun.replay_command,
    "check": check.command,
    "sensitivity": sensitivity.command,
    "search": search.command,
    "timing": timing.command,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run a command; a `UserError` becomes a line a problem and exit status 1."""
    run_app(app)
