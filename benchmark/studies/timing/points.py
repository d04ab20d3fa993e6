"""What the timing command measures for Table 3 and for the scaling figure."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmark.common.errors import UserError
from benchmark.methods import METHODS
from benchmark.studies.timing.costs import Implementation, Kind
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run

ROWS = ("FW-DTP", "DTP", "DRL", "L-DRL", "BP")
"""Of Table 3, whose ratios are to the first."""
BASELINE_ROWS = ("FW-DTP", "DTP")
"""Those that `baseline.py` implements, too."""
REPLICAS = 5
"""Of the study, where it varies something else."""
AXES: dict[str, tuple[int, ...]] = {
    "replicas": (1, 5, 20, 100),
    "width": (64, 128, 256, 512),
    "hidden_layers": (2, 4, 6, 8),
    "feedback_updates": (1, 2, 5, 10),
}
"""What the study varies, one at a time from the plan's own network and options."""


@dataclass(frozen=True)
class Profile:
    """Where Table 3 and the study take their networks from."""

    plan: str
    table3: str
    """The column whose cost Table 3 shows."""
    study: str
    """The column from whose network the study starts."""
    amortised: tuple[int, ...]
    """Replicas of Table 3 beside one alone."""
    seconds: dict[Kind, float]
    """Spent on each measurement, if the command says nothing else."""


PROFILES = {
    "paper": Profile("table2", "cifar-10", "mnist", (5, 100), {"table3": 5.0, "study": 2.0}),
    "quick": Profile(
        "quick", "fashion-mnist-mini", "fashion-mnist-mini", (5, 20), {"table3": 0.2, "study": 0.1}
    ),
}


def profile_of(plan: Plan) -> tuple[str, Profile]:
    """The profile, and its name, that measures the networks of a plan."""
    for name, profile in PROFILES.items():
        if profile.plan == plan.source:
            return name, profile
    allowed = ", ".join(profile.plan for profile in PROFILES.values())
    raise UserError(f"the plan {plan.source} has no measured costs, allowed: {allowed}")


def command(plan: Plan, kind: Kind) -> str:
    """What measures the costs of a plan's networks."""
    name, _ = profile_of(plan)
    words = [f"--{kind}", *([] if name == "paper" else ["--profile", name]), *plan.options]
    return "python -m benchmark.timing " + shlex.join(words)


@dataclass(frozen=True)
class Point:
    """One thing to measure."""

    run: Run
    implementation: Implementation = "replica axis"


def with_replicas(plan: Plan, row: str, column: str, replicas: int) -> Run:
    """A cell's run with other seeds; `UserError` where the plan has no such cell."""
    run = plan.with_protocol(list(range(1, replicas + 1)), None).run(row, column)
    if run is None:
        raise UserError(f"the plan {plan.source} has nothing for {row} on {column}")
    return run


def table3_points(plan: Plan) -> Iterator[Point]:
    """Table 3's methods, alone and with other replicas beside them."""
    _, profile = profile_of(plan)
    for row, replicas in itertools.product(ROWS, (1, *profile.amortised)):
        yield Point(with_replicas(plan, row, profile.table3, replicas))


def study_points(plan: Plan) -> Iterator[Point]:
    """Every point of the scaling figure once, and the eager baselines."""
    _, profile = profile_of(plan)
    seen: list[Point] = []
    for row in ROWS:
        for point in _points_of(plan, row, profile.study):
            if point not in seen:
                seen.append(point)
                yield point


def _points_of(plan: Plan, row: str, column: str) -> Iterator[Point]:
    if row in BASELINE_ROWS:
        alone = with_replicas(plan, row, column, 1)
        yield Point(alone, "eager")
        yield Point(alone, "eager as released")
    base = with_replicas(plan, row, column, REPLICAS)
    yield Point(base)
    yield Point(base, "compiled")
    for replicas in AXES["replicas"]:
        yield Point(with_replicas(plan, row, column, replicas))
    inputs, *hidden, classes = base.dims
    for width in AXES["width"]:
        yield Point(replace(base, dims=[inputs, *[width] * len(hidden), classes]))
    for layers in AXES["hidden_layers"]:
        yield Point(replace(base, dims=[inputs, *[hidden[0]] * layers, classes]))
    for updates in AXES["feedback_updates"] if METHODS[base.method].learns_feedback else ():
        yield Point(replace(base, options={**base.options, "feedback_updates": updates}))
