"""Figure 3: test accuracies under random hyperparameters, and how sensitive to them each method is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from benchmark.common.errors import UserError
from benchmark.engine.settings import Precision
from benchmark.report import drawing, latex, markdown
from benchmark.report.files import write_texts
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import (
    COLUMN,
    FACTOR,
    ROWS,
    SEED,
    TRIALS,
    check,
    default_column,
    default_epochs,
    default_rows,
    default_storage,
    stored,
    study_command,
)
from benchmark.studies.sensitivity.samples import FEWEST, NEAR, Sample, read_samples
from benchmark.sweep.plan import NOT_COMPARABLE, Plan

BIN_WIDTH = 2.0
"""Of the histogram, in points of test accuracy."""
NOTE = (
    "Test accuracy in % after the last epoch, one network a configuration, all from the same seed. Every "
    f"hyperparameter is drawn log-uniformly between 1/{FACTOR:g} and {FACTOR:g} times its value in the plan. "
    f"near best: share of a method's configurations within {NEAR:g} points of its own best. shortfall: how "
    "far, in points, their mean is behind what one configuration in twenty reaches, with its 95 % bootstrap "
    "interval. Importance: "
    "share of the variance of the accuracy that a hyperparameter explains by itself, relative to the others "
    "(fANOVA in the logarithms). Shortfall and importance are not "
    f"given for fewer than {FEWEST} configurations. Diverged configurations count, with the chance-level "
    "accuracy they end at."
)


@dataclass(frozen=True)
class Figure3:
    """The figure as data."""

    plan: Plan
    column: str
    trials: int
    """Configurations asked for, a method."""
    samples: list[Sample]
    shared_storage: bool

    @property
    def epochs(self) -> int:
        return self.samples[0].design.run.epochs

    @property
    def seed(self) -> int:
        return self.samples[0].design.run.seeds[0]

    @property
    def name(self) -> str:
        """Of its files: what is not the plan's own study has a name of its own."""
        changes = []
        if [sample.row for sample in self.samples] != default_rows(self.plan):
            changes += [slug(sample.row) for sample in self.samples]
        if self.column != default_column(self.plan):
            changes.append(slug(self.column))
        if self.epochs != default_epochs(self.plan):
            changes.append(f"{self.epochs}-epochs")
        if self.trials != TRIALS:
            changes.append(f"{self.trials}-trials")
        if self.seed != SEED:
            changes.append(f"seed-{self.seed}")
        if "--precision" not in self.plan.changes:
            changes += self._precision
        return "-".join([self.plan.file_name("figure3"), *changes])

    @property
    def _precision(self) -> list[str]:
        """Where it is not the highest."""
        found = self.samples[0].design.run.precision
        return [] if found is Precision.HIGHEST else [found.value]

    @property
    def title(self) -> str:
        """`Figure 3`, and in brackets what sets it apart from the plan's own."""
        apart = []
        if [sample.row for sample in self.samples] != default_rows(self.plan):
            apart.append(", ".join(sample.row for sample in self.samples))
        if self.column != default_column(self.plan):
            apart.append(self.plan.datasets[self.column].title)
        if self.epochs != default_epochs(self.plan):
            apart.append(f"{self.epochs} epochs")
        if self.trials != TRIALS:
            apart.append(f"{self.trials} configurations")
        if self.seed != SEED:
            apart.append(f"seed {self.seed}")
        apart += self._precision
        return f"Figure 3 ({', '.join(apart)})" if apart else "Figure 3"

    @property
    def heading(self) -> str:
        """Data set and protocol."""
        title = self.plan.datasets[self.column].title
        return (
            f"Hyperparameter sensitivity on {title}: {self.epochs} epochs, {self.trials} configurations"
            + (f", seed {self.seed}" if self.seed != SEED else "")
        )

    @property
    def warning(self) -> str | None:
        """Why it may not stand beside the paper's figure, if so."""
        if not self.plan.config.comparable:
            return NOT_COMPARABLE
        reasons = []
        if self.column != COLUMN:
            reasons.append("another data set")
        if self.epochs != default_epochs(self.plan):
            reasons.append(f"{self.epochs} epochs instead of {default_epochs(self.plan)}")
        if self.trials != TRIALS:
            reasons.append(f"{self.trials} configurations instead of {TRIALS}")
        if [sample.row for sample in self.samples] != list(ROWS):
            reasons.append("other methods")
        reasons += self._precision
        return f"NOT THE PAPER'S FIGURE 3: {', '.join(reasons)}" if reasons else None

    def label(self, sample: Sample) -> str:
        """`DTP (n=100)`, or how many there are of how many."""
        n = len(sample.trials)
        return f"{sample.row} (n={n})" if n == self.trials else f"{sample.row} ({n} of {self.trials})"

    def missing(self) -> list[str]:
        """Commands that fill what is missing."""
        return [self.command(sample) for sample in self.samples if len(sample.trials) < self.trials]

    def command(self, sample: Sample) -> str:
        """What trains the configurations of a method that are missing."""
        return study_command(self.plan, sample.design, trials=self.trials, shared_storage=self.shared_storage)

    def frame(self) -> pd.DataFrame:
        """One row a method: number, best, median and other statistics of its accuracies, importances."""
        return pd.DataFrame([self._statistics(sample) for sample in self.samples])

    def _statistics(self, sample: Sample) -> dict[str, Any]:
        n = len(sample.trials)
        first, median, third = sample.quartiles if n else (None, None, None)
        fallen, low, high = sample.shortfall or (None, None, None)
        found: dict[str, Any] = {
            "method": sample.row,
            "dataset": self.column,
            "epochs": self.epochs,
            "n": n,
            "of": self.trials,
            "diverged": int(sample.trials["diverged"].sum()),
            "best": sample.accuracy.max() if n else None,
            "median": median,
            "first_quartile": first,
            "third_quartile": third,
            "iqr": third - first if first is not None and third is not None else None,
            "worst": sample.accuracy.min() if n else None,
            "near_best": sample.near_best if n else None,
            "shortfall": fallen,
            "shortfall_low": low,
            "shortfall_high": high,
        }
        return found | {f"importance_{name}": value for name, value in sample.importances.items()}

    def all_trials(self) -> pd.DataFrame:
        """Every complete configuration of every method, with its hyperparameters."""
        tables = [sample.trials.assign(method=sample.row) for sample in self.samples]
        names = dict.fromkeys(name for sample in self.samples for name in sample.design.centre)
        return pd.concat(tables)[["method", "index", *names, "accuracy", "diverged"]]


def build(
    plan: Plan,
    store: Store,
    *,
    rows: Sequence[str] | None = None,
    column: str | None = None,
    epochs: int | None = None,
    seed: int = SEED,
    trials: int = TRIALS,
    storage: str | None = None,
) -> Figure3:
    """Read the studies: by default those of the paper's two methods, beside the store's runs.

    `UserError` for studies of another design, for foreign trials, and for methods trained on different data.
    """
    column = column or default_column(plan)
    samples = read_samples(
        plan,
        store,
        rows or default_rows(plan),
        column,
        epochs=epochs,
        seed=seed,
        trials=trials,
        storage=storage,
    )
    return Figure3(plan, column, trials, samples, storage is not None)


def build_others(plan: Plan, store: Store) -> tuple[list[Figure3], list[str]]:
    """The same of every other data set, length and seed that the store has studies of, and once more with all
    methods where there are others than the paper's two; and why studies are left out, made with other
    hyperparameters than the plan has now, say.
    """
    own = (default_column(plan), default_epochs(plan), SEED)
    url = default_storage(store)
    asked = stored(plan, url)
    found: dict[tuple[str, int, int], dict[str, int]] = {}  # the configurations asked for, by row
    stale, left_out = set(), []
    for design, study in zip(asked, optuna_storage.read_studies(url, [d.name for d in asked]), strict=True):
        assert study is not None
        place = (design.run.column, design.run.epochs, design.run.seeds[0])
        try:
            check(design, study)
        except UserError as error:
            stale.add((place, design.run.row))
            left_out.append(str(error))
        else:
            found.setdefault(place, {})[design.run.row] = study.user_attrs.get("trials", TRIALS)
    figures = []
    for place, trials in sorted(found.items()):
        column, epochs, seed = place
        pair = [row for row in default_rows(plan) if plan.run(row, column) and (place, row) not in stale]
        wanted = [] if place == own or not set(pair) & set(trials) else [pair]
        if not set(trials) <= set(pair):
            wanted.append([row for row in plan.config.rows if row in trials])
        for rows in wanted:
            most = max(trials.get(row, 1) for row in rows)
            try:
                figure = build(plan, store, rows=rows, column=column, epochs=epochs, seed=seed, trials=most)
                figures.append(figure)
            except UserError as error:
                left_out.append(str(error))
    return figures, left_out


def show(figure: Figure3, console: Console) -> None:
    """Print the statistics, and what would fill what is missing."""
    lines = cells(figure)
    grid = Grid(title=escape(figure.heading))
    for number, name in enumerate(lines[0]):
        grid.add_column(name, justify="right" if number else "left")
    for line in lines:
        grid.add_row(*(escape(cell) for cell in line.values()))
    console.print(grid)
    if figure.warning:
        console.print(figure.warning, style="bold", markup=False)
    console.print(NOTE, markup=False)
    if commands := figure.missing():
        console.print("What is missing is filled by:", markup=False)
        for command in commands:
            console.print(f"  {command}", markup=False)


def cells(figure: Figure3) -> list[dict[str, str]]:
    """The statistics as a person reads them, one mapping a method."""
    lines = []
    for sample in figure.samples:
        n = len(sample.trials)
        first, median, third = sample.quartiles if n else (math.nan,) * 3
        diverged = int(sample.trials["diverged"].sum())
        count = f"{n} of {figure.trials}" + (f", {diverged} diverged" if diverged else "")
        short = "{:.2f} [{:.2f}, {:.2f}]".format(*sample.shortfall) if sample.shortfall else "-"
        important = sorted(sample.importances.items(), key=lambda item: -item[1])
        lines.append(
            {
                "method": sample.row,
                "configurations": count,
                "best": f"{sample.accuracy.max():.2f}" if n else "-",
                "median": f"{median:.2f}" if n else "-",
                "IQR": f"{third - first:.2f} ({first:.2f} to {third:.2f})" if n else "-",
                "near best": f"{sample.near_best:.0%}" if n else "-",
                "shortfall": short,
                "importance": ", ".join(f"{name} {share:.0%}" for name, share in important) or "-",
            }
        )
    return lines


def write(figure: Figure3, figures: Path, tables: Path) -> list[Path]:
    """Histogram and cumulative distribution into `figures`, if there is anything to draw; statistics and
    trials into `tables`."""
    files = []
    if any(len(sample.trials) for sample in figure.samples):
        with drawing.style():
            files += drawing.save(_drawn(figure, _histogram), figures, figure.name)
            files += drawing.save(_drawn(figure, _cumulative), figures, f"{figure.name}-ecdf")
    csv = figure.frame().round(4).to_csv(index=False, lineterminator="\n")
    texts = {"md": _markdown(figure), "csv": csv, "tex": _latex(figure)}
    trials = figure.all_trials().to_csv(index=False, lineterminator="\n")
    files += write_texts(tables, figure.name, texts)
    return files + write_texts(tables, f"{figure.name}-configurations", {"csv": trials})


def _drawn(figure: Figure3, draw: Any) -> Figure:
    canvas = Figure(figsize=(drawing.PAGE_WIDTH * 0.75, 3.2), layout="constrained")
    axes = canvas.subplots()
    tables = [sample.trials.assign(method=figure.label(sample)) for sample in figure.samples]
    data = pd.concat(tables)[["method", "accuracy"]]
    if len(data):
        draw(axes, data, [figure.label(sample) for sample in figure.samples])
    else:
        axes.text(0.5, 0.5, "no configuration stored", ha="center", transform=axes.transAxes)
    axes.set_xlabel("test accuracy (%)")
    title = f"{figure.plan.datasets[figure.column].title}, {figure.epochs} epochs"
    if figure.warning and figure.plan.config.comparable:
        title = f"{title}\n{textwrap.fill(figure.warning, 72)}"
    axes.set_title(title, fontsize="medium")
    seaborn.despine(ax=axes)
    if not figure.plan.config.comparable:
        drawing.watermark(canvas, NOT_COMPARABLE)
    return canvas


def _histogram(axes: Axes, data: pd.DataFrame, labels: Sequence[str]) -> None:
    """Counts over test accuracy, the same bins for every method."""
    lowest, highest = data["accuracy"].min(), data["accuracy"].max()
    first, last = math.floor(lowest / BIN_WIDTH), math.floor(highest / BIN_WIDTH) + 1
    edges = BIN_WIDTH * np.arange(first, last + 1)
    seaborn.histplot(data, x="accuracy", hue="method", hue_order=labels, bins=edges, alpha=0.5, ax=axes)
    _plain_legend(axes)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("count")


def _cumulative(axes: Axes, data: pd.DataFrame, labels: Sequence[str]) -> None:
    """The share of configurations at or below a test accuracy."""
    seaborn.ecdfplot(data, x="accuracy", hue="method", hue_order=labels, ax=axes)
    _plain_legend(axes)
    axes.set_ylabel("share of configurations")


def _plain_legend(axes: Axes) -> None:
    legend = axes.get_legend()
    assert legend is not None
    legend.set_title("")


def _markdown(figure: Figure3) -> str:
    lines = cells(figure)
    text = markdown.title(figure.heading, figure.warning)
    text += [*markdown.table(list(lines[0]), [list(line.values()) for line in lines]), "", NOTE]
    if commands := figure.missing():
        text += ["", "What is missing, and what fills it:", "", *(f"- `{command}`" for command in commands)]
    return "\n".join(text) + "\n"


def _latex(figure: Figure3) -> str:
    table = pd.DataFrame(cells(figure)).to_latex(index=False, escape=True)
    return "\n".join([*latex.preamble(f"{figure.heading}. {NOTE}", figure.warning), table])
