"""Train stored runs again and compare the numbers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmark.common.errors import DataNotFound, UserError
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import SEMANTICS, Compile, Execution
from benchmark.methods import METHODS
from benchmark.store.record import StoredRun
from benchmark.store.store import Store
from benchmark.sweep.execute import Progress, train
from benchmark.sweep.run import Run


@dataclass(frozen=True)
class Agreement:
    """A stored run beside its repetition."""

    epochs: int
    """Number of compared epochs, from the first on."""
    alike: int
    """Number of first epochs in which every loss and error is the same."""
    loss: float
    """Largest relative deviation of a train loss."""
    error: float
    """Deviation of the mean test error over the seeds after the last compared epoch, in points."""

    def within(self, margin: float) -> bool:
        """Whether the mean test error agrees to `margin` points."""
        return self.error <= margin

    def verdict(self, margin: float) -> str:
        """`identical`, `agrees (identical up to epoch 3)` or `DIFFERS (from epoch 1)`."""
        if self.alike == self.epochs:
            return "identical"
        if self.within(margin):
            return f"agrees (identical up to epoch {self.alike})" if self.alike else "agrees"
        return f"DIFFERS (from epoch {self.alike + 1})"


def choose(
    stored: Sequence[StoredRun],
    keys: Sequence[str],
    count: int,
    seed: int,
    load: Callable[[StoredRun], Dataset],
) -> list[tuple[StoredRun, Dataset]]:
    """The runs with these keys or folders, each with its data set; without keys, `count` drawn at random.

    Only runs that this code still computes and whose data set `load` finds are drawn.
    """
    if keys:
        asked = [Path(key).name.rpartition("-")[2] for key in keys]
        by_key = {run.record["key"]: run for run in stored}
        if unknown := [key for key in asked if key not in by_key]:
            raise UserError(f"no stored run has the key {', '.join(unknown)} (--plan: of another plan)")
        return [(by_key[key], _seen_by(by_key[key], load)) for key in asked]
    able = [run for run in stored if _versions_of(run) == _versions_now(run)]
    random.Random(seed).shuffle(able)
    found: list[tuple[StoredRun, Dataset]] = []
    missing: dict[str, str] = {}
    for run in able:
        if len(found) < count and run.column not in missing:
            try:
                found.append((run, _seen_by(run, load)))
            except DataNotFound as error:
                missing[run.column] = str(error)
    if not found:
        raise UserError(
            *missing.values() or ["rerun: other versions of their methods trained all stored runs"]
        )
    return found


def _seen_by(stored: StoredRun, load: Callable[[StoredRun], Dataset]) -> Dataset:
    """The data set of a stored run. `UserError` if it has other images now."""
    dataset = load(stored)
    if dataset.checksum != stored.record["data"]["checksum"]:
        raise UserError(f"{stored.folder} was trained on other images than {dataset.source} holds now")
    return dataset


def run_of(stored: StoredRun, epochs: int | None = None) -> Run:
    """The run that a record describes, or its first epochs; they do not depend on how many follow.

    `UserError` if this code no longer computes it.
    """
    then, now = _versions_of(stored), _versions_now(stored)
    if now != then:
        raise UserError(f"{stored.folder}: made by {stored.spec['method']} with {then}, this code has {now}")
    run = Run.of(stored.record["row"], stored.spec)
    return replace(run, epochs=min(epochs or run.epochs, run.epochs))


def _versions_of(stored: StoredRun) -> dict[str, int]:
    """The versions that a stored run was trained with."""
    return {"semantics": stored.spec["semantics"], "version": stored.spec["version"]}


def _versions_now(stored: StoredRun) -> dict[str, int] | None:
    """The versions of this code, or None if it has no such method."""
    method = METHODS.get(stored.spec["method"])
    return None if method is None else {"semantics": SEMANTICS, "version": method.version}


def repeat(
    stored: StoredRun, run: Run, dataset: Dataset, device: torch.device, progress: Progress
) -> Agreement:
    """Train `run_of(stored)` again and compare. Nothing is stored."""
    with tempfile.TemporaryDirectory() as folder:
        compile, size = _compile(stored), _replicas_per_pass(stored)
        again = train(run, dataset, Store(Path(folder)), device, progress, compile, size).epochs
    before = stored.epochs[stored.epochs["epoch"] <= run.epochs].reset_index(drop=True)
    last = before["epoch"] == run.epochs
    loss = (again["train_loss"] - before["train_loss"]).abs() / before["train_loss"].abs()
    unlike = before["epoch"][before.compare(again.astype(before.dtypes)).index]
    return Agreement(
        epochs=run.epochs,
        alike=run.epochs if unlike.empty else int(unlike.min()) - 1,
        loss=float(loss.max()),
        error=abs(float(again["test_error"][last].mean() - before["test_error"][last].mean())),
    )


def _compile(stored: StoredRun) -> Compile:
    """The setting that executes a run as it was executed: another one rounds differently."""
    ways = {_execution(sitting) for sitting in stored.record["sittings"]}
    if ways == {Execution.GRAPHED}:
        return Compile.AUTO
    return Compile.ON if ways == {Execution.COMPILED} else Compile.OFF


def _replicas_per_pass(stored: StoredRun) -> int:
    """As many as in the stored run, or as in the largest of the runs that it was assembled from."""
    sizes = [sitting.get("replicas_per_pass") for sitting in stored.record["sittings"]]
    return max(size or len(stored.spec["seeds"]) for size in sizes)  # the first runs lack it


def _execution(sitting: Mapping[str, Any]) -> Execution:
    """How a sitting was executed. The first runs say `compiled` instead."""
    if "execution" in sitting:
        return Execution(sitting["execution"])
    return Execution.COMPILED if sitting.get("compiled") else Execution.EAGER
