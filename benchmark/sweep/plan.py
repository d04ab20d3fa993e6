"""From a plan to its runs: a row on a data set with all its seeds, and what makes it another one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmark.config import DatasetConfig, PlanConfig
from benchmark.engine import flops
from benchmark.engine.measurements import MEASUREMENTS
from benchmark.engine.precision import Precision
from benchmark.engine.training import SEMANTICS
from benchmark.methods import METHODS, Method, build
from benchmark.store.record import key_of


@dataclass(frozen=True)
class Run:
    """One row on one data set with all its seeds as replicas."""

    row: str
    column: str
    method: str
    options: dict[str, Any]
    hyperparameters: Mapping[str, float | list[float]]
    """One number for all replicas, or one a replica."""
    dims: list[int]
    seeds: list[int]
    """One a replica, in rising order: the order of the replicas changes nothing."""
    epochs: int
    batch_size: int
    precision: Precision
    image: list[int]
    checksum: str | None
    """Of the data set's content, where `datasets.yaml` declares one."""
    measure: tuple[str, ...] = ()
    """The measurements taken during training: see `measurements.py`."""

    @property
    def spec(self) -> dict[str, Any]:
        """Everything that can change the numbers."""
        spec = {
            "semantics": SEMANTICS,
            "method": self.method,
            "version": METHODS[self.method].version,
            "options": self.options,
            "hyperparameters": dict(self.hyperparameters),
            "dims": self.dims,
            "dataset": {"name": self.column, "image": self.image, "checksum": self.checksum},
            "seeds": self.seeds,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "precision": "float32" if self.precision is Precision.HIGHEST else self.precision.value,
        }
        if self.measure:
            spec["measure"] = {name: MEASUREMENTS[name].version for name in self.measure}
        return spec

    @classmethod
    def of(cls, row: str, spec: Mapping[str, Any]) -> Run:
        """The run of a specification that this code made; what it measures besides left out."""
        return cls(
            row=row,
            column=spec["dataset"]["name"],
            method=spec["method"],
            options=spec["options"],
            hyperparameters=spec["hyperparameters"],
            dims=spec["dims"],
            seeds=spec["seeds"],
            epochs=spec["epochs"],
            batch_size=spec["batch_size"],
            precision=Precision.HIGHEST if spec["precision"] == "float32" else Precision(spec["precision"]),
            image=spec["dataset"]["image"],
            checksum=spec["dataset"]["checksum"],
        )

    @property
    def key(self) -> str:
        return key_of(self.spec)

    @property
    def unmeasured(self) -> Run:
        """The run that trains the same and measures nothing besides: its errors are this one's."""
        return replace(self, measure=())

    @property
    def keys(self) -> list[str]:
        """Of the stored runs that have its errors, its own first."""
        return list(dict.fromkeys((self.key, self.unmeasured.key)))

    @property
    def total_epochs(self) -> int:
        """Epochs, feedback pre-training included."""
        return self.epochs + METHODS[self.method].pretraining_epochs(self.options)

    def passes(self, size: int) -> list[Run]:
        """The run in parts of `size` replicas, the last one with what is left."""
        parts = []
        for first in range(0, len(self.seeds), size):
            window = slice(first, first + size)
            values = {
                name: value[window] if isinstance(value, list) else value
                for name, value in self.hyperparameters.items()
            }
            parts.append(replace(self, seeds=self.seeds[window], hyperparameters=values))
        return parts

    def epochs_done(self, size: int, number: int, completed: int) -> float:
        """The mean over all replicas once pass `number` (from 0) of `size` replicas has completed so many."""
        part = self.seeds[number * size : (number + 1) * size]
        return (number * size * self.total_epochs + len(part) * completed) / len(self.seeds)

    def multiply_adds(self, samples: int) -> float | None:
        """Multiply-adds of all epochs, without pre-training. None if they cannot be counted."""
        per_sample = flops.multiply_adds(METHODS[self.method], self.dims, self.options)
        return None if per_sample is None else float(per_sample) * samples * self.epochs * len(self.seeds)

    def build(self, device: torch.device | str) -> Method:
        """The method on freshly initialised networks."""
        method = METHODS[self.method]
        return build(method, self.dims, self.seeds, self.hyperparameters, self.options, device=device)


REPORTS = (
    "table1",
    "table2",
    "table3",
    "figure2",
    "figure3",
    "claims",
    "differences",
    "curves",
    "scaling",
    "runs",
    "report",
)
"""How the files begin that reports on a plan write; Table 2's begin with the plan's name."""
CHANGED = re.compile(r"(^|-)(seeds-\d[\da-f-]*|\d+-epochs|" + "|".join(Precision) + r")$")
"""How they end where a command changes the protocol: see `Plan.with_protocol`."""


NOT_COMPARABLE = "NOT COMPARABLE WITH THE PAPER: another data set, network or protocol, or as the plan says."


@dataclass(frozen=True)
class Plan:
    """A plan under the settings of one command."""

    name: str
    """Of its tables: tells those of a changed protocol from those of the plan as written."""
    config: PlanConfig
    datasets: Mapping[str, DatasetConfig]
    source: str
    """The plan as a command names it."""
    changes: tuple[str, ...] = ()
    """The options of a command that change the protocol."""
    options: tuple[str, ...] = ()
    """Its other options that decide where a run is stored."""

    @property
    def guest(self) -> str:
        """The plan's name, where the folder of its results is another plan's: table2's, or its namesake's."""
        written = Path(self.source).stem
        owner = Path(self.config.directory).name or "table2"
        return "" if written == owner else written

    @property
    def protocol(self) -> str:
        """`100 epochs, seeds 1, 2, 3`."""
        protocol = self.config.protocol
        return f"{protocol.epochs} epochs, seeds {', '.join(map(str, sorted(protocol.seeds)))}"

    @property
    def heading(self) -> str:
        """Title and protocol."""
        return f"{self.config.title}: {self.protocol}"

    @property
    def warning(self) -> str | None:
        """Why its numbers may not stand beside the paper's, if so."""
        if not self.config.comparable:
            return NOT_COMPARABLE
        return f"NOT THE PAPER'S PROTOCOL: {shlex.join(self.changes)}" if self.changes else None

    def label(self, row: str) -> str:
        """A row's name in tables, in brackets if it is not in the paper."""
        return f"[{row}]" if self.config.rows[row].addition else row

    def title(self, column: str) -> str:
        """A data set's name in tables, in brackets if it is not in the paper."""
        name = self.datasets[column].title
        return f"[{name}]" if self.config.columns[column].addition else name

    def command(self, *chosen: str) -> str:
        """What trains the plan, or what these options choose of it."""
        return "python -m benchmark run " + shlex.join([self.source, *chosen, *self.changes, *self.options])

    def run_command(self, row: str, column: str) -> str:
        """What trains a row on a column."""
        return self.command("--method", row, "--dataset", column)

    def file_name(self, report: str) -> str:
        """A report's name among the files of its folder: no other plan's, and of this protocol alone."""
        changes = self.name.removeprefix(Path(self.source).stem)
        return (f"{report}-{self.guest}" if self.guest else report) + changes

    def run(self, row: str, column: str) -> Run | None:
        """The run behind a cell; None where the plan has none."""
        given = self.config.hyperparameters(row, column)
        return None if given is None else self.run_with(row, column, given.values)

    def run_with(self, row: str, column: str, hyperparameters: Mapping[str, float]) -> Run:
        """The run of a row on a data set with these hyperparameters."""
        config, dataset = self.config.rows[row], self.datasets[column]
        protocol = self.config.protocol
        return Run(
            row=row,
            column=column,
            method=config.method,
            options=config.all_options,
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
        """The runs of the given rows and columns, data set by data set."""
        found = (self.run(row, column) for column in columns for row in rows)
        return [run for run in found if run is not None]

    def with_protocol(
        self, seeds: Sequence[int] | None, epochs: int | None, precision: Precision | None = None
    ) -> Plan:
        """The plan under other seeds or epochs, or another precision; it gets a name of its own."""
        update: dict[str, Any] = {}
        name, changes = self.name, self.changes
        if seeds is not None and (seeds := sorted(seeds)) != sorted(self.config.protocol.seeds):
            update["seeds"] = seeds
            listed = "-".join(map(str, seeds))
            if len(listed) > 60:  # a file name has 255 bytes
                listed = f"{len(seeds)}-{key_of({'seeds': list(seeds)})}"
            name += f"-seeds-{listed}"
            changes = (*_without("--seeds", changes), "--seeds", ",".join(map(str, seeds)))
        if epochs is not None and epochs != self.config.protocol.epochs:
            update["epochs"] = epochs
            name += f"-{epochs}-epochs"
            changes = (*_without("--epochs", changes), "--epochs", str(epochs))
        if precision is not None and precision != self.config.protocol.precision:
            update["precision"] = precision
            name += f"-{precision}"
            changes = (*_without("--precision", changes), "--precision", precision.value)
        protocol = self.config.protocol.model_copy(update=update)
        config = self.config.model_copy(update={"protocol": protocol})
        return replace(self, name=name, config=config, changes=changes)


def _without(option: str, changes: Sequence[str]) -> Iterator[str]:
    """Options and their values, but for this one."""
    for name, value in zip(changes[::2], changes[1::2], strict=True):
        if name != option:
            yield from (name, value)


def differences(stored: Mapping[str, Any], planned: Mapping[str, Any], path: str = "") -> str:
    """`lr 0.1 instead of 0.2, ...`: what a stored specification has other than the planned one."""
    parts = []
    for name in sorted({*stored, *planned}):
        old, new = stored.get(name), planned.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if old != new:
                parts.append(differences(old, new, f"{path}{name}."))
        elif old != new:
            parts.append(f"{path}{name} {old} instead of {new}")
    return ", ".join(parts)
