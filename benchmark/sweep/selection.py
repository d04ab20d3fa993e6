"""A plan, narrowed by the options that commands share."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path

from benchmark.common.errors import UserError
from benchmark.common.files import FIGURES, RESULTS, existing, refuse_unwritable
from benchmark.config import CONFIGS, MOST, MOST_EPOCHS, load_datasets, load_plan, plan_file
from benchmark.config.limits import LONGEST_LABEL
from benchmark.engine.settings import Precision
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.sweep.plan import CHANGED, REPORTS, Plan
from benchmark.sweep.status import Status, status


class Selection:
    """The part of a plan that a command works on, chosen by its options."""

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
        """`empty_cells` allows rows and data sets without hyperparameters.

        `reading` says that the command only reads the store, so that `--results` must exist.
        """
        check_number("--epochs", epochs, most=MOST_EPOCHS)
        catalogue = load_datasets()
        file = plan_file(plan)
        if file.is_file() and file.resolve() == (CONFIGS / f"{file.stem}.yaml").resolve():
            plan = file.stem  # however it was written
        if results.resolve() == RESULTS.resolve():
            results = RESULTS
        config = load_plan(plan, catalogue)
        _check_name(file, plan, results)
        _check_labels(file, list(config.rows))
        if plan.startswith("-"):
            plan = f"./{plan}"  # no command that is printed takes it for an option
        written = Plan(file.stem, config, catalogue, source=plan)
        if results != RESULTS:
            written = replace(written, options=("--results", str(results)))
        numbers = None if seeds is None else parse_numbers("--seeds", seeds)
        self.plan = written.with_protocol(numbers, epochs, precision)
        if data_root is not None and not data_root.is_dir():
            raise UserError(f"--data-root: {data_root} is not a folder")
        self.rows = _chosen("--method", method, list(config.rows))
        self.columns = _chosen("--dataset", dataset, list(config.columns))
        self.named_columns = dataset is not None
        if not empty_cells:
            self._refuse_empty(named_rows=method is not None)
        self.precision = self.plan.config.protocol.precision
        self.root = results / config.directory
        if not (there := existing(self.root)).is_dir():
            raise UserError(f"--results: {there} is not a folder")
        self._refuse_own_folder(results)
        if reading and results != RESULTS and not results.exists():
            raise UserError(f"--results: {results} does not exist")
        self.store = Store(self.root)
        drawn = FIGURES if results == RESULTS else results / "figures"
        self.figures = drawn / config.directory
        """Folder of the figures."""

    def _refuse_empty(self, *, named_rows: bool) -> None:
        """Raise `UserError` if no cell is left, or if a row or data set that was named has none."""
        runs = self.plan.runs(self.rows, self.columns)
        rows = [row for row in self.rows if row not in {run.row for run in runs}]
        columns = [column for column in self.columns if column not in {run.column for run in runs}]
        if runs:
            rows, columns = rows if named_rows else [], columns if self.named_columns else []
        if rows or columns:
            where = f"{', '.join(rows or self.rows)} on {self._places(columns or self.columns)}"
            raise UserError(f"the plan {self.plan.source} has no hyperparameters of {where}")

    def _places(self, columns: list[str]) -> str:
        """Data sets, with those whose values they use: `fashion-mnist-mini (or fashion-mnist)`."""
        values = {column: self.plan.config.values_of(column)[1:] for column in columns}
        return ", ".join(f"{name} (or {', '.join(v)})" if v else name for name, v in values.items())

    def empty(self) -> Iterator[str]:
        """One line for each chosen row and data set that has no cell in the whole plan."""
        rows, columns = list(self.plan.config.rows), list(self.plan.config.columns)
        for row in self.rows:
            if not self.plan.runs([row], columns):
                yield f"{row}: no hyperparameters for any data set of the plan: {self._places(columns)}"
        for column in self.columns:
            if not self.plan.runs(rows, [column]):
                yield f"{self._places([column])}: no row has hyperparameters for it"

    def _refuse_own_folder(self, results: Path) -> None:
        """Raise `UserError` if `--results` is the folder that the plan makes in a results folder."""
        own, at = self.plan.config.directory, results.resolve()
        if own == "." or not at.match(own):
            return
        if any(Store(at).folder(run.key) is not None for run in self.plan.runs(self.rows, self.columns)):
            raise UserError(
                f"--results: {results} has runs of this plan as its own folder, {own}; "
                f"allowed: what that is in, {at.parents[len(Path(own).parts) - 1]}"
            )

    def refuse_unwritable(self) -> None:
        """Raise `UserError` if a folder that the command writes to cannot be written to."""
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
        return [status(run, self.store) for run in self.plan.runs(self.rows, self.columns)]


def check_number(option: str, value: int | None, *, least: int = 1, most: int = MOST) -> None:
    """Raise `UserError` if the number given for an option is out of range; None means not given."""
    if value is not None and not least <= value <= most:
        raise UserError(f"{option}: {value} found, must be from {least} to {most}")


def _check_name(file: Path, plan: str, results: Path) -> None:
    """Raise `UserError` if the tables of a plan with this name would overwrite other files."""
    for report in REPORTS:
        if report != "table2" and (file.stem == report or file.stem.startswith(f"{report}-")):
            raise UserError(f"{file}: reports have names that begin with {report}; rename the plan")
    if file.stem == "all":
        raise UserError(f"{file}: report takes 'all' for everything; rename the plan")
    if change := CHANGED.search(file.stem):
        raise UserError(
            f"{file}: tables of other seeds, epochs, or precision end like {change[2]}; rename the plan"
        )
    shipped = CONFIGS / f"{file.stem}.yaml"
    if plan != file.stem and results == RESULTS and shipped.is_file():
        raise UserError(f"{file}: {shipped} has this name, and its results in {results}; rename the plan")


def _check_labels(file: Path, rows: list[str]) -> None:
    """Raise `UserError` for labels of rows that are no file names, or that give the same file name."""
    known: dict[str, str] = {}
    for row in rows:
        if not row.isprintable() or not any(map(str.isalnum, row)):
            raise UserError(
                f"{file}: rows: {row!r} found, allowed: one line of printable text with a letter or digit"
            )
        if len(slug(row).encode()) > LONGEST_LABEL:
            raise UserError(
                f"{file}: rows: {row[:40]!r}... is too long for a folder's name; "
                f"at most {LONGEST_LABEL} bytes allowed"
            )
        if (other := known.setdefault(slug(row), row)) != row:
            raise UserError(f"{file}: rows.{row}: its files would be those of {other!r}; rename one of them")


def parse_numbers(option: str, text: str, *, least: int = 0) -> list[int]:
    """Parse `1,2,3`, `1-5` or both. Each number may occur once, and none is below `least`."""
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
    """Split `a,b,c` into names. A known label that contains a comma stays in one piece."""
    parts = entry.split(",")
    while parts:
        names = [",".join(parts[:n]).strip() for n in range(1, len(parts) + 1)]
        found = max((n for n, name in enumerate(names) if name.lower() in known), default=0)
        yield names[found]
        parts = parts[found + 1 :]
