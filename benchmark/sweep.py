"""From a plan to stored results: which runs there are, which are missing, and training those."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd
import torch

from benchmark import memory, provenance
from benchmark.compilation import Compile, execution
from benchmark.config import DatasetConfig, PlanConfig
from benchmark.datasets import Dataset
from benchmark.errors import UserError
from benchmark.measurements import MEASUREMENTS
from benchmark.methods import METHODS, Method, build
from benchmark.precision import Precision, computing
from benchmark.results import EPOCH_COLUMNS, Store, key_of, slug
from benchmark.training import SEMANTICS, EpochResult, Training

CHECKPOINT_SECONDS = 30.0
"""A checkpoint younger than this is not replaced at the end of an epoch."""


class State(StrEnum):
    """What the store has of a run."""

    STORED = "stored"
    PARTIAL = "partial"
    UNMEASURED = "unmeasured"  # stored, but without what the plan measures besides
    STALE = "stale"  # stored for the same seeds and epochs, but with another specification
    DAMAGED = "damaged"
    MISSING = "missing"


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

    @property
    def key(self) -> str:
        return key_of(self.spec)

    @property
    def unmeasured(self) -> Run:
        """The run that trains the same and measures nothing besides: its errors are this one's."""
        return replace(self, measure=())

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
        """Of its epochs on so many samples, without pre-training; None if the method does not say."""
        per_sample = METHODS[self.method].multiply_adds(self.dims, self.options)
        return None if per_sample is None else float(per_sample) * samples * self.epochs * len(self.seeds)

    def build(self, device: torch.device | str) -> Method:
        """The method on freshly initialised networks."""
        method = METHODS[self.method]
        return build(method, self.dims, self.seeds, self.hyperparameters, self.options, device=device)


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
        if seeds is not None and sorted(seeds) != sorted(self.config.protocol.seeds):
            update["seeds"] = list(seeds)
            listed = "-".join(map(str, seeds))
            if len(listed) > 60:  # a file name has 255 bytes
                listed = f"{len(seeds)}-{key_of({'seeds': list(seeds)})}"
            name += f"-seeds-{listed}"
            changes += ("--seeds", ",".join(map(str, seeds)))
        if epochs is not None and epochs != self.config.protocol.epochs:
            update["epochs"] = epochs
            name += f"-{epochs}-epochs"
            changes += ("--epochs", str(epochs))
        if precision is not None and precision != self.config.protocol.precision:
            update["precision"] = precision
            name += f"-{precision}"
            changes += ("--precision", precision.value)
        protocol = self.config.protocol.model_copy(update=update)
        config = self.config.model_copy(update={"protocol": protocol})
        return replace(self, name=name, config=config, changes=changes)


@dataclass(frozen=True)
class Status:
    """A run's state in the store, and what there is to know about it."""

    run: Run
    state: State
    detail: str = ""
    seconds_per_epoch: float | None = None
    """Of a partial run, as measured so far."""
    epochs_done: int = 0
    """Pre-training included."""


def status(run: Run, store: Store) -> Status:
    """What the store has of a run."""
    try:
        return _status(run, store)
    except UserError as error:
        return Status(run, State.DAMAGED, str(error))


def _status(run: Run, store: Store) -> Status:
    if store.load(run.key) is not None:
        return Status(run, State.STORED, epochs_done=run.total_epochs)
    checkpoint = _checkpoint(run, store)
    if checkpoint is not None:
        done = run.epochs_done(
            checkpoint["replicas_per_pass"], checkpoint["pass"], checkpoint["training"]["completed"]
        )
        detail = f"{int(done)} of {run.total_epochs} epochs"
        pace = checkpoint["log"]["seconds"] / done if done else None
        return Status(run, State.PARTIAL, detail, pace, int(done))
    if run.measure and store.folder(run.unmeasured.key) is not None:
        return Status(run, State.UNMEASURED, f"stored without {', '.join(run.measure)}")
    for folder in store.folders():
        if folder.parent.name == run.column and folder.name.rsplit("-", 1)[0] == slug(run.row):
            try:
                stored = store.load(folder.name.rsplit("-", 1)[1])
            except UserError:  # another run's damage is not this one's
                continue
            if stored is not None and _same_protocol(stored.spec, run.spec):
                return Status(run, State.STALE, f"stored with {differences(stored.spec, run.spec)}")
    return Status(run, State.MISSING)


def _same_protocol(stored: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    return all(stored[name] == planned[name] for name in ("seeds", "epochs", "precision"))


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


Progress = Callable[[int, EpochResult | None], None]
"""Called at the start and after every epoch with the epochs done (pre-training included; of several passes,
the mean over them) and what the last one measured, if anything."""


@dataclass(frozen=True)
class Trained:
    """What a run left behind: its record and its tables."""

    record: dict[str, Any]
    epochs: pd.DataFrame
    """Columns `EPOCH_COLUMNS`; within an epoch, one row a replica in their order."""
    measured: dict[str, pd.DataFrame]


def execute(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile = Compile.AUTO,
    replicas_per_pass: int | None = None,
) -> None:
    """Train a run from its checkpoint, or from the start, and store it; nothing if it is stored.

    See `train`.
    """
    with store.claim(run.key):
        if store.folder(run.key) is not None:
            return
        trained = train(run, dataset, store, device, progress, compile, replicas_per_pass)
        store.commit(run.row, trained.record, trained.epochs, trained.measured)


def train(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile = Compile.AUTO,
    replicas_per_pass: int | None = None,
) -> Trained:
    """Train a claimed run to its end, from its checkpoint if there is one.

    In passes of so many replicas, by default of as many as memory holds now; a run that was begun goes on
    with as many as it began.
    """
    with computing(run.precision, device):
        return _train(run, dataset, store, device, progress, compile, replicas_per_pass)


def _checkpoint(run: Run, store: Store) -> dict[str, Any] | None:
    found = store.checkpoint(run.key)
    if found is not None and "replicas_per_pass" not in found:
        raise UserError(f"{store.partial(run.key)}: begun by an earlier version; delete it to start again")
    return found


@dataclass
class _Log:
    """What a run has left behind so far, all passes together."""

    seconds: float
    sittings: list[dict[str, Any]]
    rows: list[list[Any]]
    measured: dict[str, list[list[Any]]]


def _train(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile,
    replicas_per_pass: int | None,
) -> Trained:
    memory.keep_freed_memory()
    log = _Log(0.0, [], [], {name: [] for name in run.measure})
    first, epoch, state = 0, run.epochs - run.total_epochs, None
    checkpoint = _checkpoint(run, store)
    if checkpoint is not None:
        if checkpoint["data"] != dataset.checksum:
            raise UserError(
                f"run {run.key} ({run.row} on {run.column}) was begun on data with checksum "
                f"{checkpoint['data'][:12]}..., {dataset.checksum[:12]}... found now"
            )
        log = _Log(**checkpoint["log"])
        first, epoch, state = (checkpoint[name] for name in ("pass", "epoch", "training"))
        size = checkpoint["replicas_per_pass"]
        if replicas_per_pass not in (None, size):
            raise UserError(
                f"--replicas-per-pass: {replicas_per_pass} found, but run {run.key} of {run.row} on "
                f"{run.column} was begun with {size}; leave it out, or delete {store.partial(run.key)}"
            )
    else:
        size = replicas_per_pass or memory.replicas_per_pass(
            METHODS[run.method], run.dims, run.batch_size, device
        )
    how = execution(compile, run.multiply_adds(len(dataset.train)), device)
    log.sittings.append(
        {
            "started": provenance.now(),
            "from_epoch": epoch,
            "device": provenance.device_name(device),
            "execution": how.value,
            "replicas_per_pass": min(size, len(run.seeds)),
            "versions": provenance.versions(),
        }
    )
    passes = run.passes(size)
    saved = -math.inf  # so the first epoch is saved in any case
    for number, part in list(enumerate(passes))[first:]:
        training = Training(
            part.build(device),
            part.seeds,
            dataset.train,
            dataset.test,
            batch_size=run.batch_size,
            execution=how,
        )
        if state is not None:
            training.load_state_dict(state)
            state = None
        else:
            _measure(part, training, log.measured)
        progress(int(run.epochs_done(size, number, training.completed)), None)
        while training.completed < run.total_epochs:
            result = _train_epoch(part, training, log)
            now = time.monotonic()
            if now - saved >= CHECKPOINT_SECONDS:
                reached = {
                    "data": dataset.checksum,
                    "replicas_per_pass": size,
                    "pass": number,
                    "epoch": training.epoch,
                    "training": training.state_dict(),
                    "log": vars(log),
                }
                store.save_checkpoint(run.key, reached)
                saved = now
            progress(int(run.epochs_done(size, number, training.completed)), result)
        del training
        memory.give_back(device)
    if len(passes) > 1:
        for found in (log.rows, *log.measured.values()):
            found.sort(key=lambda row: (row[0], row[1]))  # epoch by epoch, seed by seed
    record = {
        "row": run.row,
        "spec": run.spec,
        "data": dataset.record,
        "finished": provenance.now(),
        "training_seconds": round(log.seconds, 1),
        "sittings": log.sittings,
    }
    tables = {
        name: pd.DataFrame(found, columns=["epoch", "seed", *MEASUREMENTS[name].columns])
        for name, found in log.measured.items()
    }
    return Trained(record, pd.DataFrame(log.rows, columns=list(EPOCH_COLUMNS)), tables)


def _train_epoch(run: Run, training: Training, log: _Log) -> EpochResult | None:
    """One epoch, and what is measured after it."""
    clock = time.monotonic()
    result = training.run_epoch()
    log.seconds += time.monotonic() - clock
    log.sittings[-1]["execution"] = training.execution.value
    if result is not None:
        log.rows += _rows(run, result)
    _measure(run, training, log.measured)
    return result


def _rows(run: Run, result: EpochResult) -> list[list[Any]]:
    """One row of `EPOCH_COLUMNS` a replica."""
    measured = zip(result.train_loss, result.test_error, result.diverged, strict=True)
    return [[result.epoch, seed, *values] for seed, values in zip(run.seeds, measured, strict=True)]


def _measure(run: Run, training: Training, measured: dict[str, list[list[Any]]]) -> None:
    """Append what is to be measured now; during pre-training nothing is."""
    for name in run.measure:
        measurement = MEASUREMENTS[name]
        if measurement.due(training.completed, training.epoch, run.epochs):
            epoch = max(training.epoch, 0)
            for replica, *values in measurement.rows(training):
                measured[name].append([epoch, run.seeds[replica], *values])
