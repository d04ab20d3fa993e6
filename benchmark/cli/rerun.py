"""`rerun` and `replay`: whether stored runs and reference traces come out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from benchmark import datasets
from benchmark.cli.options import (
    CompileSetting,
    DataRoot,
    DeviceName,
    PlanOption,
    Results,
    given_path,
    pick_device,
)
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console, progress_bar
from benchmark.config import MOST_EPOCHS
from benchmark.engine import replay
from benchmark.engine.execution import check_precision, execution
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Compile
from benchmark.report.runs import described
from benchmark.store.record import StoredRun
from benchmark.sweep import rerun
from benchmark.sweep.selection import Selection, check_number
from benchmark.sweep.train import advance


def rerun_command(
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="Of stored runs, or their folders.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--random", help="Without keys: so many of the cheaper runs.  [default: 3]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of that choice.  [default: 1]")] = None,
    plan: PlanOption = None,
    epochs: Annotated[int | None, typer.Option(help="Only the first ones, where a run has more.")] = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    device: DeviceName = "auto",
) -> None:
    """Train stored runs once more, and say whether the same comes out; nothing is stored."""
    check_number("--random", count)
    check_number("--epochs", epochs, most=MOST_EPOCHS)
    for option, given in (("--random", count), ("--seed", seed)):
        if keys and given is not None:
            raise UserError(f"{option}: goes without keys, {', '.join(keys)} given")
    chosen = Selection(plan or "table2", results, data_root=data_root, reading=True)
    on = pick_device(device)
    table = Table("row", "data set", "key", "epochs", "train loss", "test error", "")
    differing = []
    stored_runs = chosen.store.runs()
    if not stored_runs:
        raise UserError(f"{chosen.root}: no stored run to train again")

    def load(stored: StoredRun) -> Dataset:
        if (config := chosen.plan.datasets.get(stored.column)) is None:
            raise UserError(f"{stored.folder}: the data set {stored.column} is not in datasets.yaml")
        return datasets.load(stored.column, config, data_root=data_root, device=on)

    # All is checked before anything trains.
    drawn, data = rerun.choose_at_hand(
        stored_runs,
        keys or [],
        count or 3,
        1 if seed is None else seed,
        load,
        lambda line: console.print(line, markup=False),
    )
    again = [(stored, rerun.run_of(stored, epochs)) for stored in drawn]
    for _, run in again:
        check_precision(run.precision, on)
    for stored, run in again:
        made = described(stored)
        seeds = f"seed{'s' if len(run.seeds) > 1 else ''} {made['seeds']}"
        epochs_of = (
            f"{run.epochs} of {stored.spec['epochs']} epochs (all: {made['time']} on {made['device']})"
        )
        console.print(f"{run.row} on {run.column}, {made['key']}, {seeds}: {epochs_of}", markup=False)
    for stored, run in again:
        column, key = run.column, stored.record["key"]
        with progress_bar(console, f"{run.row} on {column}", run.total_epochs) as update:
            found = rerun.repeat(stored, run, data[column], on, advance(update))
        margin = chosen.plan.config.margins.get(column, 0.0)
        if not found.within(margin):
            differing.append(key)
        deviations = (f"{found.loss:.1e} (relative)", f"{found.error:.2f} of {margin:g} points")
        table.add_row(
            escape(stored.record["row"]), column, key, str(found.epochs), *deviations, found.verdict(margin)
        )
    console.print(table)
    if differing:
        raise UserError(f"trained again, these come out differently: {', '.join(differing)}")


def replay_command(
    files: Annotated[
        list[Path], typer.Argument(parser=given_path, metavar="FILE.npz...", help="Reference traces.")
    ],
    tolerance: Annotated[float, typer.Option(help="Largest deviation allowed.")] = 1e-5,
    device: DeviceName = "auto",
    compile: CompileSetting = Compile.OFF,
) -> None:
    """Replay traces of the released code through the code that trains."""
    if not tolerance >= 0:
        raise UserError(f"--tolerance: {tolerance} found, must be 0 or more")
    on = pick_device(device)
    table = Table(Column("file", overflow="fold"), "method", "steps", *replay.QUANTITIES, "")
    how = execution(compile, None, on)
    deviations = [replay.replay(file, on, execution=how) for file in files]
    for deviation in deviations:
        cells = ["-" if value is None else f"{value:.1e}" for value in deviation.largest.values()]
        verdict = "differs" if deviation.exceeds(tolerance) else "equal"
        table.add_row(deviation.file.name, deviation.method, str(deviation.steps), *cells, verdict)
    console.print(table)
    differing = [str(deviation.file) for deviation in deviations if deviation.exceeds(tolerance)]
    if differing:
        raise UserError(f"deviation above {tolerance:g}: {', '.join(differing)}")
