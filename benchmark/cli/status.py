"""`plan` and `status`: a plan's runs and their states."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.options import (
    DataRoot,
    Datasets,
    DeviceName,
    Epochs,
    Methods,
    PlanName,
    PrecisionSetting,
    Results,
    Seeds,
    note_empty,
    pick_device,
)
from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.progress import console
from benchmark.studies.timing import measure as timing
from benchmark.sweep.run import Run
from benchmark.sweep.selection import RESULTS, Selection
from benchmark.sweep.status import State, Status
from benchmark.sweep.train import Jobs, commands


def plan(
    name: PlanName,
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    each: Annotated[
        Jobs | None, typer.Option("--commands", help="Only print what trains each missing row, or each seed.")
    ] = None,
) -> None:
    """List a plan's runs, their states, and an estimate of the time left on this machine."""
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
    if each is not None:
        _print_commands(chosen, each, data_root, device)
        return
    on = pick_device(device, chosen.precision)
    table = Table("row", "data set", "state", "key", "time left", "note")
    statuses = chosen.statuses()
    untimed = any(f.state is not State.STORED and f.seconds_per_epoch is None for f in statuses)
    if untimed:
        timing.note_busy_cores()
        console.print("timing a few iterations of what is not stored, up to a minute each", markup=False)
    with console.status("timing ...") as line:

        def show(run: Run) -> None:
            what = f"timing {run.row} on {run.column}"
            if console.is_terminal:
                line.update(escape(what))
            else:
                console.print(what, markup=False)

        left = timing.seconds_left(statuses, chosen.plan, on, show)
    for found, seconds in zip(statuses, left, strict=True):
        table.add_row(*_state_cells(found), duration(seconds) if seconds else "", escape(found.detail))
    console.print(table)
    note_empty(chosen)
    where = f"measured here on {provenance.device_name(on)}"
    if untimed and on.type == "cpu":
        where += "; runs of minutes are compiled, which makes them faster"
    for column in dict.fromkeys(found.run.column for found in statuses if found.state is not State.STORED):
        if chosen.plan.datasets[column].train_samples is None:
            where += f"; {column} taken to have {timing.USUAL_SAMPLES} training images (its train_samples)"
    console.print(f"time left: about {duration(sum(left))}, {where}", markup=False)


def _print_commands(chosen: Selection, each: Jobs, data_root: Path | None, device: str) -> None:
    """One a line, for another program to read; the device may be one of another machine."""
    options = [] if data_root is None else ["--data-root", str(data_root)]
    options += [] if device == "auto" else ["--device", device]
    statuses = chosen.statuses()
    listed = list(commands(statuses, chosen.plan, chosen.store, each, *options))
    for command in listed:
        print(command)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    if damaged:
        raise UserError(*dict.fromkeys(damaged))
    if not listed:
        print("nothing to train", file=sys.stderr)


def status_command(
    name: PlanName = "table2",
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Say what is stored, missing, partial, stale or damaged, and whether the store is intact.

    Takes the options of `run` that do not change how it trains, so that its command line serves here, too.
    """
    chosen = Selection(
        name,
        results,
        dataset=dataset,
        method=method,
        seeds=seeds,
        epochs=epochs,
        data_root=data_root,
        precision=precision,
        reading=True,
    )
    pick_device(device)
    table = Table("row", "data set", "state", "key", "note")
    statuses = chosen.statuses()
    for found in statuses:
        table.add_row(*_state_cells(found), escape(found.detail))
    console.print(table)
    note_empty(chosen)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    problems = list(dict.fromkeys([*chosen.store.problems(), *damaged]))
    if problems:
        raise UserError(*problems)
    counts = Counter(found.state for found in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    complete = len(chosen.store.folders())
    console.print(f"of these: {states}", markup=False)
    console.print(f"store intact: {complete} complete run{'s' * (complete != 1)} in all", markup=False)


def _state_cells(found: Status) -> tuple[str, str, str, str]:
    return escape(found.run.row), found.run.column, found.state.value, found.run.key


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
