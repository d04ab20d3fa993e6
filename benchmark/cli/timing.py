"""`timing`: measure training times, and rebuild Table 3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmark.cli.options import (
    CompileSetting,
    Datasets,
    DeviceName,
    Methods,
    PlanOption,
    PrecisionSetting,
    Results,
    given_path,
    pick_device,
)
from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS, refuse_unwritable
from benchmark.common.progress import console
from benchmark.config import load_paper_values
from benchmark.engine.execution import execution
from benchmark.engine.memory import USABLE, free_memory
from benchmark.engine.settings import Compile, Execution, Precision
from benchmark.report import table3
from benchmark.studies.timing import costs
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.measure import measure_all
from benchmark.studies.timing.points import PROFILES, Point, table3_points, with_replicas
from benchmark.sweep.selection import Selection, parse_numbers


def _line(cost: Cost) -> tuple[str, ...]:
    """Format a measurement as a row of the terminal's table."""
    shape = (f"{cost.hidden_layers} x {cost.width}", str(cost.feedback_updates), str(cost.replicas))
    if cost.skipped:
        return (cost.method, cost.implementation, cost.dataset, *shape, f"skipped: {cost.skipped}")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        cost.method,
        cost.implementation,
        cost.dataset,
        *shape,
        shown(cost.seconds_per_epoch, ".2f"),
        shown(cost.seconds_per_epoch_and_replica, ".2f"),
        f"{shown(cost.gflops, '.0f')} of {shown(cost.matmul_gflops, '.0f')}",
        shown(cost.matmul_share, ".0%"),
    )


HEADS = (
    *("method", "implementation", "data set", "network", "updates", "replicas"),
    *("s/epoch", "s/epoch/replica", "GFLOP/s", "share"),
)


def command(
    method: Methods = None,
    dataset: Datasets = None,
    plan: PlanOption = None,
    replicas: Annotated[
        str | None, typer.Option(help="Replica counts, such as 1,5,20. [default: 1,5]")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Seconds for each measurement. [default: 5; quick profile: 0.2]"),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(parser=given_path, metavar="FILE", help="CSV file to write."),
    ] = None,
    compile: CompileSetting = Compile.AUTO,
    precision: PrecisionSetting = None,
    with_table3: Annotated[
        bool, typer.Option("--table3", help="Measure this device for Table 3, and rebuild the table.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="With --table3: paper or quick. [default: paper]")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --table3: measure again if this device has been measured.")
    ] = False,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit in GiB. [default: 70 % of the free memory]"),
    ] = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Measure training time per epoch, and the share of the machine's matrix-product rate.

    Without --dataset, the first data set of the plan is measured.
    """
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise UserError(f"--seconds: {seconds} found, must be 0 or more")
    if memory is not None and not 0 < memory < float("inf"):
        raise UserError(f"--memory: {memory} found, must be more than 0")
    on = pick_device(device, precision or Precision.HIGHEST)
    most = USABLE * free_memory(on) if memory is None else 2**30 * memory
    if with_table3:
        given = {
            "--plan": plan,
            "--method": method,
            "--dataset": dataset,
            "--replicas": replicas,
            "--csv": csv,
        }
        if compile is not Compile.AUTO:
            given["--compile"] = compile
        if precision is not None:
            given["--precision"] = precision
        extra = [option for option, value in given.items() if value is not None]
        if extra:
            raise UserError(f"{', '.join(extra)}: cannot be combined with --table3")
        _measure_table3(profile or "paper", seconds, most, again, results, on)
        return
    for option, used in (("--profile", profile is not None), ("--again", again)):
        if used:
            raise UserError(f"{option}: only with --table3")
    chosen = Selection(plan or "table2", results, dataset=dataset, method=method, precision=precision)
    runs = chosen.plan.runs(chosen.rows, chosen.columns)
    if dataset is None:
        runs = [run for run in runs if run.column == runs[0].column]
    counts = parse_numbers("--replicas", "1,5" if replicas is None else replicas, least=1)
    if csv is not None and csv.exists():
        raise UserError(f"--csv: {csv} exists already; name another file")
    if csv is not None and not csv.parent.is_dir():
        raise UserError(f"--csv: the folder {csv.parent} does not exist")
    if csv is not None:
        refuse_unwritable(csv.parent)
    table = Table(*HEADS, title=provenance.device_name(on))
    if compile is Compile.OFF and on.type == "cuda":
        raise UserError("--compile: off is not measured on a GPU, allowed: auto, on")
    compiled = execution(compile, None, on) is Execution.COMPILED
    points = [
        Point(
            with_replicas(chosen.plan, run.row, run.column, count),
            "compiled" if compiled else "replica axis",
        )
        for count in counts
        for run in runs
    ]
    measured = measure_all(points, chosen.plan, on, 5.0 if seconds is None else seconds, most)
    for cost in measured:
        table.add_row(*_line(cost))
    console.print(table)
    if csv is not None:
        costs.write(measured, csv)
        console.print(f"written: {csv}", markup=False)


def _measure_table3(
    profile: str,
    seconds: float | None,
    most: float | None,
    again: bool,
    results: Path,
    device: torch.device,
) -> None:
    """Measure this device unless it has been measured, then rebuild Table 3."""
    if profile not in PROFILES:
        raise UserError(f"--profile: {profile!r} found, allowed: {', '.join(PROFILES)}")
    chosen = Selection(PROFILES[profile].plan, results)
    chosen.refuse_unwritable()
    plan = chosen.plan
    file = costs.file_of(chosen.root, provenance.device_name(device))
    if file.exists() and not again:
        first = costs.read(file)[0]
        rate = f", {first.matmul_gflops:.0f} GFLOP/s" if first.matmul_gflops else ""
        console.print(
            f"measured before: {file} ({first.measured[:10]}{rate}); --again measures anew", markup=False
        )
    else:
        points = list(table3_points(plan))
        spent = PROFILES[profile].seconds if seconds is None else seconds
        refuse_unwritable(file.parent)
        file.parent.mkdir(parents=True, exist_ok=True)
        measured = measure_all(points, plan, device, spent, most)
        costs.write(measured, file)
        console.print(f"written: {file}", markup=False)
    table = table3.build(plan, chosen.store, load_paper_values())
    table3.show(table, console)
    for path in table3.write(table, chosen.root / "tables"):
        console.print(f"written: {path}", markup=False)
