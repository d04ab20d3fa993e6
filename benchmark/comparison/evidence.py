"""The stored numbers that bear on the paper's claims."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pandas as pd

from benchmark.common.errors import UserError
from benchmark.comparison.cells import LATE_EPOCHS, Cell, read_cells
from benchmark.config import PaperTable
from benchmark.store.store import Store
from benchmark.studies.sensitivity.design import TRIALS, default_rows, study_command
from benchmark.studies.sensitivity.samples import read_samples
from benchmark.studies.timing import costs
from benchmark.studies.timing import points as timing_points
from benchmark.studies.timing.costs import Cost
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run


class NoData(Exception):
    """Says what is missing."""

    def __init__(self, what: str, *commands: str) -> None:
        super().__init__(what)
        self.what = what
        self.commands = commands
        """What gets it."""


class Evidence:
    """What the store has, by row and column of a plan; every method raises `NoData` for what is not there."""

    def __init__(self, plan: Plan, store: Store, paper: PaperTable) -> None:
        """`UserError` for damaged runs, and for a data set whose runs saw different images."""
        self.plan = plan
        self.store = store
        self.warning = plan.warning
        """Why nothing here may be held against the paper, if so."""
        self.cells = read_cells(plan, store, paper)
        self._jacobians: dict[str | None, pd.DataFrame | None] = {}
        self._back = 0

    def earlier(self, epochs: int) -> Evidence:
        """What the test errors would have been, had training ended so many epochs before."""
        found = copy.copy(self)
        found._back += epochs
        return found

    @property
    def late(self) -> int:
        """How many of the last epochs a verdict is tried at."""
        return min(LATE_EPOCHS, self.plan.config.protocol.epochs)

    def columns(self, claimed: Sequence[str]) -> list[str]:
        """Where to check a claim: on its data sets.

        On all of a plan that has none of them, if nothing of it is held against the paper.
        """
        own = self.plan.config.columns
        return list(claimed if self.plan.config.comparable or set(claimed) & set(own) else own)

    def title(self, column: str) -> str:
        return self.plan.datasets[column].title

    def margin(self, column: str) -> float:
        """Points of test error that do not matter."""
        if column not in self.plan.config.margins:
            raise NoData(f"the plan declares no margin for {self.title(column)}")
        return self.plan.config.margins[column]

    def errors(self, row: str, column: str) -> tuple[float, ...]:
        """Test error in % of every seed after the last epoch, or `earlier`."""
        return self._stored(row, column).by_epoch[-1 - self._back]

    def diverged(self, row: str, column: str) -> str:
        """`1 of BP diverged`; empty without any."""
        count = self._stored(row, column).diverged
        return f"{count} of {row} diverged" if count else ""

    def remarks(self, row: str, column: str) -> str:
        """What a reader of a run's numbers should know, to be put behind them."""
        used = self.plan.config.hyperparameters(row, column)
        said = f", {diverged}" if (diverged := self.diverged(row, column)) else ""
        return said + (f", hyperparameters of {row} guessed" if used and used.source == "guess" else "")

    def jacobians(self, row: str, column: str) -> pd.DataFrame:
        """What `jacobian.spectrum` measured in the released convention: epoch, seed, encoder and the rest."""
        key = self._stored(row, column).key
        if key not in self._jacobians:
            stored = self.store.load(key) if key else None
            self._jacobians[key] = stored.measured.get("jacobian") if stored else None
        measured = self._jacobians[key]
        if measured is None:
            planned = "jacobian" in self._planned(row, column).measure
            what = f"the Jacobians of {row} on {self.title(column)}"
            how = [self.cells[row, column].command] if planned else []
            raise NoData(f"{'not stored are' if planned else 'the plan does not measure'} {what}", *how)
        return measured[measured["statistics"] == "sample"]

    def accuracies(self, row: str, column: str) -> pd.Series[float]:
        """Test accuracy in % of every configuration of the sensitivity study, none missing."""
        self._planned(row, column)
        # Together, so that studies of different images are refused.
        together = [other for other in default_rows(self.plan) if self.plan.run(other, column) is not None]
        rows = together if row in together else [row]
        samples = read_samples(self.plan, self.store, rows, column)
        sample = next(sample for sample in samples if sample.row == row)
        if len(sample.trials) < TRIALS:
            there = f"{len(sample.trials)} of {TRIALS} configurations"
            raise NoData(
                f"{there} of {row} on {self.title(column)} are stored",
                study_command(self.plan, sample.design),
            )
        return sample.accuracy

    def timed(self, row: str, column: str) -> dict[str, Cost]:
        """What an epoch of one replica costs, by device, as in Table 3."""
        run = self._planned(row, column)
        found = {
            device: cost
            for device, measured in costs.read_all(self.store.root).items()
            for cost in measured
            if cost.fits(run) and cost.replicas == 1 and cost.time is not None
        }
        if not found:
            try:
                command = timing_points.command(self.plan)
            except UserError as error:  # a plan of one's own
                raise NoData(str(error)) from None
            raise NoData(f"{row} on {self.title(column)} is not timed", command)
        return found

    def _planned(self, row: str, column: str) -> Run:
        run = self.plan.run(row, column) if (row, column) in self.cells else None
        if run is None:
            raise NoData(f"the plan has no {row} on {self.title(column)}")
        return run

    def _stored(self, row: str, column: str) -> Cell:
        self._planned(row, column)
        cell = self.cells[row, column]
        if not cell.errors:
            raise NoData(f"{row} on {self.title(column)} is not stored", cell.command)
        return cell
