"""`run` and `reproduce`: train what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from benchmark.cli.options import (
    CompileSetting,
    DataRoot,
    Datasets,
    DeviceName,
    Epochs,
    Methods,
    OpenPage,
    PlanName,
    PrecisionSetting,
    ReplicasPerPass,
    Results,
    Seeds,
    note_empty,
    pick_device,
    warn,
)
from benchmark.common.errors import DataNotFound, UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console
from benchmark.engine.settings import Compile


def run(
    name: PlanName,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    compile: CompileSetting = Compile.AUTO,
    replicas_per_pass: ReplicasPerPass = None,
    report: Annotated[bool, typer.Option(help="Rebuild the table afterwards.")] = False,
    needed_for: Annotated[
        str | None, typer.Option("--for", help="Only what table1 or figure2 needs, and rebuild that.")
    ] = None,
) -> None:
    """Train what is missing of a plan. Interrupted runs resume from their checkpoints."""
    from benchmark.report.contents import REPORTS
    from benchmark.sweep.selection import Selection, check_number
    from benchmark.sweep.status import State, status
    from benchmark.sweep.train import train_dataset

    check_number("--replicas-per-pass", replicas_per_pass)
    chosen = Selection(
        name,
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        data_root=data_root,
        precision=precision,
    )
    if needed_for is not None:
        chosen.narrow_to_measured(_measurement(needed_for))
    if report or needed_for is not None:
        chosen.refuse_unwritable()
    on = pick_device(device, chosen.precision)
    statuses = chosen.statuses()
    note_empty(chosen)
    warn(chosen.store, [found.detail for found in statuses])
    failures: list[str] = []
    for column in chosen.columns:
        statuses = [status(run, chosen.store) for run in chosen.plan.runs(chosen.rows, [column])]
        failures += [found.detail for found in statuses if found.state is State.DAMAGED]
        addition = chosen.plan.config.columns[column].addition and not chosen.named_columns
        try:
            failures += train_dataset(
                chosen, column, statuses, data_root, on, compile, replicas_per_pass, download=not addition
            )
        except DataNotFound as error:
            if addition:
                console.print(f"skipped (not in the paper): {error}", markup=False)
            else:
                failures.append(str(error))
        except UserError as error:
            failures += error.args
    if report or needed_for is not None:
        try:
            for file in REPORTS[needed_for or "table2"](chosen, console)[0]:
                console.print(f"written: {file}", markup=False)
        except UserError as error:
            failures += error.args
    if failures:
        raise UserError(*dict.fromkeys(failures))


def _measurement(report: str) -> str:
    """The measurement that a report of `run --for` shows."""
    from benchmark.report.contents import MEASURED

    if report not in MEASURED:
        raise UserError(f"--for: {report!r} found, allowed: {', '.join(MEASURED)}")
    return MEASURED[report]


def reproduce(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="paper or quick.")],
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    open_page: OpenPage = False,
) -> None:
    """Train and measure everything that is missing, then rebuild all tables and figures, and the page."""
    from benchmark.cli import sensitivity, timing
    from benchmark.cli.report import report_command
    from benchmark.studies.sensitivity.study import PROFILES
    from benchmark.sweep.selection import Selection

    if profile not in PROFILES:
        raise UserError(f"{profile!r} found, allowed: {', '.join(PROFILES)}")
    plan, failures = PROFILES[profile], list[str]()
    Selection(plan, results).refuse_unwritable()
    steps: tuple[Callable[[], None], ...] = (
        lambda: run(plan, data_root=data_root, results=results, device=device),
        lambda: sensitivity.command(profile=profile, data_root=data_root, results=results, device=device),
        lambda: timing.command(with_table3=True, profile=profile, results=results, device=device),
        lambda: report_command("all", plan=plan, results=results, open_page=open_page),
    )
    for step in steps:
        try:
            step()
        except UserError as error:  # what is there is still shown
            failures += error.args
    if failures:
        raise UserError(*dict.fromkeys(failures))
