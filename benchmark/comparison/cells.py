"""Test errors of a plan's rows and columns from the store, each beside the paper's number and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmark.common.statistics import Comparison, Sample, Verdict, compare
from benchmark.config import PaperCell, PaperTable
from benchmark.store.record import StoredRun, check_same_images
from benchmark.store.store import Store
from benchmark.sweep.plan import Plan

LATE_EPOCHS = 20
"""At how many of the last epochs a verdict is tried again: test errors go up and down between epochs."""


def late_epochs(plan: Plan) -> str:
    """What is late in a plan's runs: `the last 20 epochs`."""
    epochs = plan.config.protocol.epochs
    if epochs > LATE_EPOCHS:
        return f"the last {LATE_EPOCHS} epochs"
    return f"all {epochs} epochs" if epochs > 1 else "the only epoch"


def kept_note(plan: Plan) -> str:
    """What `18 of 20 epochs` behind a verdict means."""
    late = min(LATE_EPOCHS, plan.config.protocol.epochs)
    kept = max(1, late - 2)
    return (
        f"({kept} of {late} epochs): of {late_epochs(plan)}, had training ended there, {kept} would have "
        "given the same verdict"
    )


@dataclass(frozen=True)
class Cell:
    """A row's test errors on a data set over its seeds, beside the paper's number (Tables 2 and 3)."""

    planned: bool
    command: str
    """What would train it."""
    key: str | None = None
    """Of the stored run; None where nothing is stored, as all numbers are absent then."""
    by_epoch: tuple[tuple[float, ...], ...] = ()
    """The test error of every seed, in per cent, after each epoch: (epochs, seeds)."""
    diverged: int = 0
    """Seeds whose numbers ended up not finite; they count like the others."""
    paper: PaperCell | None = None
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    """None where there is nothing to compare: no number of the paper, no margin, or another protocol."""
    kept: int = 0
    """After how many of the last epochs the verdict would have been the same, had training ended there."""

    @property
    def late(self) -> tuple[tuple[float, ...], ...]:
        """`by_epoch` of the last `LATE_EPOCHS`."""
        return self.by_epoch[-LATE_EPOCHS:]

    @property
    def errors(self) -> tuple[float, ...]:
        """The final test error of every seed, in per cent."""
        return self.by_epoch[-1] if self.by_epoch else ()

    @property
    def late_mean(self) -> float:
        """Over the seeds and the last epochs, in per cent."""
        return float(np.mean(self.late))

    @property
    def mean(self) -> float:
        return float(pd.Series(self.errors).mean())

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1) over the seeds, in points; NaN for one seed."""
        return float(pd.Series(self.errors).std(ddof=1))

    @property
    def value(self) -> str:
        """`2.81 ± 0.07`, `-` of what is not stored, `·` of what the plan does not have."""
        if not self.errors:
            return "-" if self.planned else "·"
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if len(self.errors) > 1 else "")

    @property
    def seeds(self) -> str:
        """`n=5`, and how many of them diverged."""
        diverged = f", {self.diverged} diverged" if self.diverged else ""
        return f"n={len(self.errors)}{diverged}"

    @property
    def apart(self) -> str:
        """Our difference to the paper's value, and where they are compared its interval."""
        if self.comparison is not None:
            return str(self.comparison)
        return f"{self.mean - self.paper.mean:+z.2f}" if self.errors and self.paper is not None else ""

    @property
    def beside(self) -> list[str]:
        """Lines: the paper's value, our difference to it with its interval, and the verdict."""
        if self.paper is None:
            return []
        line = f"paper {self.paper}"
        line += f", {self.apart}" if self.apart else ""
        return [line, *([str(self.verdict)] if self.verdict else [])]


def read_cells(plan: Plan, store: Store, paper: PaperTable) -> dict[tuple[str, str], Cell]:
    """Every cell of the plan, by row and column, not judged, beside the numbers of one of the paper's tables.

    `UserError` for a damaged run or mixed data.
    """
    cells = {}
    found: dict[str, list[StoredRun]] = {}
    for row, config in plan.config.rows.items():
        for column in plan.config.columns:
            run = plan.run(row, column)
            cells_of_row = paper.cells.get(config.paper_row or row, {})
            printed = cells_of_row.get(column) if plan.config.comparable else None
            stored = store.load(*run.keys) if run is not None else None
            command = plan.run_command(row, column)
            if run is None or stored is None:
                cells[row, column] = Cell(run is not None, command, paper=printed)
                continue
            found.setdefault(column, []).append(stored)
            cells[row, column] = Cell(
                planned=True,
                command=command,
                key=stored.record["key"],
                by_epoch=_by_epoch(stored),
                diverged=int(stored.final["diverged"].sum()),
                paper=printed,
            )
    for runs in found.values():
        check_same_images(runs)
    return cells


def missing(cells: Mapping[tuple[str, str], Cell], column: str) -> dict[str, str]:
    """The rows that a data set lacks though they are planned, and the commands that train them."""
    lacking = {row: cell for (row, where), cell in cells.items() if where == column and not cell.errors}
    return {row: cell.command for row, cell in lacking.items() if cell.planned}


def what_trains(cells: Mapping[tuple[str, str], Cell], plan: Plan, columns: Sequence[str]) -> list[str]:
    """One line on what trains the missing rows of these data sets; none where none is missing."""
    lacking = ",".join(column for column in columns if missing(cells, column))
    command = plan.command("--dataset", lacking)
    return [f"`{command}` trains what is not stored, `--method` a part of it."] if lacking else []


def judged(cells: dict[tuple[str, str], Cell], plan: Plan, paper_n: int) -> dict[tuple[str, str], Cell]:
    """The cells with comparisons and verdicts, where the plan's numbers may stand beside the paper's.

    Corrected over all cells that the plan has, trained or not. The paper's cells and the additions are
    separate families. `paper_n` is the number of seeds behind the paper's values.
    """
    if plan.warning:
        return cells
    margins = plan.config.margins
    papers = {p: cell.paper for p, cell in cells.items() if cell.planned and cell.paper and p[1] in margins}
    beside_us = {}
    for place, paper in papers.items():
        if len(cells[place].errors) > 1 and not cells[place].diverged:
            beside_us[place] = (Sample(paper.mean, paper.std, paper_n), margins[place[1]])
    families = [{p for p in papers if plan.config.is_addition(*p) is ours} for ours in (False, True)]
    by_epoch: list[dict[tuple[str, str], Comparison]] = []
    for back in range(1, min(LATE_EPOCHS, plan.config.protocol.epochs) + 1):
        pairs = {place: (Sample.of(cells[place].late[-back]), *beside) for place, beside in beside_us.items()}
        by_epoch.append({})
        for family in families:
            by_epoch[-1] |= compare({p: pairs[p] for p in pairs if p in family}, len(family))
    found = {}
    for place in papers:
        comparison = by_epoch[0].get(place)
        verdict = comparison.verdict if comparison else Verdict.INCOMPLETE
        kept = sum(other[place].verdict is verdict for other in by_epoch) if comparison else 0
        found[place] = replace(cells[place], comparison=comparison, verdict=verdict, kept=kept)
    return {**cells, **found}


def _by_epoch(stored: StoredRun) -> tuple[tuple[float, ...], ...]:
    """See `Cell.by_epoch`."""
    errors = stored.epochs.pivot(index="epoch", columns="seed", values="test_error")
    return tuple(tuple(map(float, line)) for line in errors.to_numpy())
