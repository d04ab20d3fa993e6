"""The stored runs behind a report on a measurement (see `benchmark/measurements.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from benchmark.common.errors import UserError
from benchmark.store.record import check_same_images
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan


@dataclass(frozen=True)
class Measured:
    """One measurement of the rows of a plan that take it, on one data set."""

    plan: Plan
    name: str
    column: str
    tables: dict[str, pd.DataFrame]
    """By row, of the stored runs: `epoch`, `seed` and the measurement's columns."""
    missing: dict[str, str]
    """By row, of the others: the command that trains it."""

    @property
    def rows(self) -> list[str]:
        """All of them, in the plan's order."""
        return self.plan.config.measure[self.name].rows

    @property
    def heading(self) -> str:
        """Data set and protocol."""
        return f"{self.plan.datasets[self.column].title}, {self.plan.protocol}"

    def remarks(self) -> Iterator[str]:
        """What is missing and what would fill it, one line a row."""
        for row, command in self.missing.items():
            yield f"Missing: {row} on {self.plan.datasets[self.column].title}; filled by `{command}`"


def read(plan: Plan, store: Store, name: str) -> Measured:
    """What the store has of a measurement.

    `UserError` where the plan does not take it, a run is damaged, or runs saw different data.
    """
    where = plan.config.measure.get(name)
    if where is None:
        taken = ", ".join(plan.config.measure) or "none"
        raise UserError(f"{plan.source}: measure: {name} expected, found: {taken}")
    (column,) = where.columns
    tables, missing, found = {}, {}, []
    for row in where.rows:
        run = plan.run(row, column)
        if run is None:
            raise UserError(f"{plan.source}: measure.{name}: {row} has no hyperparameters for {column}")
        stored = store.load(run.key)
        if stored is None:
            missing[row] = plan.run_command(row, column)
        else:
            tables[row] = stored.measured[name]
            found.append(stored)
    check_same_images(found)
    return Measured(plan, name, column, tables, missing)
