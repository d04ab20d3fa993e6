"""Trains a run: from its checkpoint if there is one, pass by pass, into the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.engine import memory
from benchmark.engine.execution import computing
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import MEASUREMENTS, Compile
from benchmark.engine.training import EpochResult, Training
from benchmark.methods import METHODS
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.store.store import Store
from benchmark.sweep.run import Run
from benchmark.sweep.status import Trained, assembled, check_images, checkpoint, stored_seeds

CHECKPOINT_SECONDS = 30.0
"""A checkpoint younger than this is not replaced at the end of an epoch."""

Progress = Callable[[int, EpochResult | None], None]
"""Called at the start and after every epoch with the epochs done (pre-training included; of several passes,
the mean over them) and what the last one measured, if anything."""


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

    Seeds that are stored in runs of their own are taken from there. See `train`.
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
                trained = train(run, dataset, store, device, progress, compile, replicas_per_pass, seeds)
            except Exception as error:  # of a method under construction, most likely
                error.add_note(f"while training {run.row} ({run.method}) on {run.column}")
                raise
        else:
            progress(run.total_epochs, None)
        whole = assembled(run, found, trained) if found else trained
        assert whole is not None
        store.commit(run.row, whole.record, whole.epochs, whole.measured)


def collect(run: Run, store: Store) -> bool:
    """Store a run of which every seed is stored in runs of their own; False if there is something to train.

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


def train(
    run: Run,
    dataset: Dataset,
    store: Store,
    device: torch.device,
    progress: Progress,
    compile: Compile = Compile.AUTO,
    replicas_per_pass: int | None = None,
    seeds: list[int] | None = None,
) -> Trained:
    """Train a claimed run, or only some of its seeds, to the end; from its checkpoint if there is one.

    In passes of so many replicas, by default of as many as memory holds now; a run that was begun goes on
    with as many as it began.
    """
    with computing(run.precision, device):
        part = run if seeds is None else replace(run, seeds=seeds)
        begun = checkpoint(run, store)
        return _train(part, run.key, begun, dataset, store, device, progress, compile, replicas_per_pass)


@dataclass
class _Log:
    """What a run has left behind so far, all passes together."""

    seconds: float
    sittings: list[dict[str, Any]]
    rows: list[list[Any]]
    measured: dict[str, list[list[Any]]]


def _train(
    run: Run,
    key: str,
    begun: dict[str, Any] | None,
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
    if begun is not None:
        if begun["data"] != dataset.checksum:
            raise UserError(
                f"run {key} ({run.row} on {run.column}) was begun on data with checksum "
                f"{begun['data'][:12]}..., {dataset.checksum[:12]}... found now"
            )
        log = _Log(**begun["log"])
        first, epoch, state = (begun[name] for name in ("pass", "epoch", "training"))
        size = begun["replicas_per_pass"]
        if replicas_per_pass not in (None, size):
            raise UserError(
                f"--replicas-per-pass: {replicas_per_pass} found, but run {key} of {run.row} on "
                f"{run.column} was begun with {size}; leave it out, or delete {store.partial(key)}"
            )
    else:
        size = replicas_per_pass or memory.replicas_per_pass(
            METHODS[run.method], run.dims, run.batch_size, device
        )
    how = run.execution(compile, len(dataset.train), device)
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
                    "seeds": run.seeds,
                    "replicas_per_pass": size,
                    "pass": number,
                    "epoch": training.epoch,
                    "training": training.state_dict(),
                    "log": vars(log),
                }
                store.save_checkpoint(key, reached)
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
