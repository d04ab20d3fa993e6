"""What training costs here, beside what the machine could do: `python -m benchmark.timing`."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Sequence

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
from benchmark.methods import METHODS, Method
from benchmark.methods.dtp import DTP
from benchmark.methods.fw_dtp import FWDTP
from benchmark.studies.timing import costs, peak
from benchmark.studies.timing.baseline import Baseline
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.points import Point
from benchmark.studies.timing.roofline import bandwidth, block_times, matmul_rate, product_bytes
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
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
        assert isinstance(learner, DTP | FWDTP)
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
    if run.execution(Compile.AUTO, samples, device) is Execution.COMPILED:
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


def measure_all(
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
