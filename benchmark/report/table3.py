"""Table 3: seconds an epoch of each method takes, on every device that was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table as Grid

from benchmark.common.errors import UserError
from benchmark.common.statistics import Estimate
from benchmark.comparison.cells import Cell, read_cells
from benchmark.config import PaperCell, PaperTable
from benchmark.report import latex, markdown
from benchmark.report.files import write_texts
from benchmark.store.store import Store
from benchmark.studies.timing import costs
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.points import ROWS, command, profile_of
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run

NOTE = (
    "Time: seconds per epoch of one replica; the device synchronised, warm-up, evaluation and feedback "
    "pre-training excluded; the median over blocks of consecutive iterations, scaled to an epoch, ± the "
    "sample standard deviation (n - 1) over the blocks. Timed: how many blocks of how many iterations; "
    "shorter blocks than an epoch spread more than epochs do. The data have the right shape and random "
    "pixels, on which timing does not depend. Ratios are to {first}, their ± propagated from both times. "
    "Predicted: the ratio of the multiply-adds that matrix products need. x {many}: seconds per epoch and "
    "replica with so many replicas side by side. Error: test error in % as in Table 2, mean ± standard "
    "deviation over n seeds. Columns in [brackets] are not in the paper."
)


@dataclass(frozen=True)
class Line:
    """One method on one device."""

    method: str
    alone: Cost | None
    """One replica."""
    amortised: dict[int, Cost | None]
    """By replicas."""
    ratio: Estimate | None
    """To the first method."""
    predicted: float | None

    @property
    def time(self) -> Estimate | None:
        """Seconds per epoch of one replica by itself."""
        return None if self.alone is None else self.alone.time


@dataclass(frozen=True)
class Table3:
    """The table as data."""

    plan: Plan
    column: str
    updates: int
    """Feedback updates in every iteration."""
    amortised: tuple[int, ...]
    """Replicas side by side."""
    devices: dict[str, list[Line]]
    """By the device's name; empty where nothing was measured."""
    errors: dict[tuple[str, str], Cell]
    """By row and column of Table 2: the column itself and stand-ins that have something stored."""
    paper: Mapping[str, PaperTable]
    """The paper's Table 3; empty where the plan's numbers may not stand beside it."""

    @property
    def heading(self) -> str:
        """What was timed, and on which network."""
        network = self.plan.config.networks[self.plan.config.columns[self.column].network]
        return (
            f"Table 3: cost on {self.plan.datasets[self.column].title}, {network.hidden_layers} x "
            f"{network.width}, minibatch {self.plan.config.protocol.batch_size}, {self.updates} feedback "
            "updates"
        )

    @property
    def warning(self) -> str | None:
        """Why the numbers may not stand beside the paper's, if so."""
        return self.plan.warning

    @property
    def note(self) -> str:
        return NOTE.format(first=ROWS[0], many=", x ".join(map(str, self.amortised)))

    @property
    def columns(self) -> list[str]:
        """Table 2's columns whose errors are shown."""
        return list(dict.fromkeys(column for _, column in self.errors))

    def provenance(self, device: str) -> str:
        """Versions and date of a device's measurements."""
        measured = [cost for line in self.devices[device] for cost in _costs(line)]
        said = {(cost.torch_version, cost.commit, cost.measured) for cost in measured}
        return "; ".join(
            f"torch {torch}, commit {commit[:12]}{commit[40:]}, {date}"
            for torch, commit, date in sorted(said)
        )

    def skipped(self, device: str) -> Iterator[str]:
        """What was not measured, and why."""
        for line in self.devices[device]:
            for cost in _costs(line):
                if cost.skipped:
                    yield f"{cost.method} with {cost.replicas} replicas: {cost.skipped}"

    def missing(self) -> Iterator[tuple[str, str]]:
        """What is not there, and the command that fills it."""
        if not self.devices:
            yield "no device was measured yet", command(self.plan)
        for device, lines in self.devices.items():
            for line in lines:
                absent = [n for n, cost in ((1, line.alone), *line.amortised.items()) if cost is None]
                if absent:
                    counts = ", ".join(map(str, absent))
                    how = f"{command(self.plan)} --again"
                    yield f"{line.method} with {counts} replicas on {device}", how
        for (row, column), cell in self.errors.items():
            if cell.planned and not cell.errors:
                yield f"error of {row} on {column}", cell.command

    def printed(self, quantity: str, row: str) -> PaperCell | None:
        """The paper's `seconds`, `ratio` or `error`."""
        table = self.paper.get(f"table3-{quantity}")
        return None if table is None else table.cells.get(row, {}).get(self.column)

    def frame(self) -> pd.DataFrame:
        """One row a device and method."""
        rows: list[dict[str, Any]] = []
        for device, lines in self.devices.items():
            for line in lines:
                row: dict[str, Any] = {
                    "device": device,
                    "method": line.method,
                    "timed": line.alone.how if line.alone else "",
                    "seconds": line.time.value if line.time else None,
                    "seconds_std": line.time.std if line.time else None,
                    "ratio": line.ratio.value if line.ratio else None,
                    "ratio_std": line.ratio.std if line.ratio else None,
                    "predicted_ratio": line.predicted,
                }
                for replicas, cost in line.amortised.items():
                    each = cost.seconds_per_epoch_and_replica if cost else None
                    row[f"seconds_of_{replicas}"] = each
                for quantity in ("seconds", "ratio", "error"):
                    cell = self.printed(quantity, line.method)
                    row[f"paper_{quantity}"] = cell.mean if cell else None
                    row[f"paper_{quantity}_std"] = cell.std if cell else None
                for column in self.columns:
                    error = self.errors[line.method, column]
                    row[f"error_{column}"] = error.mean if error.errors else None
                    row[f"error_{column}_std"] = error.std if len(error.errors) > 1 else None
                    row[f"error_{column}_n"] = len(error.errors)
                rows.append(row)
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["device", "method"])


def build(plan: Plan, store: Store, paper: Mapping[str, PaperTable]) -> Table3:
    """Read measured costs and Table 2's errors; `UserError` for damaged or mixed ones."""
    _, profile = profile_of(plan)
    column, amortised = profile.column, profile.amortised
    runs = {row: _run(plan, row, column) for row in ROWS}
    devices = {
        device: _lines(device, measured, runs, amortised, plan)
        for device, measured in costs.read_all(store.root).items()
    }
    comparable = plan.config.comparable
    network = plan.config.columns[column].network
    stand_ins = [n for n, c in plan.config.columns.items() if c.addition and c.network == network]
    narrowed = plan.config.model_copy(
        update={
            "rows": {row: plan.config.rows[row] for row in ROWS},
            "columns": {name: plan.config.columns[name] for name in (column, *stand_ins)},
        }
    )
    cells = read_cells(replace(plan, config=narrowed), store, paper["table3-error"])
    shown = [column, *(n for n in stand_ins if any(cells[row, n].errors for row in ROWS))]
    updates = max(costs.feedback_updates(run) for run in runs.values())
    errors = {(row, name): cells[row, name] for name in shown for row in ROWS}
    return Table3(plan, column, updates, amortised, devices, errors, paper if comparable else {})


def _run(plan: Plan, row: str, column: str) -> Run:
    run = plan.run(row, column) if row in plan.config.rows else None
    if run is None:
        raise UserError(f"the plan {plan.source} has nothing for {row} on {column}, which Table 3 needs")
    return run


def _lines(
    device: str, measured: Sequence[Cost], runs: Mapping[str, Run], amortised: tuple[int, ...], plan: Plan
) -> list[Line]:
    found: dict[tuple[str, int], Cost] = {}
    for cost in measured:
        run = runs.get(cost.method)
        if run is None or not cost.fits(run) or (cost.method, cost.replicas) in found:
            what = "twice" if (cost.method, cost.replicas) in found else "on another network than the plan's"
            how = f"{command(plan)} --again"
            raise UserError(f"Table 3 on {device}: {cost.method} was measured {what}; measure anew: {how}")
        found[cost.method, cost.replicas] = cost
    adds = {row: cost.multiply_adds for (row, _), cost in found.items()}
    first = found[ROWS[0], 1].time if (ROWS[0], 1) in found else None
    lines = []
    for row in ROWS:
        needed, reference = adds.get(row), adds.get(ROWS[0])
        line = Line(
            method=row,
            alone=found.get((row, 1)),
            amortised={n: found.get((row, n)) for n in amortised},
            ratio=None,
            predicted=needed / reference if needed is not None and reference else None,
        )
        if line.time is not None and first is not None:
            ratio = Estimate(1.0, 0.0) if row == ROWS[0] else line.time.over(first)
            line = replace(line, ratio=ratio)
        lines.append(line)
    return lines


def _costs(line: Line) -> list[Cost]:
    return [cost for cost in (line.alone, *line.amortised.values()) if cost is not None]


def heads(table: Table3) -> list[str]:
    """Of `body`."""
    names = ["method", "time [s]", "timed", f"ratio to {ROWS[0]}", "predicted"]
    names += [f"x {replicas}" for replicas in table.amortised]
    names += ["paper: time", "paper: ratio"] if table.paper else []
    for column in table.columns:
        title = table.plan.datasets[column].title
        names.append(f"error, {title}" if column == table.column else f"[error, {title}]")
    return names + (["paper: error"] if table.paper else [])


def body(table: Table3, lines: Sequence[Line]) -> list[list[str]]:
    """The lines of one device as a person reads them."""

    def printed(quantity: str, row: str) -> str:
        return str(table.printed(quantity, row) or "-")

    found = []
    for line in lines:
        time = "-" if line.time is None else _seconds(line.time.value, line.time.std)
        cells = [line.method, time, line.alone.how if line.alone else "-"]
        cells += [str(line.ratio or "-"), "-" if line.predicted is None else f"{line.predicted:.2f}"]
        for cost in line.amortised.values():
            each = cost.seconds_per_epoch_and_replica if cost else None
            cells.append("skipped" if cost and cost.skipped else "-" if each is None else _seconds(each))
        if table.paper:
            cells += [printed("seconds", line.method), printed("ratio", line.method)]
        for column in table.columns:
            error = table.errors[line.method, column]
            cells.append(error.value + (f" ({error.seeds})" if error.errors else ""))
        found.append(cells + ([printed("error", line.method)] if table.paper else []))
    return found


def _seconds(value: float, *spread: float) -> str:
    """Three digits, since a GPU needs a tenth of a second where a CPU needs a minute: `0.0701 ± 0.0003`."""
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return " ± ".join(f"{number:.{decimals}f}" for number in (value, *spread))


def show(table: Table3, console: Console) -> None:
    """Print the table, one grid a device, and what is missing."""
    console.print(table.heading, style="bold", markup=False)
    if table.warning:
        console.print(table.warning, style="bold", markup=False)
    for device, lines in table.devices.items():
        grid = Grid(title=device)
        for head in heads(table):
            grid.add_column(head.replace("[", r"\["), justify="left" if head == "method" else "right")
        for cells in body(table, lines):
            grid.add_row(*cells)
        console.print(grid)
        console.print(table.provenance(device), markup=False)
        for reason in table.skipped(device):
            console.print(f"skipped: {reason}", markup=False)
    console.print(table.note, markup=False)
    for what, how in table.missing():
        console.print(f"missing: {what}: {how}", markup=False)


def write(table: Table3, folder: Path) -> list[Path]:
    """The table as Markdown, CSV and LaTeX; returns the files."""
    csv = table.frame().to_csv(index=False, float_format="%.6g", lineterminator="\n")
    texts = {"md": _markdown(table), "csv": csv, "tex": _latex(table)}
    return write_texts(folder, "table3", texts)


def _markdown(table: Table3) -> str:
    lines = markdown.title(table.heading, table.warning)
    for device, measured in table.devices.items():
        lines += [f"## {device}", "", *markdown.table(heads(table), body(table, measured))]
        lines += ["", table.provenance(device), ""]
        skipped = [f"- skipped: {reason}" for reason in table.skipped(device)]
        lines += [*skipped, ""] if skipped else []
    lines.append(table.note)
    gaps = list(table.missing())
    if gaps:
        lines += ["", "Missing, and what fills it:", "", *(f"- {what}: `{how}`" for what, how in gaps)]
    return "\n".join(lines) + "\n"


def _latex(table: Table3) -> str:
    lines = latex.preamble(f"{table.heading}. {table.note}", table.warning)
    if not table.devices:
        lines += [f"% {what}: {how}" for what, how in table.missing()]
    for device, measured in table.devices.items():
        escaped = [[latex.escaped(text) for text in cells] for cells in body(table, measured)]
        names = [latex.escaped(head) for head in heads(table)]
        lines += [f"% {device}: {table.provenance(device)}", *latex.table([names], escaped)]
    return "\n".join(lines) + "\n"
