"""Test errors of a plan's rows and columns from the store, each beside the paper's number and judged."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmark.config import PaperCell, PaperTable
from benchmark.results import Store, StoredRun, check_same_images
from benchmark.statistics import Comparison, Sample, Verdict, compare
from benchmark.sweep import Plan

LATE_EPOCHS = 20
"""At how many of the last epochs a verdict is tried again: test errors go up and down between epochs."""
NOT_COMPARABLE = "NOT COMPARABLE WITH THE PAPER: another data set, network or protocol."


@dataclass(frozen=True)
class Cell:
    """One row on one data set."""

    planned: bool
    command: str
    """What would train it."""
    key: str | None = None
    late: tuple[tuple[float, ...], ...] = ()
    """The test error of every seed, in per cent, after each of the last `LATE_EPOCHS` epochs, in their order;
    empty where nothing is stored."""
    diverged: int = 0
    """Seeds whose numbers ended up not finite; they count like the others."""
    paper: PaperCell | None = None
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    """None where there is nothing to compare: no number of the paper, no margin, or another protocol."""
    kept: int = 0
    """After how many of the last epochs the verdict would have been the same, had training ended there."""

    @property
    def errors(self) -> tuple[float, ...]:
        """The final test error of every seed, in per cent; empty where nothing is stored."""
        return self.late[-1] if self.late else ()

    @property
    def late_mean(self) -> float:
        """Over the seeds and the last epochs."""
        return float(np.mean(self.late))

    @property
    def mean(self) -> float:
        return float(pd.Series(self.errors).mean())

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1); NaN for one seed."""
        return float(pd.Series(self.errors).std(ddof=1))

    @property
    def value(self) -> str:
        """`2.81 ± 0.07`, or `-`."""
        if not self.errors:
            return "-" if self.planned else "·"
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if len(self.errors) > 1 else "")

    @property
    def seeds(self) -> str:
        """`n=5`, and how many of them diverged."""
        return f"n={len(self.errors)}" + (f", {self.diverged} diverged" if self.diverged else "")

    @property
    def beside(self) -> list[str]:
        """The paper's value and our difference to it with its interval, and the verdict: lines of text."""
        if self.paper is None:
            return []
        line = f"paper {self.paper.mean:.2f} ± {self.paper.std:.2f}"
        if self.errors:
            line += f", {self.mean - self.paper.mean:+.2f}"
        if self.comparison is not None:
            low, high = self.comparison.interval
            line += f" [{low:+.2f}, {high:+.2f}]"
        return [line, *([self.judged] if self.verdict else [])]

    @property
    def judged(self) -> str:
        """The verdict, and how firm it is."""
        firmness = f" ({'; '.join(self.firmness)})" if self.firmness else ""
        return f"{self.verdict or ''}{firmness}"

    @property
    def firmness(self) -> list[str]:
        """How many of the last epochs bear the verdict out, what it would be without the correction if that
        is another, and of one that says nothing even so the power."""
        if self.comparison is None:
            return []
        details = [f"{self.kept} of {len(self.late)} epochs"]
        if self.comparison.alone is not self.verdict:
            details.append(f"alone {self.comparison.alone}")
        if self.verdict is Verdict.INCONCLUSIVE and self.comparison.alone is not Verdict.DIFFERENT:
            power, corrected = self.comparison.power, self.comparison.corrected_power
            details.append(f"power to show equivalence {power:.0%}, corrected {corrected:.0%}")
        return details


def heading(plan: Plan) -> str:
    """A plan's title and protocol."""
    protocol = plan.config.protocol
    seeds = ", ".join(map(str, sorted(protocol.seeds)))
    return f"{plan.config.title}: {protocol.epochs} epochs, seeds {seeds}"


def warning(plan: Plan) -> str | None:
    """Why a plan's numbers may not stand beside the paper's, if so."""
    if not plan.config.comparable:
        return NOT_COMPARABLE
    if plan.changes:
        return f"NOT THE PAPER'S PROTOCOL: {shlex.join(plan.changes)}"
    return None


def read_cells(plan: Plan, store: Store, paper: PaperTable) -> dict[tuple[str, str], Cell]:
    """Every cell of the plan, by row and column; `UserError` for a damaged run or mixed data."""
    cells = {}
    found: dict[str, list[StoredRun]] = {}
    for row, config in plan.config.rows.items():
        for column in plan.config.columns:
            run = plan.run(row, column)
            cells_of_row = paper.cells.get(config.paper_row or row, {})
            printed = cells_of_row.get(column) if plan.config.comparable else None
            stored = store.load(run.key, run.unmeasured.key) if run is not None else None
            command = run_command(plan, row, column)
            if run is None or stored is None:
                cells[row, column] = Cell(run is not None, command, paper=printed)
                continue
            found.setdefault(column, []).append(stored)
            cells[row, column] = Cell(
                planned=True,
                command=command,
                key=stored.record["key"],
                late=_late(stored),
                diverged=int(stored.final["diverged"].sum()),
                paper=printed,
            )
    for runs in found.values():
        check_same_images(runs)
    return _judged(cells, plan, paper.n)


def _judged(cells: dict[tuple[str, str], Cell], plan: Plan, paper_n: int) -> dict[tuple[str, str], Cell]:
    """The cells with comparisons and verdicts, where the plan's numbers may stand beside the paper's."""
    if warning(plan):
        return cells
    margins = plan.config.margins
    places = [place for place, cell in cells.items() if cell.planned and cell.paper and place[1] in margins]
    beside_us = {}
    for place in places:
        cell = cells[place]
        if cell.paper and len(cell.errors) > 1 and not cell.diverged:
            beside_us[place] = (Sample(cell.paper.mean, cell.paper.std, paper_n), margins[place[1]])
    is_addition = plan.config.is_addition
    families = [[place for place in beside_us if is_addition(*place) is ours] for ours in (False, True)]
    by_epoch: list[dict[tuple[str, str], Comparison]] = []
    for back in range(1, min(LATE_EPOCHS, plan.config.protocol.epochs) + 1):
        pairs = {place: (Sample.of(cells[place].late[-back]), *beside) for place, beside in beside_us.items()}
        by_epoch.append({})
        for family in families:
            by_epoch[-1] |= compare({place: pairs[place] for place in family})
    judged = {}
    for place in places:
        comparison = by_epoch[0].get(place)
        verdict = comparison.verdict if comparison else Verdict.INCOMPLETE
        kept = sum(other[place].verdict is verdict for other in by_epoch) if comparison else 0
        judged[place] = replace(cells[place], comparison=comparison, verdict=verdict, kept=kept)
    return {**cells, **judged}


def _late(stored: StoredRun) -> tuple[tuple[float, ...], ...]:
    """See `Cell.late`."""
    errors = stored.epochs.pivot(index="epoch", columns="seed", values="test_error").tail(LATE_EPOCHS)
    return tuple(tuple(map(float, line)) for line in errors.to_numpy())


def run_command(plan: Plan, row: str, column: str) -> str:
    """What trains a row on a column."""
    words = [plan.source, "--method", row, "--dataset", column, *plan.changes, *plan.options]
    return "python -m benchmark run " + shlex.join(words)
