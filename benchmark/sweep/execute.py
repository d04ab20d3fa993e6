"""Train a run from its checkpoint, pass by pass, into the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.engine import memory
from benchmark.engine.execution import computing
from benchmark.engine.jacobian import measure
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import MEASUREMENTS, Compile, Execution
from benchmark.engine.training import EpochResult, Training
from benchmark.methods import METHODS
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.store.store import Store
from benchmark.sweep.run import Run
from benchmark.sweep.status import Trained, assembled, check_images, checkpoint, stored_seeds

CHECKPOINT_SECONDS = 30.0
"""Age at which a checkpoint is replaced at the end of an epoch, unless `checkpoint_seconds` is given."""

Progress = Callable[[int, EpochResult | None], None]
"""Called at the start and after every epoch with the number of epochs done and the results of the last one.
The number includes pre-training; of several passes it is the mean."""


def execute(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile = Compile.AUTO,
    replicas_per_pass: int | None = None,
    checkpoint_seconds: float | None = None,
) -> None:
    """Train a run from its checkpoint, or from the start, and store it. A stored run is left as it is.

    Seeds that are stored in other runs are taken from there. See `train` for the arguments.
    """
    with store.claim(run.key, f"{run.row} on {run.column}"):
        if store.folder(run.key) is not None:
            return
        begun, found = checkpoint(run, store), stored_seeds(run, store)
        seeds = [seed for seed in run.seeds if seed not in found] if begun is None else begun["seeds"]
        found = {seed: stored for seed, stored in found.items() if seed not in seeds}
        check_images(found, dataset.checksum)
        lost = [str(seed) for seed in run.seeds if seed not in found and seed not in seeds]
        if lost:
            raise UserError(
                f"run {run.key} ({run.row} on {run.column}) was begun when seeds {', '.join(lost)} were "
                f"stored, which they no longer are; delete {store.partial(run.key)} to start again"
            )
        trained = None
        if seeds:
            try:
                given = (run, dataset, store, device, progress, compile, replicas_per_pass)
                trained = train(*given, seeds=seeds, checkpoint_seconds=checkpoint_seconds)
            except Exception as error:  # most likely of a method under development
                error.add_note(f"while training {run.row} ({run.method}) on {run.column}")
                raise
        else:
            progress(run.total_epochs, None)
        whole = assembled(run, found, trained) if found else trained
        assert whole is not None
        store.commit(run.row, whole.record, whole.epochs, whole.measured)


def collect(run: Run, store: Store) -> bool:
    """Store a run whose seeds are all stored in other runs. False if there is something to train.

    Needs no data.
    """
    if len(stored_seeds(run, store)) < len(run.seeds):
        return False
    with store.claim(run.key, f"{run.row} on {run.column}"):
        found = stored_seeds(run, store)
        check_images(found, found[run.seeds[0]].record["data"]["checksum"])
        whole = assembled(run, found, None)
        store.commit(run.row, whole.record, whole.epochs, whole.measured)
    return True


@dataclass
class _Log:
    """The results of a run so far, over all passes. Part of the checkpoint."""

    seconds: float = 0.0
    sittings: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    measured: dict[str, list[list[Any]]] = field(default_factory=dict)

    def sort(self) -> None:
        """Sort the rows of several passes by epoch and seed."""
        for rows in (self.rows, *self.measured.values()):
            rows.sort(key=lambda row: (row[0], row[1]))


def train(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile = Compile.AUTO,
    replicas_per_pass: int | None = None,
    seeds: list[int] | None = None,
    checkpoint_seconds: float | None = None,
) -> Trained:
    """Train a claimed run, or only some of its seeds, to the end, from its checkpoint if there is one.

    A pass trains `replicas_per_pass` replicas side by side, by default as many as memory holds now. A resumed
    run keeps the number that it began with.
    """
    begun, key = checkpoint(run, store), run.key
    run = run if seeds is None else replace(run, seeds=seeds)
    wait = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
    memory.keep_freed_memory()
    with computing(run.precision, device):
        log, first, state, size = _resume(begun, run, dataset, store.partial(key), device, replicas_per_pass)
        how = run.execution(compile, len(dataset.train), device)
        log.sittings.append(_sitting(run, state, device, how, size))
        passes = run.passes(size)
        saved = -math.inf  # the first epoch is saved in any case
        for number, part in list(enumerate(passes))[first:]:
            training = Training(
                part.build(device),
                part.seeds,
                dataset.train,
                dataset.test,
                batch_size=run.batch_size,
                execution=how,
            )
            if state is None:
                _measure(part, training, log)
            else:
                training.load_state_dict(state)
                state = None
            progress(int(run.epochs_done(size, number, training.completed)), None)
            while training.completed < run.total_epochs:
                result = _train_epoch(part, training, log)
                if time.monotonic() - saved >= wait:
                    reached = {
                        "data": dataset.checksum,
                        "seeds": run.seeds,
                        "replicas_per_pass": size,
                        "pass": number,
                        "epoch": training.epoch,
                        "training": training.state_dict(),
                        "log": vars(log),
                    }
                    store.save_checkpoint(key, reached)
                    saved = time.monotonic()
                progress(int(run.epochs_done(size, number, training.completed)), result)
            del training
            memory.give_back(device)
    if len(passes) > 1:
        log.sort()
    return _record(run, dataset, log)


def _resume(
    begun: dict[str, Any] | None,
    run: Run,
    dataset: Dataset,
    partial: Path,
    device: torch.device,
    replicas_per_pass: int | None,
) -> tuple[_Log, int, dict[str, Any] | None, int]:
    """Where training begins: log, pass, state of the training, and replicas per pass.

    `UserError` if the run was begun on other data or with other passes.
    """
    if begun is None:
        size = replicas_per_pass or memory.replicas_per_pass(
            METHODS[run.method], run.dims, run.batch_size, device
        )
        return _Log(measured={name: [] for name in run.measure}), 0, None, size
    if begun["data"] != dataset.checksum:
        raise UserError(
            f"{partial}: {run.row} on {run.column} was begun on data with checksum "
            f"{begun['data'][:12]}..., {dataset.checksum[:12]}... found now"
        )
    size = begun["replicas_per_pass"]
    if replicas_per_pass not in (None, size):
        raise UserError(
            f"--replicas-per-pass: {replicas_per_pass} found, but {run.row} on {run.column} "
            f"was begun with {size}; leave the option out, or delete {partial}"
        )
    return _Log(**begun["log"]), begun["pass"], begun["training"], size


def _sitting(
    run: Run, state: dict[str, Any] | None, device: torch.device, how: Execution, size: int
) -> dict[str, Any]:
    """The record of one process that trains a run: when, from which epoch, on what device and how."""
    return {
        "started": provenance.now(),
        "from_epoch": run.epochs - run.total_epochs + (0 if state is None else state["completed"]),
        "device": provenance.device_name(device),
        "execution": how.value,
        "replicas_per_pass": min(size, len(run.seeds)),
        "versions": provenance.versions(),
    }


def _train_epoch(run: Run, training: Training, log: _Log) -> EpochResult | None:
    """Train one epoch and log its results. None for an epoch of pre-training."""
    clock = time.monotonic()
    result = training.run_epoch()
    log.seconds += time.monotonic() - clock
    log.sittings[-1]["execution"] = training.execution.value
    if result is not None:
        values = zip(result.train_loss, result.test_error, result.diverged, strict=True)
        log.rows += [[result.epoch, seed, *row] for seed, row in zip(run.seeds, values, strict=True)]
    _measure(run, training, log)
    return result


def _measure(run: Run, training: Training, log: _Log) -> None:
    """Take the measurements that are due and log them. None is due during pre-training."""
    for name in run.measure:
        if MEASUREMENTS[name].due(training.completed, training.epoch, run.epochs):
            epoch = max(training.epoch, 0)
            for replica, *values in measure(name, training):
                log.measured[name].append([epoch, run.seeds[replica], *values])


def _record(run: Run, dataset: Dataset, log: _Log) -> Trained:
    """The record and the tables of a finished run."""
    record = {
        "row": run.row,
        "spec": run.spec,
        "data": dataset.record,
        "finished": provenance.now(),
        "training_seconds": round(log.seconds, 1),
        "sittings": log.sittings,
    }
    measured = {
        name: pd.DataFrame(rows, columns=["epoch", "seed", *MEASUREMENTS[name].columns])
        for name, rows in log.measured.items()
    }
    return Trained(record, pd.DataFrame(log.rows, columns=list(EPOCH_COLUMNS)), measured)
