"""The commands that train what is missing of a plan, a row or a seed each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from enum import StrEnum

from benchmark.store.store import Store
from benchmark.sweep.plan import Plan
from benchmark.sweep.status import State, Status, checkpoint, stored_seeds


class Jobs(StrEnum):
    """How much one command trains."""

    ROWS = "rows"
    """One row on one data set, all seeds side by side: for a GPU."""
    SEEDS = "seeds"
    """One seed: for the cores of a CPU. When all seeds are stored, the command of the row assembles them."""


def commands(
    statuses: Iterable[Status], plan: Plan, store: Store, each: Jobs, *options: str
) -> Iterator[str]:
    """The commands that train the missing runs; `options` are added to each. Damaged runs have none.

    A run with a checkpoint, or with a single seed missing, gets one command for the whole row.
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
