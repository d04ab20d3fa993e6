"""Rows against each other: differences of their test errors, paired by seed.

The runs of a seed see the same samples in the same order. What the paper says of its rows is judged elsewhere
(`benchmark/claims.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.common.statistics import ALPHA, Difference, holm
from benchmark.comparison.cells import Cell, late_epochs, missing, read_cells, what_trains
from benchmark.config import PaperTable
from benchmark.report import markdown
from benchmark.report.files import write_texts
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan

NOTE = (
    "Test error of one row minus that of the other, in points, paired by seed; below zero the first is "
    f"better. In square brackets the {1 - ALPHA:.0%} interval of a paired t test, not corrected; it covers "
    "the chance of the seeds alone. A difference is shown, in bold, if its two-sided p after the last epoch, "
    f"corrected (Holm) for all pairs of the data set, however few are listed, is at most {ALPHA:g}. Pairs of "
    "rows without brackets, the paper's, and pairs with a row in brackets are corrected apart; a row that "
    "comes in can change what is shown. For a pair that was chosen before its numbers were seen, p counts "
    "as it is. What is not shown is not shown to be equal: no margin is tested. "
    "Errors go up and down between epochs: where the mean over the last epochs is much smaller, the "
    "difference may be a matter of which epoch was the last. What the paper says of its rows is judged in "
    "the claims, in families of their own, and can come out otherwise."
)


@dataclass(frozen=True)
class Pair:
    """Two rows on one data set: test errors of `row` minus those of `other`, in points."""

    row: str
    other: str
    seeds: int
    last: Difference
    """After the last epoch."""
    late: Difference
    """Of each seed's mean over the last `LATE_EPOCHS` epochs."""
    diverged: str
    """`1 of BP diverged`: seeds whose numbers ended up not finite; empty without any."""
    corrected_p: float | None = None
    """Two-sided p-value of `last`, corrected (Holm); None if not tested."""

    @property
    def untested(self) -> str | None:
        """Why `last` is not tested, if so."""
        if self.diverged:
            return f"no test: {self.diverged}"
        return None if self.last.error else "no test: the same on all seeds"

    @property
    def turned(self) -> Pair:
        """The same pair the other way round."""
        last, late = (replace(found, difference=-found.difference) for found in (self.last, self.late))
        return replace(self, row=self.other, other=self.row, last=last, late=late)

    @property
    def late_varies(self) -> bool:
        """Whether `late` has an interval: not without spread, nor with diverged seeds."""
        return bool(self.late.error) and not self.diverged

    @property
    def found(self) -> bool:
        """Whether there is a difference."""
        return self.corrected_p is not None and self.corrected_p <= ALPHA


@dataclass(frozen=True)
class Differences:
    """All pairs of a plan's stored rows."""

    plan: Plan
    cells: dict[tuple[str, str], Cell]
    pairs: dict[str, list[Pair]]
    """By data set, in the plan's order."""

    @property
    def heading(self) -> str:
        return f"Differences between the rows of {self.plan.heading}"

    @property
    def late(self) -> str:
        """What `Pair.late` is of."""
        return f"mean of {late_epochs(self.plan)}"

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns that `texts` fills."""
        return "method", "minus", "after the last epoch", "p", "corrected", self.late

    def texts(self, pair: Pair) -> tuple[str, ...]:
        """By `heads`."""
        last, p, corrected = f"{pair.last.text} ({pair.untested})", "-", "-"
        if pair.untested is None:
            last, p, corrected = str(pair.last), f"{pair.last.p_difference:.2g}", f"{pair.corrected_p:.2g}"
        late = str(pair.late) if pair.late_varies else pair.late.text
        return self.plan.label(pair.row), self.plan.label(pair.other), last, p, corrected, late

    def of(self, column: str, rows: Sequence[str]) -> list[Pair]:
        """Pairs of one data set: all between the rows, or those of a single row with every other."""
        if len(rows) > 1:
            return [pair for pair in self.pairs[column] if {pair.row, pair.other} <= {*rows}]
        found = (pair if pair.row in rows else pair.turned for pair in self.pairs[column])
        return [pair for pair in found if pair.row in rows]

    def remarks(self, column: str) -> list[str]:
        """What a reader of a data set's pairs should know."""
        pairs = self.pairs[column]
        tested = [pair for pair in pairs if pair.untested is None]
        added = sum(_has_addition(pair, self.plan) for pair in tested)
        stored = list(dict.fromkeys(row for pair in pairs for row in (pair.row, pair.other)))
        used = {row: self.plan.config.hyperparameters(row, column) for row in stored}
        guessed = [row for row, given in used.items() if given is not None and given.source == "guess"]
        borrowed = [row for row in stored if column not in self.plan.config.rows[row].hyperparameters]
        said = ["Nothing to compare."]
        if pairs:
            left_out = f"; not tested: {len(pairs) - len(tested)}" if len(tested) < len(pairs) else ""
            apart = f"{len(tested) - added} without a row in brackets, {added} with one"
            said = [f"Pairs corrected together: {apart}{left_out}."]
        for what, named in (
            ("Hyperparameters guessed", guessed),
            ("Hyperparameters of another data set", borrowed),
            ("Not stored", missing(self.cells, column)),
        ):
            said += [f"{what}: {', '.join(map(self.plan.label, named))}."] if named else []
        return said

    def frame(self) -> pd.DataFrame:
        """One line a pair."""
        lines = [_line(column, pair) for column, pairs in self.pairs.items() for pair in pairs]
        return pd.DataFrame(lines, columns=_COLUMNS)


def build(plan: Plan, store: Store, paper: PaperTable) -> Differences:
    """All pairs of stored rows with two seeds or more; `UserError` for a damaged run or mixed data."""
    cells = read_cells(plan, store, paper)
    pairs = {}
    for column in plan.config.columns:
        stored = [row for row in plan.config.rows if len(cells[row, column].errors) > 1]
        found = [
            _pair(plan, row, other, cells[row, column], cells[other, column])
            for row, other in combinations(stored, 2)
        ]
        corrected: dict[tuple[str, str], float] = {}
        for addition in (False, True):
            family = [
                pair for pair in found if pair.untested is None and _has_addition(pair, plan) is addition
            ]
            p = holm([pair.last.p_difference for pair in family])
            corrected |= {(pair.row, pair.other): value for pair, value in zip(family, p, strict=True)}
        pairs[column] = [replace(p, corrected_p=corrected.get((p.row, p.other))) for p in found]
    return Differences(plan, cells, pairs)


def _has_addition(pair: Pair, plan: Plan) -> bool:
    """Whether one of its rows is not in the paper."""
    return any(plan.config.rows[row].addition for row in (pair.row, pair.other))


def _pair(plan: Plan, row: str, other: str, ours: Cell, theirs: Cell) -> Pair:
    """Before correction. A plan's cells all have its seeds, in the same order."""
    apart = np.subtract(ours.late, theirs.late)  # (epochs, seeds)
    last, late = (Difference.paired(list(by_seed)) for by_seed in (apart[-1], apart.mean(axis=0)))
    diverged = [
        f"{cell.diverged} of {plan.label(name)} diverged"
        for name, cell in ((row, ours), (other, theirs))
        if cell.diverged
    ]
    return Pair(row, other, apart.shape[1], last, late, ", ".join(diverged))


_COLUMNS = (
    *("dataset", "method", "minus", "seeds", "untested"),
    *("difference", "low", "high", "p_difference", "corrected_p_difference"),
    *("late_difference", "late_low", "late_high"),
)


def _line(column: str, pair: Pair) -> list[str | int | float | None]:
    """By `_COLUMNS`; empty what is not tested."""
    last = [*pair.last.interval, pair.last.p_difference, pair.corrected_p]
    numbers = [
        *(pair.last.difference, *(last if pair.untested is None else [None] * len(last))),
        *(pair.late.difference, *(pair.late.interval if pair.late_varies else [None] * 2)),
    ]
    digits = [None if number is None else float(f"{number:.4g}") for number in numbers]
    return [column, pair.row, pair.other, pair.seeds, pair.untested, *digits]


def show(differences: Differences, console: Console, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print the pairs of the chosen rows."""
    for column in columns:
        found, title = differences.of(column, rows), differences.plan.title(column)
        if found:
            grid = Grid(title=escape(f"{differences.heading}: {title}"))
            for head in differences.heads:
                grid.add_column(head)
            for pair in found:
                cells = [escape(text) for text in differences.texts(pair)]
                grid.add_row(*_marked(pair, cells, "[bold]{}[/bold]"))
            console.print(grid)
        remarks = differences.remarks(column)
        if differences.pairs[column] and not found:
            remarks = ["Nothing to compare of what was chosen.", *remarks]
        console.print(f"{title}: {' '.join(remarks)}", markup=False)
    if differences.plan.warning:
        console.print(differences.plan.warning, style="bold", markup=False)
    console.print(NOTE, markup=False)
    for line in what_trains(differences.cells, differences.plan, columns):
        console.print(line, markup=False)


def write(differences: Differences, folder: Path) -> list[Path]:
    """All pairs as Markdown and CSV; returns the files."""
    csv = differences.frame().to_csv(index=False, lineterminator="\n")
    texts = {"md": "\n".join(_markdown(differences)) + "\n", "csv": csv}
    return write_texts(folder, differences.plan.file_name("differences"), texts)


def _markdown(differences: Differences) -> Iterator[str]:
    yield from markdown.title(differences.heading, differences.plan.warning)
    yield NOTE
    for column, pairs in differences.pairs.items():
        yield from ("", f"## {differences.plan.title(column)}", "", " ".join(differences.remarks(column)))
        if pairs:
            marked = (_marked(pair, differences.texts(pair), "**{}**") for pair in pairs)
            yield ""
            yield from markdown.table(differences.heads, marked)
    for line in what_trains(differences.cells, differences.plan, list(differences.pairs)):
        yield from ("", line)


def _marked(pair: Pair, cells: Sequence[str], mark: str) -> tuple[str, ...]:
    """The cells of a pair, a difference that is found in bold."""
    row, other, last, *rest = cells
    return row, other, mark.format(last) if pair.found else last, *rest
