"""The measurements that Table 3 needs."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.common.errors import UserError
from benchmark.studies.timing.costs import Implementation
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run

ROWS = ("FW-DTP", "DTP", "DRL", "L-DRL", "BP")
"""The rows of Table 3. Ratios are to the first."""


@dataclass(frozen=True)
class Profile:
    """The networks that Table 3 measures."""

    plan: str
    column: str
    """The data set whose network is measured."""
    amortised: tuple[int, ...]
    """Replica counts to measure beside a single replica."""
    seconds: float
    """Default time for each measurement."""


PROFILES = {
    "paper": Profile("table2", "cifar-10", (5, 100), 5.0),
    "quick": Profile("quick", "fashion-mnist-mini", (5, 20), 0.2),
}


def profile_of(plan: Plan) -> tuple[str, Profile]:
    """Find the profile, with its name, that measures the networks of a plan."""
    for name, profile in PROFILES.items():
        if profile.plan == plan.source:
            return name, profile
    allowed = ", ".join(profile.plan for profile in PROFILES.values())
    raise UserError(f"the plan {plan.source} has no measured costs, allowed: {allowed}")


def command(plan: Plan) -> str:
    """Write the shell command that measures Table 3 for a plan."""
    name, _ = profile_of(plan)
    words = ["--table3", *([] if name == "paper" else ["--profile", name]), *plan.options]
    return "python -m benchmark.timing " + shlex.join(words)


@dataclass(frozen=True)
class Point:
    """One measurement: a run with its replicas, and how it is executed."""

    run: Run
    implementation: Implementation = "replica axis"


def with_replicas(plan: Plan, row: str, column: str, replicas: int) -> Run:
    """Give a cell's run as many seeds as replicas. `UserError` if the plan has no such cell."""
    run = plan.with_protocol(list(range(1, replicas + 1)), None).run(row, column)
    if run is None:
        raise UserError(f"the plan {plan.source} has nothing for {row} on {column}")
    return run


def table3_points(plan: Plan) -> Iterator[Point]:
    """List Table 3's methods, each with every replica count."""
    _, profile = profile_of(plan)
    for row, replicas in itertools.product(ROWS, (1, *profile.amortised)):
        yield Point(with_replicas(plan, row, profile.column, replicas))
