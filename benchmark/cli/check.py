"""`python -m benchmark check`."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.common.errors import UserError
from benchmark.common.progress import console
from benchmark.engine.check import outcomes
from benchmark.methods import METHODS


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rule's name in plans, e.g. DTP.")],
) -> None:
    """Check that a learning rule keeps to what training relies on."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}, allowed: {', '.join(METHODS)}")
    problems = 0
    for outcome in outcomes(METHODS[name]):
        said = outcome.problem or (f"skipped: {outcome.skipped}" if outcome.skipped else "ok")
        console.print(f"{outcome.check}: {said}", markup=False)
        problems += bool(outcome.problem)
    if problems:
        raise typer.Exit(1)
