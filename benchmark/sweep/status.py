"""The state of a run in the store, and runs that are assembled from stored seeds.

Seeds do not depend on each other (see `benchmark/methods/seeding.py`). So a long run can be trained a few
seeds at a time, or on several machines whose results folders are then copied into one. No stored seed is
trained twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd

from benchmark.common.errors import Unreadable, UserError
from benchmark.store.record import StoredRun, slug
from benchmark.store.store import Store
from benchmark.sweep.run import Run, differences


class State(StrEnum):
    """How much of a run is in the store."""

    STORED = "stored"
    PARTIAL = "partial"
    UNMEASURED = "unmeasured"  # stored without the measurements of the plan
    STALE = "stale"  # stored for the same network, seeds and epochs, but with another specification
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True)
class Status:
    """The state of a run in the store, with details."""

    run: Run
    state: State
    detail: str = ""
    seconds_per_epoch: float | None = None
    """Measured so far. None unless the run is partial."""
    epochs_done: int = 0
    """Pre-training included."""


def status(run: Run, store: Store) -> Status:
    """The state of a run in the store."""
    try:
        return _status(run, store)
    except UserError as error:
        return Status(run, State.DAMAGED, str(error))


def _status(run: Run, store: Store) -> Status:
    if store.load(run.key) is not None:
        return Status(run, State.STORED, epochs_done=run.total_epochs)
    partial = _partial(run, store)
    if run.measure and store.folder(run.unmeasured.key) is not None:
        detail = f"stored without {', '.join(run.measure)}"
        if partial is None:
            return Status(run, State.UNMEASURED, detail)
        return replace(partial, detail=f"{detail}; with: {partial.detail}")
    if partial is not None:
        return partial
    for folder in store.folders(run.column):
        if folder.name.rsplit("-", 1)[0] == slug(run.row):
            try:
                spec = store.spec(folder)
            except UserError:  # another run is damaged
                continue
            same = ("dims", "seeds", "epochs", "precision")  # other networks belong to another plan
            if all(spec[name] == run.spec[name] for name in same):
                return Status(run, State.STALE, f"stored with {differences(spec, run.spec)}")
    return Status(run, State.MISSING)


def _partial(run: Run, store: Store) -> Status | None:
    """The status of a run that has a checkpoint, or some of whose seeds are stored in other runs."""
    begun, found = checkpoint(run, store), stored_seeds(run, store)
    seeds = [seed for seed in run.seeds if seed not in found] if begun is None else begun["seeds"]
    if begun is None and not found:
        return None
    share = 1 - len(seeds) / len(run.seeds)
    details = [f"{len(run.seeds) - len(seeds)} of {len(run.seeds)} seeds stored"] if share else []
    if not seeds:
        details.append("`run` assembles them")
    done, pace = share * run.total_epochs, None
    if begun is not None:
        rest = replace(run, seeds=seeds)
        reached = rest.epochs_done(begun["replicas_per_pass"], begun["pass"], begun["training"]["completed"])
        details.append(f"{int(reached)} of {run.total_epochs} epochs")
        done += (1 - share) * reached
        pace = begun["log"]["seconds"] / ((1 - share) * reached) if reached else None
    return Status(run, State.PARTIAL, ", ".join(details), pace, int(done))


def checkpoint(run: Run, store: Store) -> dict[str, Any] | None:
    """The checkpoint of a run, or None. `UserError` if this code cannot resume it."""
    found = store.checkpoint(run.key)
    if found is not None and "replicas_per_pass" not in found:
        raise UserError(f"{store.partial(run.key)}: begun by an earlier version; delete it to start again")
    if found is not None:
        found.setdefault("seeds", run.seeds)  # the first checkpoints are of all seeds
    return found


@dataclass(frozen=True)
class Trained:
    """The record and the tables of a trained run."""

    record: dict[str, Any]
    epochs: pd.DataFrame
    """Columns `EPOCH_COLUMNS`, one row for each epoch and replica."""
    measured: Mapping[str, pd.DataFrame]


def stored_seeds(run: Run, store: Store) -> dict[int, StoredRun]:
    """The seeds of `run` that are stored in other runs, with these runs.

    These runs differ from `run` only in their seeds, and may have measured more.
    """
    if len(set(run.seeds)) < len(run.seeds):  # configurations, not seeds
        return {}
    found: dict[int, StoredRun] = {}
    for folder in store.folders(run.column):
        try:
            if not _like(store.spec(folder), run):
                continue
        except UserError:  # another run is damaged
            continue
        try:
            stored = store.read(folder)
        except Unreadable:  # otherwise its seeds would train again
            raise
        except UserError:
            continue
        found = {seed: stored for seed in stored.spec["seeds"] if seed in run.seeds} | found
    return found


def _like(spec: Mapping[str, Any], run: Run) -> bool:
    """Whether a specification equals that of `run`, except for its seeds and additional measurements."""
    measured, wanted = spec.get("measure", {}), run.spec.get("measure", {})
    if not isinstance(measured, dict) or not measured.items() >= wanted.items():
        return False
    return {**spec, "seeds": run.seeds, "measure": wanted} == {**run.spec, "measure": wanted}


def check_images(found: Mapping[int, StoredRun], checksum: str) -> None:
    """`UserError` unless all stored seeds were trained on the data with this checksum."""
    for stored in found.values():
        seen = stored.record["data"]["checksum"]
        if seen != checksum:
            raise UserError(
                f"{stored.folder} was trained on data with checksum {seen[:12]}..., "
                f"{checksum[:12]}... found now; delete it to train its seeds again"
            )


def assembled(run: Run, found: Mapping[int, StoredRun], trained: Trained | None) -> Trained:
    """Assemble `run` from the stored seeds and from those that were just trained, if any."""
    sources: list[tuple[StoredRun | Trained, list[int]]] = [
        (stored, [seed for seed, where in found.items() if where is stored])
        for stored in {id(stored): stored for stored in found.values()}.values()
    ]
    if trained is not None:
        sources.append((trained, [seed for seed in run.seeds if seed not in found]))
    records = [source.record for source, _ in sources]
    sittings = []
    for source, seeds in sources:
        for sitting in source.record["sittings"]:
            its = [seed for seed in sitting.get("seeds", seeds) if seed in seeds]
            sittings += [{**sitting, "seeds": its}] if its else []
    record = {
        "row": run.row,
        "spec": run.spec,
        "data": records[0]["data"],
        "finished": max(record["finished"] for record in records),
        "training_seconds": round(sum(_seconds(source.record, seeds) for source, seeds in sources), 1),
        "sittings": sorted(sittings, key=lambda sitting: str(sitting["started"])),
    }
    tables = {name: _joined([(source.measured[name], s) for source, s in sources]) for name in run.measure}
    return Trained(record, _joined([(source.epochs, seeds) for source, seeds in sources]), tables)


def _seconds(record: Mapping[str, Any], seeds: Sequence[int]) -> float:
    """The part of a run's training time that belongs to some of its seeds."""
    return float(record["training_seconds"]) * len(seeds) / len(record["spec"]["seeds"])


def _joined(tables: Sequence[tuple[pd.DataFrame, list[int]]]) -> pd.DataFrame:
    """The rows of these seeds from each table, sorted by epoch and seed."""
    rows = pd.concat([table[table["seed"].isin(seeds)] for table, seeds in tables])
    return rows.sort_values(["epoch", "seed"], kind="stable", ignore_index=True)
