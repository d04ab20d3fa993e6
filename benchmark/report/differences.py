"""Rows against each other: differences of their test errors, seed by seed.

Two rows are paired by seed: a seed's runs see the same samples in the same order. What the paper says of its
rows is judged elsewhere (`benchmark/claims.py`).
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

from benchmark.cells import LATE_EPOCHS, Cell, read_cells
from benchmark.config import PaperTable
from benchmark.report import markdown
from benchmark.results import Store, atomic_file
from benchmark.statistics import ALPHA, Difference, holm
from benchmark.sweep import Plan

HEADS = ("method", "minus", "after the last epoch", "p", "corrected", f"last {LATE_EPOCHS} epochs")


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
    corrected_p: float
    """That there is no difference after the last epoch, corrected (Holm) for all pairs of the data set."""
    diverged: int
    """Seeds of either row whose numbers ended up not finite; they count like the others."""

    @property
    def turned(self) -> Pair:
        """The same pair the other way round."""
        last, late = (replace(found, difference=-found.difference) for found in (self.last, self.late))
        return replace(self, row=self.other, other=self.row, last=last, late=late)

    @property
    def texts(self) -> tuple[str, ...]:
        """By `HEADS`."""
        diverged = f", {self.diverged} diverged" if self.diverged else ""
        return (
            *(self.row, self.other, _text(self.last) + diverged),
            *(f"{self.last.p_difference:.2g}", f"{self.corrected_p:.2g}", _text(self.late)),
        )


@dataclass(frozen=True)
class Differences:
    """All pairs of a plan's stored rows."""

    plan: Plan
    pairs: dict[str, list[Pair]]
    """By data set, in the plan's order."""

    @property
    def heading(self) -> str:
        return f"Differences between the rows of {self.plan.heading}"

    @property
    def note(self) -> str:
        epochs = min(LATE_EPOCHS, self.plan.config.protocol.epochs)
        return (
            "Test error in points, the first method's minus the second's on the same seeds: mean and "
            f"{1 - ALPHA:.0%} interval of a paired t test, not corrected; below zero the first is better. p: "
            "of the test that there is no difference after the last epoch; corrected (Holm) for all pairs of "
            f"the data set. Last {LATE_EPOCHS} epochs: the same of each seed's mean over the last {epochs}, "
            "for errors go up and down between epochs. That none is found does not say that there is none."
        )

    def title(self, column: str) -> str:
        return self.plan.datasets[column].title

    def of(self, column: str, rows: Sequence[str]) -> list[Pair]:
        """Pairs of one data set: all between the rows, or those of a single row with every other."""
        if len(rows) > 1:
            return [pair for pair in self.pairs[column] if {pair.row, pair.other} <= {*rows}]
        found = (pair if pair.row in rows else pair.turned for pair in self.pairs[column])
        return [pair for pair in found if pair.row in rows]

    def frame(self) -> pd.DataFrame:
        """One line a pair."""
        return pd.DataFrame(
            [_line(column, pair) for column, pairs in self.pairs.items() for pair in pairs], columns=_COLUMNS
        )


def build(plan: Plan, store: Store, paper: PaperTable) -> Differences:
    """All pairs of stored rows with two seeds or more; `UserError` for a damaged run or mixed data."""
    cells = read_cells(plan, store, paper)
    pairs = {}
    for column in plan.config.columns:
        stored = {row: cells[row, column] for row in plan.config.rows if len(cells[row, column].errors) > 1}
        found = [_pair(row, other, stored[row], stored[other]) for row, other in combinations(stored, 2)]
        corrected = holm([pair.last.p_difference for pair in found])
        pairs[column] = [replace(pair, corrected_p=p) for pair, p in zip(found, corrected, strict=True)]
    return Differences(plan, pairs)


def _pair(row: str, other: str, ours: Cell, theirs: Cell) -> Pair:
    """Not yet corrected. A plan's cells all have its seeds, in the same order."""
    apart = np.subtract(ours.late, theirs.late)  # (epochs, seeds)
    last = Difference.paired(list(apart[-1]))
    late = Difference.paired(list(apart.mean(axis=0)))
    return Pair(row, other, apart.shape[1], last, late, last.p_difference, ours.diverged + theirs.diverged)


def _text(difference: Difference) -> str:
    low, high = difference.interval
    return f"{difference.difference:+.2f} [{low:+.2f}, {high:+.2f}]"


_COLUMNS = (
    *("dataset", "method", "minus", "seeds", "diverged"),
    *("difference", "low", "high", "p_difference", "corrected_p_difference"),
    *("late_difference", "late_low", "late_high", "late_p_difference"),
)


def _line(column: str, pair: Pair) -> list[str | int | float]:
    """By `_COLUMNS`."""
    numbers = (
        *(pair.last.difference, *pair.last.interval, pair.last.p_difference, pair.corrected_p),
        *(pair.late.difference, *pair.late.interval, pair.late.p_difference),
    )
    digits = [float(f"{number:.4g}") for number in numbers]
    return [column, pair.row, pair.other, pair.seeds, pair.diverged, *digits]


def show(differences: Differences, console: Console, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print the pairs of the chosen rows."""
    for column in columns:
        found = differences.of(column, rows)
        if not found:
            continue
        grid = Grid(title=escape(f"{differences.heading}: {differences.title(column)}"))
        for head in HEADS:
            grid.add_column(head)
        for pair in found:
            grid.add_row(*map(escape, pair.texts))
        console.print(grid)
    if not any(differences.of(column, rows) for column in columns):
        console.print("No two of these rows are stored on a data set with two seeds or more.", markup=False)
    if differences.plan.warning:
        console.print(differences.plan.warning, style="bold", markup=False)
    console.print(differences.note, markup=False)


def write(differences: Differences, folder: Path) -> list[Path]:
    """All pairs as Markdown and CSV; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    name = differences.plan.file_name("differences")
    texts = {
        "md": "\n".join(_markdown(differences)) + "\n",
        "csv": differences.frame().to_csv(index=False, lineterminator="\n"),
    }
    for suffix, text in texts.items():
        with atomic_file(folder / f"{name}.{suffix}") as stream:
            stream.write(text.encode())
    return [folder / f"{name}.{suffix}" for suffix in texts]


def _markdown(differences: Differences) -> Iterator[str]:
    yield from (f"# {differences.heading}", "")
    if differences.plan.warning:
        yield from (f"**{differences.plan.warning}**", "")
    yield differences.note
    for column, pairs in differences.pairs.items():
        if pairs:
            yield from ("", f"## {differences.title(column)}", "")
            yield from markdown.table(HEADS, (pair.texts for pair in pairs))
