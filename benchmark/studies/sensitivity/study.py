"""The sensitivity study of Figure 3: `python -m benchmark.sensitivity`.

Configurations train side by side as replicas. Optuna keeps them; what a pass of them needs to go on after
a kill is a run's checkpoint in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from benchmark import datasets
from benchmark.common.errors import UserError
from benchmark.common.progress import console, progress_bar
from benchmark.engine import memory
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Compile
from benchmark.engine.training import EpochResult
from benchmark.methods import METHODS
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import (
    Design,
    check,
    complete,
    default_storage,
    enqueue,
    open_study,
)
from benchmark.sweep import execute as executor
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import Trained

PROFILES = {"paper": "table2", "quick": "quick"}


@dataclass(frozen=True)
class Conductor:
    """Trains the configurations of one design, pass by pass."""

    design: Design
    study: optuna.Study
    storage: RDBStorage
    store: Store
    data: Dataset
    device: torch.device

    def conduct(self, trials: int) -> None:
        """Train until the first `trials` configurations are complete."""
        size = self.study.user_attrs["replicas_per_pass"]
        passes = [(first, min(first + size, trials)) for first in range(0, trials, size)]
        patient = False
        while len(complete(self.design, self.study, trials)) < trials:
            optuna_storage.fail_crashed(self.study, self.storage)
            enqueue(self.design, self.study, trials)
            idle = True
            for first, end in passes:
                taken = self._take(first, end)
                if taken:
                    idle = False
                    with optuna_storage.held(self.storage, list(taken.values())):
                        self._train(first, end, taken)
            if idle:  # the rest is with other drivers, until they are done or silent for too long
                if not patient:
                    console.print(f"{self.study.study_name}: waiting for other processes", markup=False)
                patient = True
                time.sleep(optuna_storage.HEARTBEAT_SECONDS)
        for first, end in passes:
            self._tidy(first, end)

    def _take(self, first: int, end: int) -> dict[int, int]:
        """Set the waiting trials of configurations `first` to `end` - 1 running; their ids by index.

        In order of the index, and none where another driver has begun, so that one gets all of a pass.
        """
        waiting: dict[int, int] = {}
        done = set()
        for trial in self.study.get_trials(deepcopy=False):
            index = trial.user_attrs.get("index", -1)
            if not first <= index < end:
                continue
            if trial.state is TrialState.RUNNING:
                return {}
            if trial.state is TrialState.COMPLETE:
                done.add(index)
            elif trial.state is TrialState.WAITING:
                waiting.setdefault(index, trial._trial_id)
        taken: dict[int, int] = {}
        for index in sorted(set(waiting) - done):
            if not optuna_storage.take(self.storage, waiting[index]):
                break
            taken[index] = waiting[index]
        return taken

    def _train(self, first: int, end: int, taken: Mapping[int, int]) -> None:
        """Train configurations `first` to `end` - 1 in one pass, or in halves where memory is short.

        All of them, even if only some are to be told: a pass is always the same, and so are its numbers.
        """
        if not any(first <= index < end for index in taken):
            return
        if not self._is_halved(first, end):
            run = self.design.replicas(range(first, end))
            with self.store.claim(run.key, f"{run.row} on {run.column}"):
                trained = self._attempt(run, f"{first}-{end - 1}")
                if trained is not None:
                    self._tell(trained, first, end, taken)
                self.store.forget(run.key)
            if trained is not None:
                return
            if end - first == 1:
                raise UserError(f"{run.row} on {run.column}: not enough memory for a single configuration")
            console.print(f"  {end - first} configurations at once: out of memory, halving", markup=False)
            self.study.set_user_attr(f"halved {first}-{end}", True)
        middle = (first + end) // 2
        self._train(first, middle, taken)
        self._train(middle, end, taken)

    def _is_halved(self, first: int, end: int) -> bool:
        return f"halved {first}-{end}" in self.study.user_attrs

    def _tidy(self, first: int, end: int) -> None:
        """Remove what a kill between the last trial told and the end of its pass has left."""
        self.store.discard(self.design.replicas(range(first, end)).key)
        if self._is_halved(first, end):
            middle = (first + end) // 2
            self._tidy(first, middle)
            self._tidy(middle, end)

    def _attempt(self, run: Run, label: str) -> Trained | None:
        """The trained run; None if memory ran out."""
        try:
            with progress_bar(console, f"{run.row} {label}", run.total_epochs) as update:
                advance, size = _advance(update), len(run.seeds)
                return executor.train(run, self.data, self.store, self.device, advance, Compile.AUTO, size)
        except Exception as error:
            if not memory.ran_out(error):
                raise
        # Only here is nothing left that refers to the tensors.
        memory.give_back(self.device)
        return None

    def _tell(self, trained: Trained, first: int, end: int, taken: Mapping[int, int]) -> None:
        """Complete the taken trials: test accuracy in % of the last epoch, those before as intermediate."""
        epochs = trained.epochs
        # Where a replica has diverged its error is chance level, never NaN, which would mean FAIL to Optuna.
        accuracy = 100.0 - epochs["test_error"].to_numpy(float).reshape(-1, end - first)
        diverged = epochs["diverged"].to_numpy(bool).reshape(-1, end - first)[-1]
        for index in range(first, end):
            if index not in taken:
                continue
            trial, column = taken[index], index - first
            with suppress(UpdateFinishedTrialError):  # taken for dead, and done by another driver
                for epoch, value in enumerate(accuracy[:, column], 1):
                    self.storage.set_trial_intermediate_value(trial, epoch, float(value))
                self.storage.set_trial_user_attr(trial, "diverged", bool(diverged[column]))
                self.storage.set_trial_user_attr(trial, "sittings", trained.record["sittings"])
                last = float(accuracy[-1, column])
                self.storage.set_trial_state_values(trial, TrialState.COMPLETE, [last])


def _advance(update: Callable[[int, str], None]) -> executor.Progress:
    def progress(done: int, result: EpochResult | None) -> None:
        shown = "" if result is None else f"best test accuracy {100.0 - min(result.test_error):.2f} %"
        update(done, shown)

    return progress


def train_designs(
    chosen: Selection,
    studied: Mapping[str, list[Design]],
    trials: int,
    storage: str | None,
    replicas_per_pass: int | None,
    data_root: Path | None,
    device: torch.device,
) -> None:
    """Train the first `trials` configurations of the designs of each data set.

    `storage` is the URL of another Optuna storage than the one in the results folder; what it holds
    afterwards is copied there.
    """
    if storage is None:
        chosen.root.mkdir(parents=True, exist_ok=True)
    with optuna_storage.driver(storage or default_storage(chosen.store)) as opened:
        data = {}  # before a study is made
        for column, found in studied.items():
            if not all(_is_complete(design, opened, trials) for design in found):
                config = chosen.plan.datasets[column]
                data[column] = datasets.load(column, config, data_root=data_root, device=device)
        made = {
            column: [_study(design, opened, replicas_per_pass, device) for design in found]
            for column, found in studied.items()
        }
        for column, found in studied.items():
            waiting = []
            for design, study in zip(found, made[column], strict=True):
                asked = max(trials, study.user_attrs.get("trials", 0), len(_done(study)))
                study.set_user_attr("trials", asked)  # fewer now hide none of those before from a report
                done = len(complete(design, study, trials))
                nothing = ", nothing to train" if done == trials else ""
                console.print(
                    f"{study.study_name}: {done} of {trials} configurations complete{nothing}", markup=False
                )
                if done < trials:
                    waiting.append((design, study))
            for design, study in waiting:
                optuna_storage.check_data(study, data[column].checksum)
                Conductor(design, study, opened, chosen.store, data[column], device).conduct(trials)
        if storage is not None:
            for found in studied.values():
                _keep(found, opened, chosen.store)


def _is_complete(design: Design, storage: RDBStorage, trials: int) -> bool:
    """Whether the study has all that is asked for; `UserError` if it was made for another design."""
    if design.name not in optuna.get_all_study_names(storage):
        return False
    study = optuna.load_study(study_name=design.name, storage=storage)
    check(design, study)
    return len(complete(design, study, trials)) == trials


def _keep(found: list[Design], elsewhere: RDBStorage, store: Store) -> None:
    """Copy studies into the results folder, whose reports read nothing else, where it has less of them."""
    store.root.mkdir(parents=True, exist_ok=True)
    with optuna_storage.driver(default_storage(store)) as here:
        names = optuna.get_all_study_names(here)
        for design in found:
            if design.name in names:
                known = optuna.load_study(study_name=design.name, storage=here)
                there = optuna.load_study(study_name=design.name, storage=elsewhere)
                check(design, known)
                if len(_done(known)) >= len(_done(there)):
                    continue
                optuna.delete_study(study_name=design.name, storage=here)
            optuna.copy_study(from_study_name=design.name, from_storage=elsewhere, to_storage=here)


def _done(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _study(
    design: Design, storage: RDBStorage, replicas_per_pass: int | None, device: torch.device
) -> optuna.Study:
    run = design.run
    fitting = replicas_per_pass or memory.replicas_per_pass(
        METHODS[run.method], run.dims, run.batch_size, device
    )
    study = open_study(design, storage, fitting)
    size = study.user_attrs["replicas_per_pass"]
    if replicas_per_pass not in (None, size):
        raise UserError(
            f"--replicas-per-pass: {replicas_per_pass} found, but the study {design.name!r} trains {size} "
            "configurations side by side since it was made"
        )
    return study
