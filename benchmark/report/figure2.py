"""Figure 2: trace of J_f J_g and its share of non-negative eigenvalues over the epochs.

The paper draws "the second" and "the last (sixth)" layer: encoders f_2 and f_6 of six. Here f_2 and f_L.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.report import drawing
from benchmark.report.files import write_texts
from benchmark.report.measured import Measured, read
from benchmark.store.store import Store
from benchmark.sweep.plan import NOT_COMPARABLE, Plan

QUANTITIES = {
    "trace": r"trace of $J_{f_l}\,J_{g_l}$",
    "nonnegative": r"non-negative eigenvalues of $J_{f_l}\,J_{g_l}$",
    "nonnegative_symmetric": "those of its symmetric part",
}
SECOND = 2
"""The encoder of the paper's second layer."""
SCALED = {("DTP", SECOND): 0.1}
"""Traces that the paper scales to fit them in: by method and encoder."""
NOTE = (
    "The 2nd layer is f_2, the last is the output layer. "
    "Mean and sample standard deviation (n - 1) over the seeds of an average over one sample an evaluation "
    "minibatch; non-negative: positive real part. Epoch 0 is the initialisation, before any pre-training. "
    "Batch norm is evaluated as released, over the features of a single sample ('sample'), and beside it "
    "with the minibatch's statistics held constant ('batch')."
)


@dataclass(frozen=True)
class Figure2:
    """The figure as data."""

    measured: Measured
    data: pd.DataFrame
    """`method`, `encoder`, `statistics`, `quantity`, `epoch`, and over the seeds `n`, `mean`, `std`."""

    def frame(self) -> pd.DataFrame:
        return self.data

    @property
    def depth(self) -> int:
        """L of the plan's network."""
        config = self.measured.plan.config
        return config.networks[config.columns[self.measured.column].network].hidden_layers + 1

    def label(self, row: str) -> str:
        """`DTP (n=5)`: fewer than the plan's seeds where some have numbers that are not finite."""
        n = self.data.loc[self.data["method"] == row, "n"].min()
        return f"{row} (n={n})"

    def curve(self, method: str, encoder: int, quantity: str) -> pd.DataFrame:
        """`n`, `mean` and `std` by epoch, in the released convention."""
        chosen = {"method": method, "encoder": encoder, "quantity": quantity, "statistics": "sample"}
        found = self.data[(self.data[list(chosen)] == pd.Series(chosen)).all(axis=1)]
        return found.set_index("epoch")[["n", "mean", "std"]]


def build(plan: Plan, store: Store) -> Figure2:
    """Read the runs that the plan measures from the store; `UserError` for damaged ones or mixed data."""
    measured = read(plan, store, "jacobian")
    keys = ["method", "encoder", "statistics", "quantity", "epoch"]
    tables = [
        table.assign(method=row).melt(
            id_vars=["method", "encoder", "statistics", "epoch", "seed"],
            value_vars=list(QUANTITIES),
            var_name="quantity",
        )
        for row, table in measured.tables.items()
    ]
    if not tables:
        return Figure2(measured, pd.DataFrame(columns=[*keys, "n", "mean", "std"]))
    seeds = pd.concat(tables).groupby(keys, sort=False)["value"]
    data = seeds.agg(n="count", mean="mean", std="std").reset_index()  # NaN of a diverged seed counts nowhere
    return Figure2(measured, data)


def show(figure: Figure2, console: Console) -> None:
    """The last epoch in a few lines, and what is missing."""
    grid = Grid(title=escape(f"Figure 2, last epoch: {figure.measured.heading}"))
    for name in ("method", "encoder", "trace", "non-negative", "of the symmetric part"):
        grid.add_column(name, justify="left" if name == "method" else "right")
    for row in figure.measured.tables:
        for encoder in range(2, figure.depth + 1):
            last = [figure.curve(row, encoder, quantity).iloc[-1] for quantity in QUANTITIES]
            grid.add_row(escape(row), str(encoder), *map(_cell, last))
    console.print(grid)
    if warned := figure.measured.plan.warning:
        console.print(warned, style="bold", markup=False)
    console.print(NOTE, markup=False)
    for remark in figure.measured.remarks():
        console.print(remark, markup=False)


def _cell(found: pd.Series) -> str:
    if not found["n"]:
        return "not finite"
    spread = f" ± {found['std']:.3f}" if found["n"] > 1 else ""
    return f"{found['mean']:.3f}{spread} (n={found['n']:.0f})"


def write(figure: Figure2, folder: Path) -> list[Path]:
    """PNG and PDF of `figure2`, of `figure2-all` with every encoder, and the numbers as CSV; the files.

    None where nothing is stored: an empty figure shows nothing.
    """
    if not figure.measured.tables:
        return []
    with drawing.style():
        files = [
            file
            for name, canvas in (
                ("figure2", _as_in_the_paper(figure)),
                ("figure2-all", _every_encoder(figure)),
            )
            for file in drawing.save(canvas, folder, figure.measured.plan.file_name(name))
        ]
    csv = figure.frame().to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return files + write_texts(folder, figure.measured.plan.file_name("figure2"), {"csv": csv})


def _as_in_the_paper(figure: Figure2) -> Figure:
    """Panels (a) trace and (b) proportion; a colour a method, a line style a layer."""
    canvas, axes = _canvas(figure, 1, 2)
    layers = {figure.depth: ("last layer", "--"), min(SECOND, figure.depth): ("2nd layer", "-")}
    colours = dict(zip(figure.measured.rows, seaborn.color_palette(), strict=False))
    for panel, quantity, letter in zip(axes.flat, ("trace", "nonnegative"), "ab", strict=True):
        for row in figure.measured.tables:
            for encoder, (layer, style) in sorted(layers.items()):
                method = figure.measured.plan.config.rows[row].method
                scale = SCALED.get((method, encoder), 1.0)
                label = f"{figure.label(row)}, {layer} ($f_{encoder}$)"
                label += f", trace × {scale:g}" if scale != 1 else ""
                curve = figure.curve(row, encoder, quantity)
                if quantity == "trace":
                    curve = curve.assign(mean=curve["mean"] * scale, std=curve["std"] * scale)
                # Pale and wide, so that a dashed one upon it shows: of DTP both are at 1 in panel (b).
                width, alpha = (3.0, 0.5) if style == "-" else (1.5, 1.0)
                _draw(panel, curve, label, colours[row], style, width, alpha)
        label = "trace" if quantity == "trace" else "proportion"
        _finish(panel, f"({letter}) {QUANTITIES[quantity]}", label)
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return canvas


def _every_encoder(figure: Figure2) -> Figure:
    """A row of panels a quantity, a column a method, a colour an encoder; nothing is scaled."""
    rows, encoders = list(figure.measured.tables), range(2, figure.depth + 1)
    canvas, axes = _canvas(figure, len(QUANTITIES), max(len(rows), 1))
    colours = dict(zip(encoders, seaborn.color_palette("viridis", len(encoders)), strict=True))
    for line, quantity in zip(axes, QUANTITIES, strict=True):
        for panel, row in zip(line, rows, strict=False):
            if quantity != "trace" and panel is not line[0]:  # DTP's traces are ten times FW-DTP's
                panel.sharey(line[0])
            for encoder in encoders:
                _draw(panel, figure.curve(row, encoder, quantity), f"$f_{encoder}$", colours[encoder])
            _finish(panel, figure.label(row), QUANTITIES[quantity])
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(encoders))
    return canvas


def _canvas(figure: Figure2, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure as wide as a page and its axes (rows, columns); says what is missing or not comparable."""
    canvas = Figure(figsize=(drawing.PAGE_WIDTH, 2.4 * rows + 0.7), layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False)
    title = [figure.measured.heading]
    plan = figure.measured.plan
    if not plan.config.comparable:
        drawing.watermark(canvas, NOT_COMPARABLE)
    elif warned := plan.warning:
        title.append(warned)
    if figure.measured.missing:
        title.append(f"not trained yet: {', '.join(figure.measured.missing)}")
    canvas.suptitle("\n".join(title), fontsize=9)
    return canvas, axes


def _draw(
    panel: Axes,
    curve: pd.DataFrame,
    label: str,
    colour: tuple[float, float, float],
    style: str = "-",
    width: float = 1.5,
    alpha: float = 1.0,
) -> None:
    """Mean and deviation band of one layer."""
    panel.plot(curve.index, curve["mean"], style, color=colour, label=label, linewidth=width, alpha=alpha)
    low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
    panel.fill_between(curve.index, low, high, color=colour, alpha=0.2, linewidth=0)


def _finish(panel: Axes, title: str, label: str) -> None:
    panel.set_title(title)
    panel.set_xlabel("epoch")
    panel.set_ylabel(label)
    seaborn.despine(ax=panel)
