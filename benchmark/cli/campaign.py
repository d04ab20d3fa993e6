"""`campaign`: train as much of a plan as fits into a time limit, several rows at once."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from benchmark.cli.options import DataRoot, Datasets, DeviceName, Methods, PlanName, Results
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console


def command(
    name: PlanName,
    minutes: Annotated[float, typer.Option(min=0, help="Stop this many minutes after the start.")],
    jobs: Annotated[int, typer.Option(min=1, help="Number of rows that train at the same time.")] = 4,
    search: Annotated[
        bool, typer.Option("--search", help="Search hyperparameters first where the plan has a guess.")
    ] = False,
    dataset: Datasets = None,
    method: Methods = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Train what is missing within a time limit, the most expensive rows first.

    Every row is a process of its own, with a log in RESULTS/logs. At the end only complete runs and
    checkpoints are left; the same command resumes them.
    """
    from benchmark.launch import campaign
    from benchmark.sweep.selection import Selection

    started = time.monotonic()
    chosen = Selection(name, results, dataset=dataset, method=method, data_root=data_root)
    options = ["--results", str(results), "--device", device]
    options += [] if data_root is None else ["--data-root", str(data_root)]
    made = campaign.jobs(chosen.statuses(), chosen.plan, chosen.root / "logs", options, search=search)
    console.print(f"{len(made)} rows to train, {jobs} at a time, {minutes:g} minutes", markup=False)
    failed, left = campaign.conduct(
        made, jobs, started + 60 * minutes, lambda line: console.print(line, markup=False)
    )
    console.print(
        f"{len(made) - len(failed) - len(left)} done, {len(failed)} failed, {len(left)} left", markup=False
    )
    if failed:
        raise UserError(*(f"{job} failed; its log is in {chosen.root / 'logs'}" for job in failed))
