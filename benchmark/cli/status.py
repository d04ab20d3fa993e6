"""`status`: the runs of a plan and what is stored of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
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
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console
from benchmark.sweep.jobs import Jobs, commands
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, Status


def command(
    name: PlanName = "table2",
    dataset: Datasets = None,
    method: Methods = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Estimate the time left on this machine.")
    ] = False,
    each: Annotated[
        Jobs | None,
        typer.Option("--commands", help="Only print the commands that train each missing row, or each seed."),
    ] = None,
) -> None:
    """List the runs of a plan and their states: stored, partial, unmeasured, stale, damaged or missing.

    Takes the options of `run` that decide what is trained, so that both have the same command line.
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
        reading=not estimate and each is None,
    )
    statuses = chosen.statuses()
    if each is not None:
        _print_commands(chosen, statuses, each, data_root, device)
        return
    columns = ["row", "data set", "state", "key", "note"]
    rows = [
        [found.run.row, found.run.column, found.state.value, found.run.key, found.detail]
        for found in statuses
    ]
    said = ""
    if estimate:
        left, said = _estimate(chosen, statuses, device)
        columns.insert(4, "time left")
        for row, seconds in zip(rows, left, strict=True):
            row.insert(4, duration(seconds) if seconds else "")
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    note_empty(chosen)
    if said:
        console.print(said, markup=False)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    problems = list(dict.fromkeys([*chosen.store.problems(), *damaged]))
    if problems:
        raise UserError(*problems)
    counts = Counter(found.state for found in statuses)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    complete = len(chosen.store.folders())
    console.print(f"of these: {states}", markup=False)
    console.print(f"store intact: {complete} complete run{'s' * (complete != 1)} in all", markup=False)


def _estimate(chosen: Selection, statuses: Sequence[Status], device: str) -> tuple[list[float], str]:
    """The seconds left for each run on this machine, and a line with their sum."""
    from benchmark.common.provenance import device_name
    from benchmark.studies.timing import measure as timing

    on = pick_device(device, chosen.precision)
    missing = [found for found in statuses if found.state is not State.STORED]
    untimed = any(found.seconds_per_epoch is None for found in missing)
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
    said = f"time left: about {duration(sum(left))}, measured here on {device_name(on)}"
    if untimed and on.type == "cpu":
        said += "; long runs are compiled, which makes them faster"
    for column in dict.fromkeys(found.run.column for found in missing):
        if chosen.plan.datasets[column].train_samples is None:
            said += f"; {column} is taken to have {timing.USUAL_SAMPLES} images (its train_samples)"
    return left, said


def _print_commands(
    chosen: Selection, statuses: Sequence[Status], each: Jobs, data_root: Path | None, device: str
) -> None:
    """Print one command a line, for another program to read. The device may be one of another machine."""
    options = [] if data_root is None else ["--data-root", str(data_root)]
    options += [] if device == "auto" else ["--device", device]
    listed = list(commands(statuses, chosen.plan, chosen.store, each, *options))
    for line in listed:
        print(line)
    damaged = [found.detail for found in statuses if found.state is State.DAMAGED]
    if damaged:
        raise UserError(*dict.fromkeys(damaged))
    if not listed:
        print("nothing to train", file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds in a unit that is easy to read."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
