"""The stored runs: which cells of the plan they fill, on what they were trained, when, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.report import markdown
from benchmark.report.files import write_texts
from benchmark.store.record import StoredRun
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan

NOTE = (
    "Time: of training alone. Execution: compiled by torch.compile, graphed (CUDA graphs), or eager; not "
    "recorded of the oldest. Where a run was interrupted and went on elsewhere, or was put together "
    "from seeds trained apart, all devices and versions are named, and times are added."
)
COLUMNS = (
    *("run", "data set", "seeds", "epochs", "precision", "device", "execution", "time"),
    *("torch", "commit", "data", "finished", "key"),
)
"""What is said of a run; `data`: the first digits of the SHA-256 checksum of its images."""
SHOWN = ("run", "data set", "seeds", "epochs", "time", "device", "execution", "finished", "key")
"""Of `COLUMNS`, those of the tables for reading."""


@dataclass(frozen=True)
class Runs:
    """All complete runs of a store."""

    plan: Plan
    cells: list[StoredRun]
    """Those behind the plan's cells, data set by data set in the plan's order."""
    others: list[StoredRun]
    """All else in the store: single seeds, other hyperparameters or epochs, other plans' rows."""

    def frame(self) -> pd.DataFrame:
        """One line a run, the plan's first."""
        parts = [(True, run) for run in self.cells] + [(False, run) for run in self.others]
        lines = [{"of the plan": planned, **described(run)} for planned, run in parts]
        return pd.DataFrame(lines, columns=["of the plan", *COLUMNS])


def build(plan: Plan, store: Store) -> Runs:
    """What the store has; `UserError` for a damaged run."""
    left = {run.record["key"]: run for run in store.runs()}
    cells = []
    for planned in plan.runs(list(plan.config.rows), list(plan.config.columns)):
        found = next((key for key in planned.keys if key in left), None)
        if found is not None:
            cells.append(left.pop(found))
    return Runs(plan, cells, sorted(left.values(), key=_order))


def _order(run: StoredRun) -> tuple[str, str, int, list[int]]:
    return run.column, run.record["label"], run.spec["epochs"], run.spec["seeds"]


def described(run: StoredRun) -> dict[str, str]:
    """What a run's record says of its making, by `COLUMNS`; of the oldest `execution` is empty."""
    record, sittings = run.record, run.record["sittings"]
    versions = [sitting["versions"] for sitting in sittings]
    return {
        "run": record["label"],
        "data set": run.column,
        "seeds": spelled(run.spec["seeds"]),
        "epochs": str(run.spec["epochs"]),
        "precision": run.spec["precision"],
        "device": _named(sitting["device"] for sitting in sittings),
        "execution": _named(sitting.get("execution", "") for sitting in sittings),
        "time": str(timedelta(seconds=round(record["training_seconds"]))),
        "torch": _named(version["torch"] for version in versions),
        "commit": _named(_short(version["commit"]) for version in versions),
        "data": record["data"]["checksum"][:12],
        "finished": record["finished"][:16].replace("T", " ") + " UTC",
        "key": record["key"],
    }


def spelled(seeds: Sequence[int]) -> str:
    """`1 to 5`, or one by one."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _named(values: Iterable[str]) -> str:
    """Each once, in order."""
    return "; ".join(dict.fromkeys(value for value in values if value))


def _short(commit: str) -> str:
    digits, changes, _ = commit.partition("+")
    return digits[:10] + ("+changes" if changes else "")


def show(runs: Runs, console: Console) -> None:
    """Print the runs behind the plan's cells, and how many others there are."""
    grid = Grid(title=escape(f"Runs behind {runs.plan.heading}"))
    for column in SHOWN:
        grid.add_column(column, overflow="fold")
    for run in runs.cells:
        grid.add_row(*(escape(value) for value in _shown(run)))
    console.print(grid)
    console.print(NOTE, markup=False)
    console.print(f"{len(runs.others)} other runs in the same store", markup=False)


def _shown(run: StoredRun) -> list[str]:
    values = described(run)
    return [values[column] for column in SHOWN]


def write(runs: Runs, folder: Path) -> list[Path]:
    """The runs as Markdown and, with all columns, as CSV; returns the files."""
    texts = {
        "md": "\n".join(_markdown(runs)) + "\n",
        "csv": runs.frame().to_csv(index=False, lineterminator="\n"),
    }
    return write_texts(folder, runs.plan.file_name("runs"), texts)


def _markdown(runs: Runs) -> Iterator[str]:
    yield from ("# Stored runs", "", NOTE + " Versions and commits: in the CSV file.")
    for heading, found in ((f"Behind {runs.plan.heading}", runs.cells), ("Others", runs.others)):
        yield from ("", f"## {heading}", "")
        if not found:
            yield "None."
            continue
        yield from markdown.table(SHOWN, map(_shown, found))
