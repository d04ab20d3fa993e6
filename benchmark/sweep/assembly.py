"""A run put together from what is stored of its seeds, so that no stored seed trains again.

Seeds do not depend on each other (see `streams`): a long run may be trained a few seeds at a time, one
command after the other, or on several machines whose results folders are then copied into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.common.errors import Unreadable, UserError
from benchmark.store.record import StoredRun
from benchmark.store.store import Store
from benchmark.sweep.plan import Run


@dataclass(frozen=True)
class Trained:
    """What a run left behind: its record and its tables."""

    record: dict[str, Any]
    epochs: pd.DataFrame
    """Columns `EPOCH_COLUMNS`; within an epoch, one row a replica in their order."""
    measured: Mapping[str, pd.DataFrame]


def stored_seeds(run: Run, store: Store) -> dict[int, StoredRun]:
    """Seeds of `run` that are stored in runs like it, but for their seeds and what else they measured."""
    if len(set(run.seeds)) < len(run.seeds):  # configurations, not seeds
        return {}
    found: dict[int, StoredRun] = {}
    for folder in store.folders(run.column):
        try:
            if not _like(store.spec(folder), run):
                continue
        except UserError:  # another run's damage is not this one's
            continue
        try:
            stored = store.read(folder)
        except Unreadable:  # it would train again
            raise
        except UserError:
            continue
        found = {seed: stored for seed in stored.spec["seeds"] if seed in run.seeds} | found
    return found


def _like(spec: Mapping[str, Any], run: Run) -> bool:
    """Whether the specification is that of `run`, but for seeds, and measures at least as much."""
    measured, wanted = spec.get("measure", {}), run.spec.get("measure", {})
    if not isinstance(measured, dict) or not measured.items() >= wanted.items():
        return False
    return {**spec, "seeds": run.seeds, "measure": wanted} == {**run.spec, "measure": wanted}


def check(found: Mapping[int, StoredRun], checksum: str) -> None:
    """`UserError` unless all stored seeds saw the data with this checksum."""
    for stored in found.values():
        seen = stored.record["data"]["checksum"]
        if seen != checksum:
            raise UserError(
                f"{stored.folder} was trained on data with checksum {seen[:12]}..., "
                f"{checksum[:12]}... found now; delete it to train its seeds again"
            )


def assembled(run: Run, found: Mapping[int, StoredRun], trained: Trained | None) -> Trained:
    """The whole of `run`: the seeds found stored, and the others as just trained, if there are any."""
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
    """The share of some of its seeds in a run's training time."""
    return float(record["training_seconds"]) * len(seeds) / len(record["spec"]["seeds"])


def _joined(tables: Sequence[tuple[pd.DataFrame, list[int]]]) -> pd.DataFrame:
    """Of each table the rows of these seeds; epoch by epoch, seed by seed."""
    rows = pd.concat([table[table["seed"].isin(seeds)] for table, seeds in tables])
    return rows.sort_values(["epoch", "seed"], kind="stable", ignore_index=True)
