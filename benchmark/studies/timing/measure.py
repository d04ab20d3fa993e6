"""Measure training time, and the share of the machine's matrix-product rate that it reaches."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import psutil
import torch

from benchmark.common import provenance
from benchmark.common.progress import console
from benchmark.engine.build import build
from benchmark.engine.execution import computing, execution
from benchmark.engine.lanes import Cores
from benchmark.engine.memory import (
    bytes_per_replica,
    keep_freed_memory,
    ran_out,
    replicas_per_pass,
)
from benchmark.engine.samples import Split
from benchmark.engine.settings import Compile, Execution
from benchmark.engine.training import Training
from benchmark.methods import METHODS
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.points import Point
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
from benchmark.sweep.status import State, Status

USUAL_SAMPLES = 50_000
"""Training samples assumed for a data set that does not declare `train_samples`."""

MINIBATCHES = 64
"""Minibatches of random data: enough that work done once an epoch hardly counts."""

APART = 16
"""Iterations at a time if each replica trains on its own core; a divisor of `MINIBATCHES`."""

WARM_UP = 3
"""Calls before the first block. With CUDA graphs one runs eagerly and one is recorded."""
LEAST = 3
"""Minimum number of blocks."""
PLANNED = 10
"""Planned number of blocks in the given time."""


def block_times(
    action: Callable[[], Any], device: torch.device, seconds: float, longest: int = 1000
) -> tuple[list[float], int]:
    """Time blocks of consecutive calls. Returns the seconds a call of each block, and the calls in a block.

    The device is synchronised before and after each block. A block has at most `longest` calls, and as many
    as `PLANNED` blocks need to fill `seconds`. `WARM_UP` calls come first; the last of them sets the pace.
    """

    def block(calls: int) -> float:
        _synchronise(device)
        start = time.perf_counter()
        for _ in range(calls):
            action()
        _synchronise(device)
        return (time.perf_counter() - start) / calls

    pace = [block(1) for _ in range(WARM_UP)][-1]
    calls = max(1, min(longest, int(seconds / PLANNED / pace)))
    times: list[float] = []
    while len(times) < LEAST or calls * sum(times) < seconds:
        times.append(block(calls))
    return times, calls


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, replicas: int, width: int, batch: int) -> float:
    """Measure multiply-adds per second: the faster of a 2048-square product and the network's batched one."""
    return max(_square_rate(device), _product_rate(device, replicas, width, width, batch, 0.15))


@cache
def _square_rate(device: torch.device) -> float:
    return _product_rate(device, 1, 2048, 2048, 2048, 0.5)


def _product_rate(device: torch.device, r: int, m: int, k: int, n: int, seconds: float) -> float:
    a, b = torch.randn(r, m, k, device=device), torch.randn(r, k, n, device=device)
    times, _ = block_times(lambda: torch.bmm(a, b), device, seconds)
    return r * m * k * n / statistics.median(times)


def _random_data(run: Run, device: torch.device) -> Split:
    drawn = run.batch_size * MINIBATCHES
    return Split(
        torch.randn(drawn, run.dims[0], device=device),
        torch.randint(run.dims[-1], (drawn,), device=device),
    )


def _training(point: Point, data: Split) -> Training:
    """Build a training of the point's method on `data`.

    All replicas have the same initial weights, because drawing weights takes longer than timing. Each has
    its own minibatches and noise.
    """
    run, device = point.run, data.x.device
    keep_freed_memory()
    alike = [run.seeds[0]] * len(run.seeds)
    learner = build(METHODS[run.method], run.dims, alike, run.hyperparameters, run.options, device=device)
    how = execution(Compile.ON if point.implementation == "compiled" else Compile.AUTO, None, device)
    return Training(learner, run.seeds, data, data, batch_size=run.batch_size, execution=how)


def _iteration_times(point: Point, data: Split, seconds: float, longest: int) -> tuple[list[float], int]:
    """Time blocks of iterations. Returns the seconds an iteration, and the iterations in a block."""
    training = _training(point, data)
    # Replicas on separate cores wait for each other after a call, as they do after an epoch.
    many = 1 if len(training.lanes) == 1 else APART
    iterations = itertools.chain.from_iterable(training.iterations(many) for _ in itertools.count())
    times, calls = block_times(lambda: next(iterations), data.x.device, seconds, max(1, longest // many))
    return [time / many for time in times], calls * many


def measure(
    point: Point, samples: int, device: torch.device, seconds: float, *, began: str, most: float | None = None
) -> Cost:
    """Time iterations for about `seconds`, and scale their median to an epoch of `samples`.

    The measurement is skipped if it needs more than `most` bytes of memory, or if memory runs out.
    """
    run, replicas = point.run, len(point.run.seeds)
    cost = Cost.of(run, point.implementation, samples=samples, device=device, began=began)
    expected = replicas * bytes_per_replica(METHODS[run.method], run.dims, run.batch_size, device)
    if most is not None and expected > most:
        reason = f"needs about {expected / 2**30:.1f} GiB, {most / 2**30:.1f} GiB allowed"
        return cost.model_copy(update={"skipped": reason})
    shape = (device, replicas, run.dims[1], run.batch_size)
    epoch = samples / run.batch_size  # a partial minibatch counts by its size
    try:
        with computing(run.precision, device):
            rate = matmul_rate(*shape)
            data = _random_data(run, device)
            times, calls = _iteration_times(point, data, seconds, max(1, int(epoch)))
            rate = max(rate, matmul_rate(*shape))
    except Exception as error:
        if not ran_out(error):
            raise
        return cost.model_copy(update={"skipped": "the device ran out of memory"})
    return cost.model_copy(
        update={
            "blocks": len(times),
            "iterations": calls,
            "seconds_per_epoch": statistics.median(times) * epoch,
            "std": statistics.stdev(times) * epoch,
            "matmul_gflops": 2e-9 * rate,
        }
    )


def samples_of(plan: Plan, column: str) -> int:
    """Number of training samples of an epoch, as declared."""
    return plan.datasets[column].train_samples or USUAL_SAMPLES


def seconds_left(
    statuses: Sequence[Status], plan: Plan, device: torch.device, show: Callable[[Run], None]
) -> list[float]:
    """Estimate the remaining training time of each run: from its own pace, or from a few iterations here.

    `show` is called before a run is timed, which can take a minute.
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
    """Time a few iterations of the replicas that would train at once, and scale to all replicas of `run`."""
    size = replicas_per_pass(METHODS[run.method], run.dims, run.batch_size, device)
    cores = None
    if run.execution(Compile.AUTO, samples, device) is Execution.COMPILED:
        size, cores = 1, Cores(len(run.seeds))  # one replica a core
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
    """Print a line if other processes keep the cores busy."""
    shares = psutil.cpu_percent(interval=0.5, percpu=True)
    cores = os.sched_getaffinity(0)
    if max(cores) >= len(shares):  # some cores are offline, or a container renumbers them
        cores = set(range(len(shares)))
    busy = sum(shares[core] for core in cores) / 100
    if busy > len(cores) - torch.get_num_threads() + 0.3:
        console.print(
            f"other processes keep {busy:.1f} of {len(cores)} cores busy: times may come out too long",
            markup=False,
        )


def measure_all(
    points: Sequence[Point], plan: Plan, device: torch.device, seconds: float, most: float | None
) -> list[Cost]:
    """Measure each point, and print a line for it."""
    console.print(f"{len(points)} measurements on {provenance.device_name(device)}", markup=False)
    note_busy_cores()
    began, measured = provenance.now(), []
    for point in points[:1]:  # a first, uncounted measurement absorbs one-off costs
        measure(point, samples_of(plan, point.run.column), device, 0.0, began=began, most=most)
    for point in points:
        cost = measure(point, samples_of(plan, point.run.column), device, seconds, began=began, most=most)
        what = f"{cost.method}, {cost.implementation}, {cost.hidden_layers} x {cost.width}"
        many = f"{cost.feedback_updates} feedback updates, {cost.replicas} replicas"
        found = f"skipped, {cost.skipped}" if cost.skipped else f"{cost.seconds_per_epoch:.2f} s per epoch"
        console.print(f"  {what}, {many}: {found}", markup=False)
        measured.append(cost)
    return measured
