"""Trains stored runs once more and says whether they come out the same."""

from __future__ import annotations

import math
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
    """Compared, from the first on."""
    alike: int
    """The first epochs in which every loss and error is the same."""
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


def choose(stored: Sequence[StoredRun], keys: Sequence[str], count: int, seed: int) -> list[StoredRun]:
    """The runs with these keys (or their beginnings, or their folders), else `count` of the cheaper half.

    Drawn are only runs that this code still computes; `UserError` if there are none.
    """
    if not keys:
        able = [run for run in stored if _made_by(run) == _now(run)]
        if not able:
            raise UserError(
                f"rerun: the {len(stored)} stored runs to draw from were made by other versions of their "
                "methods"
            )
        by_cost = sorted(able, key=lambda run: (_multiply_adds(run), run.record["key"]))
        cheap = by_cost[: max(count, (len(able) + 1) // 2)]
        return random.Random(seed).sample(cheap, min(count, len(cheap)))
    chosen = []
    for key in keys:
        found = [run for run in stored if run.record["key"].startswith(key) or _is_at(run, key)]
        if len(found) != 1:
            begin = f"the keys of {len(found)} stored runs begin" if found else "no stored run's key begins"
            raise UserError(
                f"rerun: {begin} with {key!r}; the folders of the stored runs, in "
                f"{stored[0].folder.parents[1]}, end in their keys (--plan: those of another plan)"
            )
        chosen += found
    return chosen


def choose_at_hand(
    stored: Sequence[StoredRun],
    keys: Sequence[str],
    count: int,
    seed: int,
    load: Callable[[StoredRun], Dataset],
    say: Callable[[str], None],
) -> tuple[list[StoredRun], dict[str, Dataset]]:
    """What `choose` finds, with the data sets by name; drawn are only runs whose images `load` finds.

    `say` gets a line for every data set that the draw goes on without. `UserError` names all that are missing
    where a key asks for a run on one, or nothing else is left; also where the images are not those that a run
    saw, and whatever `choose` and `load` raise.
    """
    left, data, missing = list(stored), dict[str, Dataset](), dict[str, str]()
    while True:
        chosen = choose(left, keys, count, seed)
        absent = {}
        for column, run in {run.column: run for run in chosen}.items():
            try:
                data[column] = data.get(column) or load(run)
            except DataNotFound as error:
                absent[column] = str(error)
        if not absent:
            break
        missing |= absent
        left = [run for run in left if run.column not in absent]
        if keys or not left:
            raise UserError(*missing.values())
        for column, why in absent.items():
            say(f"drawn without {column}: {why}")
    for run in chosen:
        _check_images(run, data[run.column])
    return chosen, {run.column: data[run.column] for run in chosen}


def _multiply_adds(stored: StoredRun) -> float:
    """A run's cost wherever it is trained, unlike its seconds; infinite if its method does not say."""
    found = run_of(stored).multiply_adds(stored.record["data"]["train_samples"])
    return math.inf if found is None else found


def _is_at(run: StoredRun, place: str) -> bool:
    """Whether the place is the run's folder, or its name."""
    return run.folder.name == place or ("/" in place and run.folder.resolve() == Path(place).resolve())


def run_of(stored: StoredRun, epochs: int | None = None) -> Run:
    """The run that a record describes, or its first epochs, which do not depend on how many follow.

    `UserError` if this code no longer computes it.
    """
    spec, then, now = stored.spec, _made_by(stored), _now(stored)
    if now != then:
        raise UserError(f"{stored.folder}: made by {spec['method']} with {then}, this code has {now}")
    run = Run.of(stored.record["row"], spec)
    return replace(run, epochs=min(epochs or run.epochs, run.epochs))


def _made_by(stored: StoredRun) -> dict[str, int]:
    return {"semantics": stored.spec["semantics"], "version": stored.spec["version"]}


def _now(stored: StoredRun) -> dict[str, int] | None:
    method = METHODS.get(stored.spec["method"])
    return None if method is None else {"semantics": SEMANTICS, "version": method.version}


def _check_images(stored: StoredRun, dataset: Dataset) -> None:
    """`UserError` if these are not the images that the run saw."""
    if dataset.checksum != stored.record["data"]["checksum"]:
        raise UserError(f"{stored.folder} was trained on other images than {dataset.source} holds now")


def repeat(
    stored: StoredRun, run: Run, dataset: Dataset, device: torch.device, progress: Progress
) -> Agreement:
    """Train `run_of(stored)` on the images that it saw, and compare; nothing is stored."""
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
    """Executed as the stored run was, if all of it was alike: else rounding would differ.

    It does so where a run was compiled before replicas trained apart, which its record does not say.
    """
    ways = {_execution(sitting) for sitting in stored.record["sittings"]}
    if ways == {Execution.GRAPHED}:
        return Compile.AUTO
    return Compile.ON if ways == {Execution.COMPILED} else Compile.OFF


def _replicas_per_pass(stored: StoredRun) -> int:
    """As in the stored run; of one put together from others, in its largest passes."""
    sizes = [sitting.get("replicas_per_pass") for sitting in stored.record["sittings"]]
    return max(size or len(stored.spec["seeds"]) for size in sizes)  # the first runs did not say


def _execution(sitting: Mapping[str, Any]) -> Execution:
    if "execution" in sitting:
        return Execution(sitting["execution"])
    return Execution.COMPILED if sitting.get("compiled") else Execution.EAGER  # as it was recorded before
