"""The part of a plan that a command works on."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path

from benchmark.common.errors import UserError
from benchmark.common.files import FIGURES, RESULTS, refuse_unwritable
from benchmark.config import CONFIGS, MOST, MOST_EPOCHS, load_datasets, load_plan, plan_file
from benchmark.engine.settings import Precision
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan
from benchmark.sweep.status import Status, status


class Selection:
    """The rows and data sets of a plan that a command works on, and where their results are."""

    def __init__(
        self,
        plan: str,
        results: Path,
        *,
        dataset: list[str] | None = None,
        method: list[str] | None = None,
        seeds: str | None = None,
        epochs: int | None = None,
        data_root: Path | None = None,
        precision: Precision | None = None,
        empty_cells: bool = False,
        reading: bool = False,
    ) -> None:
        """Read the options of a command.

        `empty_cells` allows rows and data sets without hyperparameters. `reading` says that the command only
        reads the store, so that `--results` must exist.
        """
        check_number("--epochs", epochs, most=MOST_EPOCHS)
        file = plan_file(plan)
        shipped = CONFIGS / f"{file.stem}.yaml"
        if file.resolve() == shipped.resolve():
            plan = file.stem
        if results.resolve() == RESULTS.resolve():
            results = RESULTS
        if plan != file.stem and results == RESULTS and shipped.is_file():
            raise UserError(f"{file}: its tables would replace those of {shipped}; rename the plan")
        if data_root is not None and not data_root.is_dir():
            raise UserError(f"--data-root: {data_root} is not a folder")
        if reading and results != RESULTS and not results.exists():
            raise UserError(f"--results: {results} does not exist")
        datasets = load_datasets()
        config = load_plan(plan, datasets)
        options = () if results == RESULTS else ("--results", str(results))
        numbers = None if seeds is None else parse_numbers("--seeds", seeds)
        self.plan = Plan(config, datasets, plan, options=options).with_protocol(numbers, epochs, precision)
        self.rows = _chosen("--method", method, list(config.rows))
        self.columns = _chosen("--dataset", dataset, list(config.columns))
        """The names of the data sets."""
        self.named_columns = dataset is not None
        if not empty_cells:
            self._refuse_empty(named_rows=method is not None)
        self.precision = self.plan.config.protocol.precision
        self.root = results / config.directory
        self.store = Store(self.root)
        self.figures = (FIGURES if results == RESULTS else results / "figures") / config.directory
        """The folder of the figures."""

    def _refuse_empty(self, *, named_rows: bool) -> None:
        """Raise `UserError` if nothing is left to train, or nothing of a row or data set that was named."""
        runs = self.plan.runs(self.rows, self.columns)
        rows = [row for row in self.rows if row not in {run.row for run in runs}]
        columns = [column for column in self.columns if column not in {run.column for run in runs}]
        if runs:
            rows, columns = rows if named_rows else [], columns if self.named_columns else []
        if rows or columns:
            where = f"{', '.join(rows or self.rows)} on {', '.join(columns or self.columns)}"
            raise UserError(f"the plan {self.plan.source} has no hyperparameters of {where}")

    def empty(self) -> Iterator[str]:
        """One line for each chosen row and data set that the plan has no hyperparameters for."""
        rows, columns = list(self.plan.config.rows), list(self.plan.config.columns)
        for row in self.rows:
            if not self.plan.runs([row], columns):
                yield f"{row}: no hyperparameters for any data set of the plan: {', '.join(columns)}"
        for column in self.columns:
            if not self.plan.runs(rows, [column]):
                yield f"{column}: no row has hyperparameters for it"

    def refuse_unwritable(self) -> None:
        """Raise `UserError` if the command cannot write to one of its folders."""
        for folder in (self.root, self.root / "tables", self.figures):
            refuse_unwritable(folder)

    def narrow_to_measured(self, measurement: str) -> None:
        """Keep the rows and data sets for which the plan takes this measurement."""
        where = self.plan.config.measure.get(measurement)
        rows = [row for row in self.rows if where is not None and row in where.rows]
        columns = [column for column in self.columns if where is not None and column in where.columns]
        if not rows or not columns:
            raise UserError(f"--for: the plan measures no {measurement} of these rows and data sets")
        self.rows, self.columns = rows, columns

    def statuses(self) -> list[Status]:
        """The states of the chosen runs."""
        return [status(run, self.store) for run in self.plan.runs(self.rows, self.columns)]


def check_number(option: str, value: int | None, *, least: int = 1, most: int = MOST) -> None:
    """Raise `UserError` if the number given for an option is out of range. None: not given."""
    if value is not None and not least <= value <= most:
        raise UserError(f"{option}: {value} found, must be from {least} to {most}")


def parse_numbers(option: str, text: str, *, least: int = 0) -> list[int]:
    """Parse `1,2,3`, `1-5` or both. Each number may occur once, none is below `least`."""
    numbers: list[int] = []
    allowed = f"at most {MOST} whole numbers from {least}, of up to nine digits, each once: 1,2,3 or 1-5"
    wrong = UserError(f"{option}: {text!r} found, allowed: {allowed}")
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if match is None:
            raise wrong
        first, last = int(match[1]), int(match[2] or match[1])
        if not least <= first <= last < first + MOST:
            raise wrong
        numbers += range(first, last + 1)
    if len(set(numbers)) != len(numbers) or len(numbers) > MOST:
        raise wrong
    return numbers


def _chosen(option: str, given: list[str] | None, allowed: list[str]) -> list[str]:
    """The allowed names that an option lists, in the plan's order and in any case; all if it is not given."""
    if given is None:
        return allowed
    by_lower = {name.lower(): name for name in allowed}
    names = [name for entry in given for name in _listed(entry, by_lower)]
    unknown = [repr(name) for name in names if name.lower() not in by_lower]
    if unknown:
        raise UserError(f"{option}: {', '.join(unknown)} found, allowed: {', '.join(allowed)}")
    chosen = {by_lower[name.lower()] for name in names}
    return [name for name in allowed if name in chosen]


def _listed(entry: str, known: Container[str]) -> Iterator[str]:
    """Split `a,b,c` into names. A known label with a comma in it is one name."""
    parts = entry.split(",")
    while parts:
        names = [",".join(parts[:n]).strip() for n in range(1, len(parts) + 1)]
        found = max((n for n, name in enumerate(names) if name.lower() in known), default=0)
        yield names[found]
        parts = parts[found + 1 :]
