"""`report` and `verify`: tables, figures and claims from the store."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from benchmark.cli.options import (
    Datasets,
    Epochs,
    Methods,
    OpenPage,
    PlanOption,
    PrecisionSetting,
    Results,
    Seeds,
    warning,
)
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console
from benchmark.config import CONFIGS, known_plans, load_paper_values
from benchmark.report import contents
from benchmark.report.contents import REPORTS
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status

NOT_SUPPORTED = 3
"""Exit status of `verify` for a claim that is not; an error has 1, wrong usage 2."""


def report_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(REPORTS)}, all, or a plan.")],
    plan: PlanOption = None,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    results: Results = RESULTS,
    open_page: OpenPage = False,
) -> None:
    """Rebuild a table, a figure, the claims or everything from the store, beside the paper's numbers."""
    if name not in (*REPORTS, "all"):
        if plan is not None:
            raise UserError(f"report: {name!r} found, allowed: {', '.join(REPORTS)}, all")
        if not name.endswith((".yaml", ".yml")) and not (CONFIGS / f"{name}.yaml").is_file():
            raise UserError(
                f"report: {name!r} found, allowed: {', '.join(REPORTS)}, all; or a plan: {known_plans()}"
            )
        name, plan = "table2", name
    for option, given in (("--dataset", dataset), ("--method", method)):
        if given is not None and name not in ("table2", "differences", "curves"):
            raise UserError(f"{option}: goes with report table2, differences and curves, not with {name}")
    chosen = Selection(
        plan or "table2",
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        precision=precision,
        reading=True,
    )
    if open_page and name != "all":
        raise UserError("--open: goes with report all, which makes the page")
    if chosen.plan.changes and name in contents.WHATEVER:
        raise UserError(f"report {name}: {shlex.join(chosen.plan.changes)} found, it takes none of these")
    if name != "all" and not contents.is_available(name, chosen):
        raise UserError(f"report: {chosen.plan.source} has nothing for {name} under these options")
    _refuse_nothing(chosen)
    chosen.refuse_unwritable()
    with warning(chosen):
        files = contents.report_all(chosen, console) if name == "all" else REPORTS[name](chosen, console)[0]
        for file in files:
            console.print(f"written: {file}", markup=False)
    if open_page:
        from benchmark.report import html

        html.open_page(files[-1])


def _refuse_nothing(chosen: Selection) -> None:
    """`UserError` where nothing at all is stored under a changed protocol: its tables would be empty."""
    plan = chosen.plan
    runs = plan.runs(list(plan.config.rows), list(plan.config.columns))
    if plan.changes and all(status(run, chosen.store).state in (State.MISSING, State.STALE) for run in runs):
        raise UserError(f"nothing is stored yet for {plan.command()}")


def verify(
    plan: PlanOption = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    results: Results = RESULTS,
) -> None:
    """Judge every claim of the paper on stored results; exit status 3 if one is not supported."""
    from benchmark.comparison import claims
    from benchmark.report import claims as claims_report

    chosen = Selection(
        plan or "table2", results, seeds=seeds, epochs=epochs, precision=precision, reading=True
    )
    with warning(chosen):
        ledger = claims.verify(chosen.plan, chosen.store, load_paper_values()["table2"])
        claims_report.show(ledger, console)
    if ledger.failed:
        raise typer.Exit(NOT_SUPPORTED)
