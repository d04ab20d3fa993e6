"""What training costs here, beside what the machine could do: `python -m benchmark.timing`."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import psutil
import torch
import typer
from rich.table import Table

from benchmark.cli.options import (
    RESULTS,
    CompileSetting,
    Datasets,
    DeviceName,
    Methods,
    PlanOption,
    PrecisionSetting,
    Results,
    Selection,
    console,
    given_path,
    parse_numbers,
    pick_device,
    run_app,
)
from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.files import refuse_unwritable
from benchmark.config import load_paper_values
from benchmark.engine.compilation import Compile, Execution, execution
from benchmark.engine.cores import Cores
from benchmark.engine.memory import (
    USABLE,
    bytes_per_replica,
    free_memory,
    keep_freed_memory,
    ran_out,
    replicas_per_pass,
)
from benchmark.engine.precision import Precision, computing
from benchmark.engine.samples import Split
from benchmark.engine.training import Training
from benchmark.methods import METHODS, Method, build
from benchmark.methods.dtp import DTP
from benchmark.report import scaling, table3
from benchmark.studies.timing import costs, peak
from benchmark.studies.timing.baseline import Baseline
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.points import PROFILES, Point, study_points, table3_points, with_replicas
from benchmark.studies.timing.roofline import bandwidth, block_times, matmul_rate, product_bytes
from benchmark.sweep.plan import Plan, Run
from benchmark.sweep.status import State, Status

USUAL_SAMPLES = 50_000
"""Taken for a data set that does not declare `train_samples`."""


MINIBATCHES = 64
"""Of the random data: so many that what happens once an epoch counts for little."""
APART = 16
"""Iterations at a time of replicas that train apart; a divisor of `MINIBATCHES`."""


def _random_data(run: Run, device: torch.device) -> Split:
    drawn = run.batch_size * MINIBATCHES
    return Split(
        torch.randn(drawn, run.dims[0], device=device),
        torch.randint(run.dims[-1], (drawn,), device=device),
    )


def _training(point: Point, data: Split) -> Training:
    """A training of the point's method on `data`.

    All replicas start alike, since drawing initial weights takes longer than timing them, but each has its
    own minibatches and noise.
    """
    run, device = point.run, data.x.device
    keep_freed_memory()
    alike = [run.seeds[0]] * len(run.seeds)
    learner: Method = build(
        METHODS[run.method], run.dims, alike, run.hyperparameters, run.options, device=device
    )
    if point.implementation in costs.BASELINES:
        assert isinstance(learner, DTP)
        learner = Baseline(learner, identities=point.implementation == "eager as released")
    compile = {"replica axis": Compile.AUTO, "compiled": Compile.ON}.get(point.implementation, Compile.OFF)
    how = execution(compile, None, device)
    return Training(learner, run.seeds, data, data, batch_size=run.batch_size, execution=how)


def _iteration_times(point: Point, data: Split, seconds: float, longest: int) -> tuple[list[float], int]:
    """Seconds an iteration, block by block, and the iterations of a block: see `block_times`."""
    training = _training(point, data)
    # Replicas on cores of their own wait for each other at the end of a call, as they do at that of an epoch.
    many = 1 if len(training.lanes) == 1 else APART
    iterations = itertools.chain.from_iterable(training.iterations(many) for _ in itertools.count())
    times, calls = block_times(lambda: next(iterations), data.x.device, seconds, max(1, longest // many))
    return [time / many for time in times], calls * many


def measure(
    point: Point, samples: int, device: torch.device, seconds: float, *, began: str, most: float | None = None
) -> Cost:
    """Time blocks of iterations, beside the machine's rates; their median is scaled to an epoch of `samples`.

    About `seconds` seconds, and three blocks in any case. Skipped where more than `most` bytes of memory
    are expected, or found, to be needed.
    """
    run, replicas = point.run, len(point.run.seeds)
    cost = Cost.of(run, point.implementation, samples=samples, device=device, began=began)
    expected = replicas * bytes_per_replica(METHODS[run.method], run.dims, run.batch_size, device)
    if most is not None and expected > most:
        reason = f"needs about {expected / 2**30:.1f} GiB, {most / 2**30:.1f} GiB allowed"
        return cost.model_copy(update={"skipped": reason})
    shape = (device, replicas, run.dims[1], run.batch_size)
    epoch = samples / run.batch_size  # the last, partial minibatch at its share
    try:
        with computing(run.precision, device):
            rate, copied = matmul_rate(*shape), bandwidth(*shape)
            data = _random_data(run, device)
            with peak.watched(device) as memory:
                times, calls = _iteration_times(point, data, seconds, max(1, int(epoch)))
            rate, copied = max(rate, matmul_rate(*shape)), max(copied, bandwidth(*shape))
    except Exception as error:
        if not ran_out(error):
            raise
        return cost.model_copy(update={"skipped": "the device ran out of memory"})
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return cost.model_copy(
        update={
            "blocks": len(times),
            "iterations": calls,
            "seconds_per_epoch": statistics.median(times) * epoch,
            "std": statistics.stdev(times) * epoch,
            "spread": (third - first) * epoch,
            "matmul_gflops": 2e-9 * rate,
            "bandwidth_gbs": 1e-9 * copied,
            "gbytes": 1e-9 * product_bytes(run) * replicas,
            "peak_gib": memory.gib,
        }
    )


def samples_of(plan: Plan, column: str) -> int:
    """Training samples of an epoch, as declared."""
    return plan.datasets[column].train_samples or USUAL_SAMPLES


def seconds_left(
    statuses: Sequence[Status], plan: Plan, device: torch.device, show: Callable[[Run], None]
) -> list[float]:
    """Estimated training time a run: from its own pace if it has one, else from a few iterations here.

    `show` is told of each run before it is timed, which can take a minute.
    """
    paces: dict[str, float] = {}
    left = []
    for found in statuses:
        run = found.run
        if found.state is State.STORED or found.epochs_done == run.total_epochs:
            left.append(0.0)
            continue
        pace = found.seconds_per_epoch
        if pace is None:
            samples = samples_of(plan, run.column)
            alike = repr((run.method, run.options, run.dims, len(run.seeds), run.batch_size))
            if alike not in paces:
                show(run)
                paces[alike] = _seconds_per_sample(run, samples, device)
            pace = paces[alike] * samples
        left.append(pace * (run.total_epochs - found.epochs_done))
    return left


def _seconds_per_sample(run: Run, samples: int, device: torch.device) -> float:
    """Of all replicas of `run` together, from a few iterations of the first that would train at once."""
    size = replicas_per_pass(METHODS[run.method], run.dims, run.batch_size, device)
    cores = None
    if execution(Compile.AUTO, run.multiply_adds(samples), device) is Execution.COMPILED:
        size, cores = 1, Cores(len(run.seeds))  # which train apart, each with its share of the threads
    first = run.passes(size)[0]
    before = torch.get_num_threads()
    try:
        if cores is not None:
            torch.set_num_threads(cores.threads)
        with computing(run.precision, device):
            times, _ = _iteration_times(Point(first), _random_data(run, device), 0.0, 1)
    finally:
        torch.set_num_threads(before)
    at_once = len(first.seeds) if cores is None else cores.workers
    return statistics.median(times) / run.batch_size * len(run.seeds) / at_once


def note_busy_cores() -> None:
    """Tell who times something that other processes want the cores, too."""
    shares = psutil.cpu_percent(interval=0.5, percpu=True)
    cores = os.sched_getaffinity(0)
    if max(cores) >= len(shares):  # some are offline, or a container numbers them anew
        cores = set(range(len(shares)))
    busy = sum(shares[core] for core in cores) / 100
    if busy > len(cores) - torch.get_num_threads() + 0.3:
        console.print(
            f"other processes keep {busy:.1f} of {len(cores)} cores busy: times may come out too long",
            markup=False,
        )


def _measure_all(
    points: Sequence[Point], plan: Plan, device: torch.device, seconds: float, most: float | None
) -> list[Cost]:
    """Measure point after point, in one run, and print a line for each."""
    console.print(f"{len(points)} measurements on {provenance.device_name(device)}", markup=False)
    note_busy_cores()
    began, measured = provenance.now(), []
    for point in points[:1]:  # what the first training of a process takes once and for all, counts nowhere
        measure(point, samples_of(plan, point.run.column), device, 0.0, began=began, most=most)
    for point in points:
        cost = measure(point, samples_of(plan, point.run.column), device, seconds, began=began, most=most)
        what = f"{cost.method}, {cost.implementation}, {cost.hidden_layers} x {cost.width}"
        many = f"{cost.feedback_updates} feedback updates, {cost.replicas} replicas"
        found = f"skipped, {cost.skipped}" if cost.skipped else f"{cost.seconds_per_epoch:.2f} s per epoch"
        console.print(f"  {what}, {many}: {found}", markup=False)
        measured.append(cost)
    return measured


def _line(cost: Cost) -> tuple[str, ...]:
    """A measurement as the terminal shows it."""
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
        shown(cost.bound_share, ".0%"),
        shown(cost.peak_gib, ".2f"),
    )


HEADS = (
    *("method", "implementation", "data set", "network", "updates", "replicas"),
    *("s/epoch", "s/epoch/replica", "GFLOP/s", "share", "of bound", "GiB"),
)


def command(
    method: Methods = None,
    dataset: Datasets = None,
    plan: PlanOption = None,
    replicas: Annotated[
        str | None, typer.Option(help="Replica counts, such as 1,5,20 (default: 1,5).")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time spent on each measurement (default: 5, or as the profile says)."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(parser=given_path, metavar="FILE", help="Write one row a measurement here.")
    ] = None,
    compile: CompileSetting = Compile.AUTO,
    precision: PrecisionSetting = None,
    with_table3: Annotated[
        bool, typer.Option("--table3", help="Measure what Table 3 needs on this device, and rebuild it.")
    ] = False,
    with_study: Annotated[
        bool, typer.Option("--study", help="Cost against replicas, width, depth and feedback updates.")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="Of --table3 and --study: paper or quick (default: paper).")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what --table3 or --study has for this device.")
    ] = False,
    memory: Annotated[
        float | None, typer.Option(help="GiB that a measurement may take (default: 70 % of what is free).")
    ] = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Measure training time per epoch, and the share of the machine's matrix-product rate it reaches.

    Without --dataset on the first one that the rows have values for.
    """
    if seconds is not None and not 0 <= seconds < float("inf"):
        raise UserError(f"--seconds: {seconds} found, must be 0 or more")
    if memory is not None and not 0 < memory < float("inf"):
        raise UserError(f"--memory: {memory} found, must be more than 0")
    on = pick_device(device, precision or Precision.HIGHEST)
    most = USABLE * free_memory(on) if memory is None else 2**30 * memory
    if with_table3 or with_study:
        if with_table3 and with_study:
            raise UserError("--table3, --study: one at a time")
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
            raise UserError(f"{', '.join(extra)}: not with --table3 or --study, which say what they measure")
        kind: costs.Kind = "study" if with_study else "table3"
        _measure_and_report(kind, profile or "paper", seconds, most, again, results, on)
        return
    for option, used in (("--profile", profile is not None), ("--again", again)):
        if used:
            raise UserError(f"{option}: only with --table3 or --study")
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
    measured = _measure_all(points, chosen.plan, on, 5.0 if seconds is None else seconds, most)
    for cost in measured:
        table.add_row(*_line(cost))
    console.print(table)
    if csv is not None:
        costs.write(measured, csv)
        console.print(f"written: {csv}", markup=False)


def _measure_and_report(
    kind: costs.Kind,
    profile: str,
    seconds: float | None,
    most: float | None,
    again: bool,
    results: Path,
    device: torch.device,
) -> None:
    """Measure what is not yet there for this device, then rebuild the table or figure."""
    if profile not in PROFILES:
        raise UserError(f"--profile: {profile!r} found, allowed: {', '.join(PROFILES)}")
    chosen = Selection(PROFILES[profile].plan, results)
    chosen.refuse_unwritable()
    plan = chosen.plan
    file = costs.file_of(chosen.root, kind, provenance.device_name(device))
    if file.exists() and not again:
        first = costs.read(file)[0]
        rate = f", {first.matmul_gflops:.0f} GFLOP/s" if first.matmul_gflops else ""
        console.print(
            f"measured before: {file} ({first.measured[:10]}{rate}); --again measures anew", markup=False
        )
    else:
        points = list(table3_points(plan) if kind == "table3" else study_points(plan))
        spent = PROFILES[profile].seconds[kind] if seconds is None else seconds
        refuse_unwritable(file.parent)
        file.parent.mkdir(parents=True, exist_ok=True)
        measured = _measure_all(points, plan, device, spent, most)
        costs.write(measured, file)
        console.print(f"written: {file}", markup=False)
    if kind == "table3":
        table = table3.build(plan, chosen.store, load_paper_values())
        written = table3.write(table, chosen.root / "tables")
        table3.show(table, console)
    else:
        figure = scaling.build(plan, chosen.store)
        written = scaling.write(figure, chosen.figures)
        scaling.show(figure, console)
    for path in written:
        console.print(f"written: {path}", markup=False)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)
