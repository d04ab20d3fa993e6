"""What a pass costs as replicas, width, depth and feedback updates grow, and the bound the machine sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.console import Console
from rich.table import Table as Grid

from benchmark.methods import METHODS
from benchmark.report import drawing
from benchmark.report.files import write_texts
from benchmark.store.store import Store
from benchmark.studies.timing import costs
from benchmark.studies.timing.costs import Cost
from benchmark.studies.timing.points import AXES, BASELINE_ROWS, REPLICAS, ROWS, command, profile_of
from benchmark.sweep.plan import Plan

LABELS = {
    "replicas": "replicas",
    "width": "hidden width",
    "hidden_layers": "hidden layers",
    "feedback_updates": "feedback updates",
}
QUANTITIES = {
    "seconds_per_epoch_and_replica": "s per epoch and replica",
    "bound_share": "share of the bound",
    "peak_gib": "peak memory [GiB]",
}
MARKERS = {"compiled": "D", "eager": "x", "eager as released": "P"}
NOTE = (
    "Dashed: the bound, that is the multiply-adds a method needs at the device's measured matrix-product "
    "rate, or the factors and results of its matrix products at the measured bandwidth, whichever takes "
    "longer. One seed, eager: one seed at a time in plain eager code that follows the released procedure; as "
    "released: with the released code's products with identity matrices as well. On a GPU this project's "
    "training runs as CUDA graphs, the eager ones do not. The memory of compiled training is the compiler's, "
    "too, and left out. All of a device was measured in one run, on random "
    "data."
)


@dataclass(frozen=True)
class Scaling:
    """The figure as data."""

    plan: Plan
    base: dict[str, int]
    """Where the axes cross: the plan's own network and options, five replicas."""
    devices: dict[str, list[Cost]]
    """By the device's name; empty where nothing was measured."""

    @property
    def heading(self) -> str:
        """What was varied, and from where."""
        _, profile = profile_of(self.plan)
        base = self.base
        return (
            f"Cost on the {self.plan.datasets[profile.study].title} network: {base['hidden_layers']} x "
            f"{base['width']}, {base['replicas']} replicas, {base['feedback_updates']} feedback updates, "
            "one of these varied at a time"
        )

    @property
    def warning(self) -> str | None:
        """Why the numbers may not stand beside the paper's, if so."""
        return self.plan.warning

    def line(self, device: str, method: str, axis: str) -> list[Cost]:
        """The method's measurements along an axis, in rising order, without those that were skipped."""
        found = self._along(device, method, axis)
        return [cost for cost in found if cost.seconds_per_epoch is not None]

    def _along(self, device: str, method: str, axis: str) -> list[Cost]:
        fixed = {name: value for name, value in self.base.items() if name != axis}
        if not self._learns(method):
            if axis == "feedback_updates":
                return []
            fixed["feedback_updates"] = 0
        found = [
            cost
            for cost in self.devices[device]
            if cost.method == method
            and cost.implementation == "replica axis"
            and all(getattr(cost, name) == value for name, value in fixed.items())
        ]
        return sorted(found, key=lambda cost: getattr(cost, axis))

    def _learns(self, method: str) -> bool:
        return METHODS[self.plan.config.rows[method].method].learns_feedback

    def baselines(self, device: str) -> list[Cost]:
        """The measurements of the eager baselines."""
        return [cost for cost in self.devices[device] if cost.implementation in costs.BASELINES]

    def compiled(self, device: str) -> list[Cost]:
        """The measurements of compiled training; its memory is the compiler's, too, and left out."""
        found = [cost for cost in self.devices[device] if cost.implementation == "compiled"]
        return [cost.model_copy(update={"peak_gib": None}) for cost in found]

    def gains(self, device: str) -> Iterator[str]:
        """How many times faster than in each baseline a seed is among five side by side, in words.

        And how much of that this code gains without replicas, how much they add.
        """
        for baseline in self.baselines(device):
            method, plain = baseline.method, baseline.seconds_per_epoch_and_replica
            alike = [
                cost
                for cost in (*self.line(device, method, "replicas"), *self.compiled(device))
                if (cost.method, cost.measured) == (method, baseline.measured)
            ]
            each = {(c.implementation, c.replicas): c.seconds_per_epoch_and_replica for c in alike}
            than = f"times faster than one at a time ({baseline.implementation})"
            if plain and (among := each.get(("replica axis", REPLICAS))):
                single = each.get(("replica axis", 1))
                code = f": {plain / single:.1f} times by this code" if single else ""
                axis = f", {single / among:.1f} times by being side by side" if single else ""
                yield f"{method}: {REPLICAS} seeds side by side are {plain / among:.1f} {than}{code}{axis}"
            if plain and (compiled := each.get(("compiled", REPLICAS))):
                yield f"{method}: {REPLICAS} seeds side by side, compiled, are {plain / compiled:.1f} {than}"

    def skipped(self, device: str) -> Iterator[str]:
        """What was not measured, and why."""
        for cost in self.devices[device]:
            if cost.skipped:
                shape = f"{cost.hidden_layers} x {cost.width}, {cost.feedback_updates} feedback updates"
                yield f"{cost.method}, {shape}, {cost.replicas} replicas: {cost.skipped}"

    def missing(self) -> Iterator[tuple[str, str]]:
        """What is not there, and the command that fills it."""
        if not self.devices:
            yield "no device was measured yet", command(self.plan, "study")
        again = f"{command(self.plan, 'study')} --again"
        for device in self.devices:
            for method in ROWS:
                for axis, values in AXES.items():
                    if axis == "feedback_updates" and not self._learns(method):
                        continue
                    present = {getattr(cost, axis) for cost in self._along(device, method, axis)}
                    absent = [str(value) for value in values if value not in present]
                    if absent:
                        yield f"{method} with {LABELS[axis]} {', '.join(absent)} on {device}", again
            absent = [row for row in BASELINE_ROWS if row not in {c.method for c in self.baselines(device)}]
            if absent:
                yield f"the eager baseline of {', '.join(absent)} on {device}", again

    def frame(self) -> pd.DataFrame:
        """One row a measurement, columns `costs.COLUMNS`."""
        return costs.frame([cost for measured in self.devices.values() for cost in measured])


def build(plan: Plan, store: Store) -> Scaling:
    """Read the study's measurements; `UserError` for damaged ones."""
    _, profile = profile_of(plan)
    network = plan.config.networks[plan.config.columns[profile.study].network]
    options = [plan.config.rows[row].all_options for row in ROWS if row in plan.config.rows]
    base = {
        "replicas": REPLICAS,
        "width": network.width,
        "hidden_layers": network.hidden_layers,
        "feedback_updates": max(option.get("feedback_updates", 0) for option in options),
    }
    return Scaling(plan, base, costs.read_all(store.root, "study"))


def show(scaling: Scaling, console: Console) -> None:
    """Print what was measured along each axis, and what the replica axis gains over the baselines."""
    console.print(scaling.heading, style="bold", markup=False)
    if scaling.warning:
        console.print(scaling.warning, style="bold", markup=False)
    for device in scaling.devices:
        grid = Grid("method", "varied", "", *QUANTITIES.values(), title=device)
        for axis, label in LABELS.items():
            for method in ROWS:
                for cost in scaling.line(device, method, axis):
                    grid.add_row(method, label, str(getattr(cost, axis)), *_cells(cost))
            grid.add_section()
        for cost in (*scaling.compiled(device), *scaling.baselines(device)):
            grid.add_row(cost.method, cost.implementation, str(cost.replicas), *_cells(cost))
        console.print(grid)
        for gain in scaling.gains(device):
            console.print(gain, markup=False)
        for reason in scaling.skipped(device):
            console.print(f"skipped: {reason}", markup=False)
    console.print(NOTE, markup=False)
    for what, how in scaling.missing():
        console.print(f"missing: {what}: {how}", markup=False)


def _cells(cost: Cost) -> list[str]:
    forms = {"seconds_per_epoch_and_replica": ".2f", "bound_share": ".0%", "peak_gib": ".3f"}
    values = [(getattr(cost, name), form) for name, form in forms.items()]
    return ["-" if value is None else format(value, form) for value, form in values]


def write(scaling: Scaling, folder: Path) -> list[Path]:
    """`scaling.png`, `scaling.pdf` and the numbers behind them; nothing where nothing was measured."""
    if not scaling.devices:
        return []
    with drawing.style():
        files = drawing.save(draw(scaling), folder, "scaling")
    table = scaling.frame().to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return files + write_texts(folder, "scaling", {"csv": table})


def draw(scaling: Scaling) -> Figure:
    """One column an axis; for every device a row each for time, share of the bound and memory."""
    rows = [(device, quantity) for device in scaling.devices for quantity in QUANTITIES]
    figure = Figure(figsize=(10, 0.8 + 2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(AXES), squeeze=False, sharey="row")
    for panels, (device, quantity) in zip(grid, rows, strict=True):
        for axes, axis in zip(panels, AXES, strict=True):
            _panel(axes, scaling, device, axis, quantity)
        panels[0].set_ylabel(QUANTITIES[quantity])
    for panels, device in zip(grid[:: len(QUANTITIES)], scaling.devices, strict=True):
        panels[0].set_title(device, loc="left", fontweight="bold")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(scaling.heading)
    if scaling.warning:
        drawing.watermark(figure, scaling.warning)
    return figure


def _panel(axes: Axes, scaling: Scaling, device: str, axis: str, quantity: str) -> None:
    colours = dict(zip(ROWS, sns.color_palette("colorblind"), strict=False))
    timed = quantity == "seconds_per_epoch_and_replica"
    for method in ROWS:
        line, colour = scaling.line(device, method, axis), colours[method]
        _plot(axes, line, axis, quantity, color=colour, marker=".", label=method)
        if timed:
            _plot(axes, line, axis, "bound_per_replica", color=colour, linestyle="--", linewidth=1)
    if timed:
        axes.plot([], [], color="grey", linestyle="--", linewidth=1, label="bound")
    apart = [*scaling.compiled(device), *scaling.baselines(device)]
    for cost in apart if axis == "replicas" else ():
        marker = MARKERS[cost.implementation]
        _plot(axes, [cost], axis, quantity, color=colours[cost.method], marker=marker, linestyle="")
    for implementation, marker in MARKERS.items():
        label = implementation if implementation == "compiled" else f"one seed, {implementation}"
        axes.plot([], [], color="grey", marker=marker, linestyle="", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(AXES[axis]), list(map(str, AXES[axis])))
    axes.minorticks_off()
    axes.set_xlabel(LABELS[axis])
    if quantity == "bound_share":
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    elif any(np.size(line.get_ydata()) for line in axes.get_lines()):  # of nothing there is no logarithm
        axes.set_yscale("log")


def _plot(axes: Axes, line: Sequence[Cost], axis: str, quantity: str, **how: Any) -> None:
    points = [(getattr(cost, axis), getattr(cost, quantity)) for cost in line]
    points = [(x, y) for x, y in points if y is not None]
    if points:
        axes.plot(*zip(*points, strict=True), **how)
