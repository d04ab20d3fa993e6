"""Train what a plan misses within a time limit, several rows at once, each in a process of its own.

One row leaves a GPU mostly idle, since the networks are small. Each job is a command of this project: it
trains from its checkpoint into the store, and a job that is stopped loses no stored run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.store.record import slug
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
from benchmark.sweep.status import State, Status

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0
"""Time that a stopped job has to end by itself."""


@dataclass
class Job:
    """Commands that train one row on one data set, one after the other."""

    name: str
    commands: list[list[str]]
    """Arguments of `python -m benchmark`."""
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the next command; its output goes to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "benchmark", *self.commands.pop(0)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def last_line(self) -> str:
        """The last line of the log."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def jobs(
    statuses: Iterable[Status], plan: Plan, logs: Path, options: Sequence[str], *, search: bool
) -> list[Job]:
    """One job for each run that is not stored, the most expensive first.

    With `search`, a row whose hyperparameters are a guess is searched first; the winner goes into the plan.
    """
    waiting = [found.run for found in statuses if found.state not in (State.STORED, State.DAMAGED)]
    made = []
    for run in sorted(waiting, key=_cost, reverse=True):
        where = ["--method", run.row, "--dataset", run.column, *options]
        commands = [["run", plan.source, *where]]
        if search and _is_guess(plan, run):
            commands.insert(0, ["search", "--plan", plan.source, "--apply", *where])
        made.append(Job(f"{run.row} on {run.column}", commands, logs / f"{run.column}-{slug(run.row)}.log"))
    return made


def _cost(run: Run) -> float:
    """Multiply-adds of the whole run; the number of samples is much the same for all data sets."""
    return run.multiply_adds(1) or 0.0


def _is_guess(plan: Plan, run: Run) -> bool:
    given = plan.config.hyperparameters(run.row, run.column)
    return (
        given is not None
        and given.source == "guess"
        and run.column in plan.config.rows[run.row].hyperparameters
    )


def conduct(
    waiting: Sequence[Job], workers: int, deadline: float, report: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Run the jobs, `workers` at a time, until all have ended or `deadline` (`time.monotonic`) has come.

    Returns the names of the jobs that failed and of those that did not end.
    """
    queue, running, failed = list(waiting), list[Job](), list[str]()
    try:
        while (queue or running) and time.monotonic() < deadline:
            while queue and len(running) < workers:
                job = queue.pop(0)
                job.start()
                running.append(job)
                report(f"{job.name}: started")
            for job in list(running):
                assert job.process is not None
                if (status := job.process.poll()) is None:
                    continue
                if status == 0 and job.commands:
                    job.start()
                    continue
                running.remove(job)
                if status:
                    failed.append(job.name)
                report(f"{job.name}: {'failed' if status else 'done'}: {job.last_line}")
            time.sleep(POLL_SECONDS)
    finally:
        _stop(running)
    return failed, [job.name for job in [*running, *queue]]


def _stop(running: Sequence[Job]) -> None:
    """End the processes: first as a batch system does, then for good."""
    processes = [job.process for job in running if job.process is not None]
    for process in processes:
        process.terminate()
    limit = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
