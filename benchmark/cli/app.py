"""The table of commands. A command's module is imported when the command is called."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from benchmark.cli.options import command_of, run_app

COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("status:command", "List what is stored and what is missing of a plan."),
    "run": ("run:run", "Train what is missing of a plan."),
    "campaign": ("campaign:command", "Train what is missing of a plan within a time limit."),
    "report": ("report:report_command", "Rebuild tables, figures and claims from the store."),
    "verify": ("report:verify", "Judge every claim of the paper on stored results."),
    "reproduce": ("run:reproduce", "Train everything that is missing, then rebuild every report."),
    "rerun": ("rerun:rerun_command", "Train stored runs again and compare the results."),
    "replay": ("rerun:replay_command", "Replay reference traces of the released code."),
    "check": ("check:command", "Check that a learning rule keeps the rules of training."),
    "sensitivity": ("sensitivity:command", "Train the configurations of Figure 3 and draw it."),
    "search": ("search:command", "Search hyperparameters on held-out training samples."),
    "timing": ("timing:command", "Measure training time; rebuild Table 3."),
}
"""Where in `benchmark.cli` each command's function is, and what the list of commands says of it."""

ALIASES = {"plan": ("status", "--estimate")}
"""Hidden commands, and the command line that each stands for."""


class LazyGroup(TyperGroup):
    """A group that lists its commands without importing them."""

    def __init__(self, **attributes: Any) -> None:
        stubs = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}
        super().__init__(**attributes | {"commands": stubs})

    def resolve_command(self, context: Any, arguments: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called, imported, and its arguments."""
        if arguments[0] in ALIASES:
            arguments = [*ALIASES[arguments[0]], *arguments[1:]]
        name, _, rest = super().resolve_command(context, arguments)
        assert name is not None
        module, _, function = COMMANDS[name][0].partition(":")
        loaded = getattr(importlib.import_module(f"benchmark.cli.{module}"), function)
        return name, command_of(loaded, name), rest


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(cls=LazyGroup, no_args_is_help=True)
def benchmark() -> None:
    """Train the methods of the FW-DTP paper and rebuild its tables from stored results."""


def main() -> None:
    """Run a command. A `UserError` becomes a line for each problem and exit status 1."""
    run_app(app)
