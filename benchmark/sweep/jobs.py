"""Commands that train what a plan misses, each by itself: for a batch system, or several at once."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from enum import StrEnum

from benchmark.store.store import Store
from benchmark.sweep.assembly import stored_seeds
from benchmark.sweep.plan import Plan
from benchmark.sweep.status import State, Status, checkpoint


class Jobs(StrEnum):
    """What one command trains."""

    ROWS = "rows"
    """A row on a data set, its seeds side by side: for a GPU."""
    SEEDS = "seeds"
    """One seed of it: for cores of CPUs. Once all are stored, the row's command puts them together."""


def commands(
    statuses: Iterable[Status], plan: Plan, store: Store, each: Jobs, *options: str
) -> Iterator[str]:
    """Of every run that is not stored, with `options` of one's own; damaged runs have none.

    A row that is under way goes on as it was begun, and one that lacks a single seed is completed by its own
    command.
    """
    given = f" {shlex.join(options)}" if options else ""
    for found in statuses:
        if found.state in (State.STORED, State.DAMAGED):
            continue
        run, stored = found.run, stored_seeds(found.run, store)
        left = [seed for seed in run.seeds if seed not in stored]
        apart = each is Jobs.SEEDS and len(left) > 1 and checkpoint(run, store) is None
        for part in [plan.with_protocol([seed], None) for seed in left] if apart else [plan]:
            yield part.run_command(run.row, run.column) + given
