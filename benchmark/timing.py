"""Seconds per epoch beside the machine's own matrix-product rate: `python -m benchmark.timing`."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from rich.table import Table

from benchmark import provenance
from benchmark.datasets import Split
from benchmark.errors import UserError
from benchmark.memory import keep_freed_memory
from benchmark.methods import METHODS
from benchmark.options import (
    RESULTS,
    Datasets,
    DeviceName,
    Methods,
    Selection,
    console,
    parse_numbers,
    pick_device,
    run_app,
)
from benchmark.results import atomic_file
from benchmark.sweep import Plan, Run, State, Status
from benchmark.training import Training

USUAL_SAMPLES = 50_000
"""Taken for a data set that does not declare `train_samples`."""


@dataclass(frozen=True)
class Measurement:
    """One line of the command's output."""

    method: str
    dataset: str
    replicas: int
    seconds_per_epoch: float
    """Of all replicas together: training only, neither evaluation nor feedback pre-training."""
    seconds_per_epoch_and_replica: float
    spread: float
    """Interquartile range of the iterations, scaled to the epoch like `seconds_per_epoch`."""
    iterations: int
    """Timed; their median is scaled to the epoch."""
    gflops: float
    matmul_gflops: float
    matmul_share: float
    device: str


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(action: Callable[[], Any], device: torch.device, budget: float, least: int) -> list[float]:
    """Times of single calls, at least `least` of them and about `budget` seconds in all."""
    times: list[float] = []
    while len(times) < least or sum(times) < budget:
        _synchronise(device)
        start = time.perf_counter()
        action()
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return times


def matmul_rate(device: torch.device, replicas: int, width: int, batch: int) -> float:
    """Multiply-adds per second: the best of a 2048-square product and the network's own batched one."""
    best = 0.0
    for shape in ((1, 2048, 2048, 2048), (replicas, width, width, batch)):
        r, m, k, n = shape
        a, b = torch.randn(r, m, k, device=device), torch.randn(r, k, n, device=device)
        torch.bmm(a, b)
        times = _seconds(lambda a=a, b=b: torch.bmm(a, b), device, 0.3, 5)  # type: ignore[misc]
        best = max(best, r * m * k * n / statistics.median(times))
    return best


def _step_times(run: Run, device: torch.device, seconds: float, least: int) -> list[float]:
    """Times of a run's iterations, on random data of its shape."""
    keep_freed_memory()
    drawn = run.batch_size * 4
    data = Split(
        torch.randn(drawn, run.dims[0], device=device),
        torch.randint(run.dims[-1], (drawn,), device=device),
    )
    training = Training(run.build(device), run.seeds, data, data, batch_size=run.batch_size)
    iterations = itertools.chain.from_iterable(training.iterations() for _ in itertools.count())
    for _ in range(2):
        next(iterations)
    return _seconds(lambda: next(iterations), device, seconds, least)


def measure(run: Run, samples: int, device: torch.device, seconds: float) -> Measurement:
    """Time iterations of a run's method, beside the machine's matrix-product rate.

    At least five iterations and about `seconds` seconds of them; their median is scaled to an epoch
    of `samples` samples.
    """
    replicas = len(run.seeds)
    before = matmul_rate(device, replicas, run.dims[1], run.batch_size)
    times = _step_times(run, device, seconds, 5)
    rate = max(before, matmul_rate(device, replicas, run.dims[1], run.batch_size))
    median = statistics.median(times)
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    epoch = samples / run.batch_size  # the last, partial minibatch at its share
    per_sample = METHODS[run.method].multiply_adds(run.dims, run.options)
    needed = math.nan if per_sample is None else per_sample * run.batch_size * replicas
    return Measurement(
        method=run.row,
        dataset=run.column,
        replicas=replicas,
        seconds_per_epoch=median * epoch,
        seconds_per_epoch_and_replica=median * epoch / replicas,
        spread=(third - first) * epoch,
        iterations=len(times),
        gflops=2e-9 * needed / median,
        matmul_gflops=2e-9 * rate,
        matmul_share=needed / median / rate,
        device=provenance.device_name(device),
    )


def samples_of(plan: Plan, column: str) -> int:
    """Training samples of an epoch, as declared."""
    return plan.datasets[column].train_samples or USUAL_SAMPLES


def seconds_left(statuses: Sequence[Status], plan: Plan, device: torch.device) -> list[float]:
    """Estimated training time a run: from its own pace if it has one, else from two iterations here."""
    paces: dict[str, float] = {}
    left = []
    for found in statuses:
        run = found.run
        if found.state is State.STORED:
            left.append(0.0)
            continue
        pace = found.seconds_per_epoch
        if pace is None:
            samples = samples_of(plan, run.column)
            alike = repr((run.method, run.options, run.dims, len(run.seeds), run.batch_size))
            if alike not in paces:
                paces[alike] = statistics.median(_step_times(run, device, 0.0, 2)) / run.batch_size
            pace = paces[alike] * samples
        left.append(pace * (run.total_epochs - found.epochs_done))
    return left


def write_csv(measurements: Sequence[Measurement], file: Path) -> None:
    """One row a measurement, columns as in `Measurement`."""
    if not file.parent.is_dir():
        raise UserError(f"--csv: the folder {file.parent} does not exist")
    table = pd.DataFrame([asdict(measurement) for measurement in measurements])
    with atomic_file(file) as stream:
        table.to_csv(stream, index=False, float_format="%.6g")


def command(
    method: Methods = None,
    dataset: Datasets = None,
    replicas: Annotated[str, typer.Option(help="Replica counts, such as 1,5,20.")] = "1,5",
    seconds: Annotated[float, typer.Option(help="Time spent on each measurement.")] = 5.0,
    csv: Annotated[Path | None, typer.Option(help="Write one row a measurement here.")] = None,
    device: DeviceName = "auto",
) -> None:
    """Measure training time per epoch, and the share of the machine's matrix-product rate it reaches."""
    chosen = Selection("table2", dataset or ["mnist"], method, None, None, RESULTS)
    counts = parse_numbers("--replicas", replicas, least=1)
    if not 0 <= seconds < float("inf"):
        raise UserError(f"--seconds: {seconds} found, must be 0 or more")
    if csv is not None and not csv.parent.is_dir():
        raise UserError(f"--csv: the folder {csv.parent} does not exist")
    on = pick_device(device)
    names = ("method", "data set", "replicas", "s/epoch", "s/epoch/replica", "GFLOP/s", "share")
    table = Table(*names, title=provenance.device_name(on))
    measurements = []
    for count in counts:
        plan = chosen.plan.with_protocol(list(range(1, count + 1)), None)
        for run in plan.runs(chosen.rows, chosen.columns):
            found = measure(run, samples_of(plan, run.column), on, seconds)
            measurements.append(found)
            table.add_row(
                found.method,
                found.dataset,
                str(count),
                f"{found.seconds_per_epoch:.2f}",
                f"{found.seconds_per_epoch_and_replica:.2f}",
                f"{found.gflops:.0f} of {found.matmul_gflops:.0f}",
                f"{found.matmul_share:.0%}",
            )
    console.print(table)
    if csv is not None:
        write_csv(measurements, csv)
        console.print(f"written: {csv}", markup=False)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)
