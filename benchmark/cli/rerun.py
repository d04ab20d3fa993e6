"""`rerun` and `replay`: train stored runs and reference traces again, and compare."""

from __future__ import annotations

from functools import cache
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
        list[str] | None, typer.Argument(metavar="KEY...", help="Keys of stored runs, or their folders.")
    ] = None,
    count: Annotated[int, typer.Option("--random", help="Without keys: draw so many stored runs.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 1,
    plan: PlanOption = None,
    epochs: Annotated[int | None, typer.Option(help="Train only so many first epochs.")] = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    device: DeviceName = "auto",
) -> None:
    """Train stored runs again and compare the numbers. Nothing is stored."""
    check_number("--random", count)
    check_number("--epochs", epochs, most=MOST_EPOCHS)
    chosen = Selection(plan or "table2", results, data_root=data_root, reading=True)
    on = pick_device(device)
    stored_runs = chosen.store.runs()
    if not stored_runs:
        raise UserError(f"{chosen.root}: no stored run to train again")

    @cache
    def load(name: str) -> Dataset:
        return datasets.load(name, chosen.plan.datasets[name], data_root=data_root, device=on)

    def load_for(stored: StoredRun) -> Dataset:
        if stored.column not in chosen.plan.datasets:
            raise UserError(f"{stored.folder}: the data set {stored.column} is not in datasets.yaml")
        return load(stored.column)

    found = rerun.choose(stored_runs, keys or [], count, seed, load_for)
    again = [(stored, rerun.run_of(stored, epochs), data) for stored, data in found]
    for stored, run, _ in again:  # everything is checked before anything trains
        check_precision(run.precision, on)
        made = described(stored)
        seeds = f"seed{'s' if len(run.seeds) > 1 else ''} {made['seeds']}"
        length = f"{run.epochs} of {stored.spec['epochs']} epochs (all: {made['time']} on {made['device']})"
        console.print(f"{run.row} on {run.column}, {made['key']}, {seeds}: {length}", markup=False)
    table = Table("row", "data set", "key", "epochs", "train loss", "test error", "")
    differing = []
    for stored, run, data in again:
        key = stored.record["key"]
        with progress_bar(console, f"{run.row} on {run.column}", run.total_epochs) as update:
            agreement = rerun.repeat(stored, run, data, on, advance(update))
        margin = chosen.plan.config.margins.get(run.column, 0.0)
        if not agreement.within(margin):
            differing.append(key)
        deviations = (f"{agreement.loss:.1e} (relative)", f"{agreement.error:.2f} of {margin:g} points")
        table.add_row(
            escape(run.row), run.column, key, str(agreement.epochs), *deviations, agreement.verdict(margin)
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
    """Replay reference traces of the released code through this code, and compare."""
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
