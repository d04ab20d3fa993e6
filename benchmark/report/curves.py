"""Learning curves: the test error of every seed over the epochs, a figure a data set, a panel a row.

Tables 1 and 2 take the last epoch alone. Every number behind the figures is in the runs' `epochs.csv`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.comparison.cells import Cell, late_epochs, missing, read_cells, what_trains
from benchmark.config import PaperTable
from benchmark.report import drawing, markdown
from benchmark.report.files import write_texts
from benchmark.store.store import Store
from benchmark.sweep.plan import NOT_COMPARABLE, Plan

PANELS = 4
"""Panels side by side."""
SHARES = (0.1, 0.2, 0.5, 1.0)
"""Of the epochs, after which the table says how far training is."""


@dataclass(frozen=True)
class Curves:
    """The learning curves of a plan's stored rows."""

    plan: Plan
    cells: dict[tuple[str, str], Cell]

    @property
    def heading(self) -> str:
        return f"Learning curves of {self.plan.heading}"

    @property
    def warning(self) -> str | None:
        """Why the numbers may not stand beside the paper's, if so."""
        return self.plan.warning

    @property
    def note(self) -> str:
        """What the table's columns are."""
        return (
            "Test errors in per cent, means over the seeds. Lowest: of all epochs, in brackets which one; it "
            "is chosen on the test set and shows only how far from it the last epoch is, which is the one "
            f"that counts. Late: {late_epochs(self.plan)}, their mean, and from the lowest to the highest "
            "error that a single seed has within them. Seeds that diverged count like the others."
        )

    @property
    def columns(self) -> list[str]:
        """The data sets on which any row is stored."""
        return [column for column in self.plan.config.columns if self.rows(column)]

    def rows(self, column: str) -> list[str]:
        """The rows stored on a data set."""
        return [row for row in self.plan.config.rows if self.cells[row, column].by_epoch]

    def errors(self, row: str, column: str) -> NDArray[np.float64]:
        """The test error of every seed after each epoch, in per cent: (epochs, seeds)."""
        return np.array(self.cells[row, column].by_epoch)

    def not_stored(self, column: str, rows: Sequence[str]) -> list[str]:
        """`Not complete: BP, FA.`, if any of these rows is not."""
        lacking = [self.plan.label(row) for row in missing(self.cells, column) if row in rows]
        return [f"Not complete: {', '.join(lacking)}."] if lacking else []

    def file_name(self, column: str) -> str:
        """Of a data set's figure, without its suffix."""
        return self.plan.file_name(f"curves-{column}")

    @property
    def marks(self) -> list[int]:
        """The epochs that the table shows, the last one last."""
        epochs = self.plan.config.protocol.epochs
        return sorted({math.ceil(share * epochs) for share in SHARES})

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns that `texts` fills."""
        marks = (f"epoch {mark}" for mark in self.marks)
        return "method", "seeds", *marks, "lowest", "late", "single seeds, late"

    def texts(self, row: str, column: str) -> tuple[str, ...]:
        """By `heads`."""
        line = self._line(row, column)
        return (
            self.plan.label(row),
            self.cells[row, column].seeds,
            *(f"{line[f'epoch {mark}']:.2f}" for mark in self.marks),
            f"{line['lowest']:.2f} ({line['lowest_epoch']})",
            f"{line['late_mean']:.2f}",
            f"{line['late_lowest']:.2f} to {line['late_highest']:.2f}",
        )

    def frame(self) -> pd.DataFrame:
        """One line a row and data set: what `texts` has, in numbers."""
        lines = [self._line(row, column) for column in self.columns for row in self.rows(column)]
        return pd.DataFrame(lines)

    def _line(self, row: str, column: str) -> dict[str, str | int | float]:
        errors, late = self.errors(row, column), np.array(self.cells[row, column].late)
        means = errors.mean(1)
        numbers = {
            **{f"epoch {mark}": means[mark - 1] for mark in self.marks},
            "lowest": means.min(),
            "late_mean": late.mean(),
            "late_lowest": late.min(),
            "late_highest": late.max(),
        }
        rounded = {name: round(float(number), 4) for name, number in numbers.items()}
        return {
            "dataset": column,
            "method": row,
            "n": errors.shape[1],
            "diverged": self.cells[row, column].diverged,
            "lowest_epoch": int(means.argmin()) + 1,
            **rounded,
        }


def build(plan: Plan, store: Store, paper: PaperTable) -> Curves:
    """The curves of a plan's rows from the store; `UserError` for a damaged run or mixed data."""
    return Curves(plan, read_cells(plan, store, paper))


def show(curves: Curves, console: Console, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Print the numbers of the chosen rows, and what would train those that are missing."""
    for column in columns:
        if found := [row for row in curves.rows(column) if row in rows]:
            grid = Grid(title=escape(f"{curves.heading}: {curves.plan.title(column)}"))
            for number, head in enumerate(curves.heads):
                grid.add_column(head, justify="right" if number > 1 else "left")
            for row in found:
                grid.add_row(*map(escape, curves.texts(row, column)))
            console.print(grid)
        for line in curves.not_stored(column, rows):
            console.print(f"{curves.plan.title(column)}: {line}", markup=False)
    if curves.warning:
        console.print(curves.warning, style="bold", markup=False)
    console.print(curves.note, markup=False)
    chosen = {place: cell for place, cell in curves.cells.items() if place[0] in rows}
    for line in what_trains(chosen, curves.plan, columns):
        console.print(line, markup=False)


def write(curves: Curves, tables: Path, figures: Path) -> list[Path]:
    """The numbers as Markdown and CSV, and of every data set PNG and PDF; returns the files.

    None where nothing is stored.
    """
    if not curves.columns:
        return []
    texts = {
        "md": "\n".join(_markdown(curves)) + "\n",
        "csv": curves.frame().to_csv(index=False, lineterminator="\n"),
    }
    files = write_texts(tables, curves.plan.file_name("curves"), texts)
    with drawing.style():
        for column in curves.columns:
            files += drawing.save(draw(curves, column), figures, curves.file_name(column))
    return files


def _markdown(curves: Curves) -> Iterator[str]:
    yield from markdown.title(curves.heading, curves.warning)
    yield curves.note
    for column in curves.columns:
        yield from ("", f"## {curves.plan.title(column)}", "")
        yield from markdown.table(curves.heads, [curves.texts(row, column) for row in curves.rows(column)])
        for line in curves.not_stored(column, list(curves.plan.config.rows)):
            yield from ("", line)
    for line in what_trains(curves.cells, curves.plan, list(curves.plan.config.columns)):
        yield from ("", line)


def draw(curves: Curves, column: str) -> Figure:
    """A data set's figure: a panel a row, its seeds thin, their mean thick, the paper's mean dashed."""
    rows = curves.rows(column)
    lines = math.ceil(len(rows) / PANELS)
    canvas = Figure(figsize=(drawing.PAGE_WIDTH, 1.6 * lines + 0.9), layout="constrained")
    panels = canvas.subplots(lines, min(PANELS, len(rows)), sharex=True, sharey=True, squeeze=False)
    for panel, row in zip(panels.flat, rows, strict=False):
        _panel(panel, curves, row, column)
    for panel in panels.flat[len(rows) :]:
        panel.remove()
    for panel in panels.flat[: len(rows)][-panels.shape[1] :]:  # the lowest of every column
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("epoch")
    for panel in panels[:, 0]:
        panel.set_ylabel("test error (%)")
    positive = all(curves.errors(row, column).min() > 0 for row in rows)
    _finish(panels[0, 0], logarithmic=positive)  # else a zero could not be seen
    found = [panel.get_legend_handles_labels() for panel in panels.flat[: len(rows)]]
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    title = [f"{curves.plan.title(column)}: {curves.plan.protocol}"]
    if not curves.plan.config.comparable:
        drawing.watermark(canvas, NOT_COMPARABLE)
    elif curves.warning:
        title.append(curves.warning)
    if lacking := missing(curves.cells, column):
        title.append(f"{len(lacking)} of {len(rows) + len(lacking)} rows not complete")
    canvas.suptitle("\n".join(title), fontsize=9)
    return canvas


def _panel(panel: Axes, curves: Curves, row: str, column: str) -> None:
    errors, cell = curves.errors(row, column), curves.cells[row, column]
    epochs = np.arange(1, len(errors) + 1)
    colour = seaborn.color_palette()[0]
    for number, seed in enumerate(errors.T):
        panel.plot(epochs, seed, color=colour, linewidth=0.5, alpha=0.4, label="" if number else "a seed")
    panel.plot(epochs, errors.mean(1), color=colour, linewidth=1.2, label="mean over the seeds")
    if cell.paper is not None:
        label = "the paper's mean, last epoch"
        panel.axhline(cell.paper.mean, color="0.3", linestyle="--", linewidth=0.8, label=label)
    panel.set_title(curves.plan.label(row), fontsize=7)
    seaborn.despine(ax=panel)


def _finish(panel: Axes, *, logarithmic: bool) -> None:
    """The axes that all panels share: whole epochs, and errors with as many ticks as they need."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    if not logarithmic:
        return
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    subs = (1, 2, 5) if high > 10 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)
    panel.yaxis.set_major_locator(LogLocator(subs=subs))
    panel.yaxis.set_major_formatter(ScalarFormatter())
    panel.yaxis.set_minor_locator(NullLocator())
