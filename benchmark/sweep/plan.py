"""A plan under the options of one command: its runs, the names of its files, its commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.config import DatasetConfig, PlanConfig
from benchmark.engine.settings import Precision
from benchmark.store.record import key_of
from benchmark.sweep.run import Run

NOT_COMPARABLE = "NOT COMPARABLE WITH THE PAPER: another data set, network or protocol, or as the plan says."


@dataclass(frozen=True)
class Plan:
    """A plan under the options of one command."""

    config: PlanConfig
    datasets: Mapping[str, DatasetConfig]
    source: str
    """The plan's name or path as given on the command line."""
    suffix: str = ""
    """The end of file names if a command changes seeds or epochs."""
    changes: tuple[str, ...] = ()
    """The options of the command that change the protocol."""
    options: tuple[str, ...] = ()
    """The other options that decide where a run is stored."""

    @property
    def name(self) -> str:
        """The name of the plan in file names: `table2-deeper-5-epochs`."""
        return Path(self.source).stem + self.suffix

    @property
    def guest(self) -> str:
        """The plan's name if its results are in the folder of another plan, else empty."""
        name = Path(self.source).stem
        owner = Path(self.config.directory).name or "table2"
        return "" if name == owner else name

    def file_name(self, report: str) -> str:
        """The name of a report's files, different for each plan, choice of seeds and number of epochs."""
        return (f"{report}-{self.guest}" if self.guest else report) + self.suffix

    @property
    def protocol(self) -> str:
        """The protocol in words: `100 epochs, seeds 1, 2, 3`."""
        protocol = self.config.protocol
        return f"{protocol.epochs} epochs, seeds {', '.join(map(str, sorted(protocol.seeds)))}"

    @property
    def heading(self) -> str:
        """Title and protocol."""
        return f"{self.config.title}: {self.protocol}"

    @property
    def warning(self) -> str | None:
        """Why the numbers cannot be compared with the paper's, or None."""
        if not self.config.comparable:
            return NOT_COMPARABLE
        return f"NOT THE PAPER'S PROTOCOL: {shlex.join(self.changes)}" if self.changes else None

    def label(self, row: str) -> str:
        """The name of a row in tables; in brackets if the row is not in the paper."""
        return f"[{row}]" if self.config.rows[row].addition else row

    def title(self, column: str) -> str:
        """The name of a data set in tables; in brackets if it is not in the paper."""
        name = self.datasets[column].title
        return f"[{name}]" if self.config.columns[column].addition else name

    def command(self, *chosen: str) -> str:
        """The command that trains the plan, or the part of it that the given options choose."""
        return "python -m benchmark run " + shlex.join([self.source, *chosen, *self.changes, *self.options])

    def run_command(self, row: str, column: str) -> str:
        """The command that trains a row on a data set."""
        return self.command("--method", row, "--dataset", column)

    def run(self, row: str, column: str) -> Run | None:
        """The run of a row on a data set, or None if the plan has no hyperparameters for it."""
        given = self.config.hyperparameters(row, column)
        return None if given is None else self.run_with(row, column, given.values)

    def run_with(self, row: str, column: str, hyperparameters: Mapping[str, float]) -> Run:
        """The run of a row on a data set with these hyperparameters."""
        given = self.config.hyperparameters(row, column)
        config, dataset = self.config.rows[row], self.datasets[column]
        protocol = self.config.protocol
        return Run(
            row=row,
            column=column,
            method=config.method,
            options={**config.all_options, **(given.options if given else {})},
            hyperparameters=dict(hyperparameters),
            dims=self.config.dims(row, column, dataset),
            seeds=sorted(protocol.seeds),
            epochs=protocol.epochs,
            batch_size=protocol.batch_size,
            precision=protocol.precision,
            image=list(dataset.image),
            checksum=dataset.checksum,
            measure=tuple(self.config.measured(row, column)),
        )

    def runs(self, rows: Sequence[str], columns: Sequence[str]) -> list[Run]:
        """The runs of these rows on these data sets, sorted by data set."""
        found = (self.run(row, column) for column in columns for row in rows)
        return [run for run in found if run is not None]

    def with_protocol(
        self, seeds: Sequence[int] | None, epochs: int | None, precision: Precision | None = None
    ) -> Plan:
        """The plan with other seeds, epochs or precision. Files of other seeds or epochs get other names."""
        protocol = self.config.protocol
        update: dict[str, Any] = {}
        suffix, changes = self.suffix, dict(zip(self.changes[::2], self.changes[1::2], strict=True))
        if seeds is not None and (seeds := sorted(seeds)) != sorted(protocol.seeds):
            update["seeds"] = seeds
            listed = "-".join(map(str, seeds))
            if len(listed) > 60:  # a file name has 255 bytes
                listed = f"{len(seeds)}-{key_of({'seeds': list(seeds)})}"
            suffix += f"-seeds-{listed}"
            changes.pop("--seeds", None)  # a changed option stands last
            changes["--seeds"] = ",".join(map(str, seeds))
        if epochs is not None and epochs != protocol.epochs:
            update["epochs"] = epochs
            suffix += f"-{epochs}-epochs"
            changes["--epochs"] = str(epochs)
        if precision is not None and precision != protocol.precision:
            update["precision"] = precision
            changes["--precision"] = precision.value
        config = self.config.model_copy(update={"protocol": protocol.model_copy(update=update)})
        given = tuple(word for option in changes.items() for word in option)
        return replace(self, config=config, suffix=suffix, changes=given)
