"""The state of a run in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from benchmark.common.errors import UserError
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.sweep.assembly import stored_seeds
from benchmark.sweep.plan import Run, differences


class State(StrEnum):
    """The state of a run in the store."""

    STORED = "stored"
    PARTIAL = "partial"
    UNMEASURED = "unmeasured"  # stored, but without the plan's measurements
    STALE = "stale"  # stored for the same seeds and epochs, but with another specification
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True)
class Status:
    """A run's state in the store, with details."""

    run: Run
    state: State
    detail: str = ""
    seconds_per_epoch: float | None = None
    """Measured so far. None unless the run is partial."""
    epochs_done: int = 0
    """Pre-training included."""


def status(run: Run, store: Store) -> Status:
    """Look a run up in the store."""
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
                stored = store.read(folder)
            except UserError:  # another run's damage is not this one's
                continue
            if _same_protocol(stored.spec, run.spec):
                return Status(run, State.STALE, f"stored with {differences(stored.spec, run.spec)}")
    return Status(run, State.MISSING)


def _partial(run: Run, store: Store) -> Status | None:
    """The state of a run that was begun, or that has some of its seeds stored in other runs."""
    begun, found = checkpoint(run, store), stored_seeds(run, store)
    seeds = [seed for seed in run.seeds if seed not in found] if begun is None else begun["seeds"]
    if begun is None and not found:
        return None
    share = 1 - len(seeds) / len(run.seeds)
    details = [f"{len(run.seeds) - len(seeds)} of {len(run.seeds)} seeds stored"] if share else []
    if not seeds:
        details.append("`run` puts them together")
    done, pace = share * run.total_epochs, None
    if begun is not None:
        rest = replace(run, seeds=seeds)
        reached = rest.epochs_done(begun["replicas_per_pass"], begun["pass"], begun["training"]["completed"])
        details.append(f"{int(reached)} of {run.total_epochs} epochs")
        done += (1 - share) * reached
        pace = begun["log"]["seconds"] / ((1 - share) * reached) if reached else None
    return Status(run, State.PARTIAL, ", ".join(details), pace, int(done))


def checkpoint(run: Run, store: Store) -> dict[str, Any] | None:
    """The checkpoint of a run, or None. `UserError` if this code cannot resume from it."""
    found = store.checkpoint(run.key)
    if found is not None and "replicas_per_pass" not in found:
        raise UserError(f"{store.partial(run.key)}: begun by an earlier version; delete it to start again")
    if found is not None:
        found.setdefault("seeds", run.seeds)  # all of them, before some could be stored already
    return found


def _same_protocol(stored: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    return all(stored[name] == planned[name] for name in ("seeds", "epochs", "precision"))
