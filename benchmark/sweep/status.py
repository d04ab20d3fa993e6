"""What the store has of a run: all of it, some seeds, a checkpoint, something like it, damage, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from benchmark.common.errors import UserError
from benchmark.methods import METHODS
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.sweep.assembly import stored_seeds
from benchmark.sweep.plan import Run, differences


class State(StrEnum):
    """What the store has of a run."""

    STORED = "stored"
    PARTIAL = "partial"
    UNMEASURED = "unmeasured"  # stored, but without what the plan measures besides
    STALE = "stale"  # stored for the same seeds and epochs, but with another specification
    DAMAGED = "damaged"
    MISSING = "missing"


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
    other_code: str = ""
    """What to say of it where another state of its method's code has trained it, or some of it."""


def status(run: Run, store: Store) -> Status:
    """What the store has of a run."""
    try:
        return _status(run, store)
    except UserError as error:
        return Status(run, State.DAMAGED, str(error))


def _status(run: Run, store: Store) -> Status:
    if (stored := store.load(run.key)) is not None:
        other = _other_code(run, [stored.record])
        return Status(run, State.STORED, other, epochs_done=run.total_epochs, other_code=other)
    partial = _partial(run, store)
    if run.measure and store.folder(run.unmeasured.key) is not None:
        other, detail = "", f"stored without {', '.join(run.measure)}"
        with suppress(UserError):  # its damage is said elsewhere, and the run trains in its place
            if (unmeasured := store.load(run.unmeasured.key)) is not None:
                other = _other_code(run, [unmeasured.record])
        if other:
            detail = f"{detail}; {other}"
        if partial is None:
            return Status(run, State.UNMEASURED, detail, other_code=other)
        other = partial.other_code or other
        return replace(partial, detail=f"{detail}; with: {partial.detail}", other_code=other)
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


def _other_code(run: Run, records: Iterable[Mapping[str, Any]]) -> str:
    """What to say where another state of the method's code has trained, as far as these records tell."""
    now = METHODS[run.method].code
    before = {sitting.get("method_code") for record in records for sitting in record["sittings"]}
    known = {code for code in before if code and code.partition("-")[0] == now.partition("-")[0]}
    if known <= {now}:
        return ""
    return f"{run.method} has changed since; if its numbers have, raise its `version` to train anew"


def _partial(run: Run, store: Store) -> Status | None:
    """Of a run that was begun, or some of whose seeds are stored in other runs."""
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
    logs = [begun["log"]] if begun is not None else []
    if other := _other_code(run, [*(source.record for source in found.values()), *logs]):
        details.append(other)
    return Status(run, State.PARTIAL, ", ".join(details), pace, int(done), other)


def checkpoint(run: Run, store: Store) -> dict[str, Any] | None:
    """The state of a run under way, or None; `UserError` for one that this code cannot go on with."""
    found = store.checkpoint(run.key)
    if found is not None and "replicas_per_pass" not in found:
        raise UserError(f"{store.partial(run.key)}: begun by an earlier version; delete it to start again")
    if found is not None:
        found.setdefault("seeds", run.seeds)  # all of them, before some could be stored already
    return found


def _same_protocol(stored: Mapping[str, Any], planned: Mapping[str, Any]) -> bool:
    return all(stored[name] == planned[name] for name in ("seeds", "epochs", "precision"))
