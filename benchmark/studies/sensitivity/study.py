"""The sensitivity study of Figure 3: `python -m benchmark.sensitivity`.

Configurations train side by side as replicas of a pass. An Optuna study records them, one trial each. A
killed pass resumes from its checkpoint in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
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
    """Train the configurations of one design, pass by pass."""

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
        optuna_storage.requeue(self.study, self.storage)
        enqueue(self.design, self.study, trials)
        try:
            for first, end in passes:
                started = self._start(first, end)
                if started:
                    self._train(first, end, started)
        finally:
            optuna_storage.requeue(self.study, self.storage)
        for first, end in passes:
            self._tidy(first, end)

    def _start(self, first: int, end: int) -> dict[int, int]:
        """Set the waiting trials of a pass running. Returns their ids by configuration index."""
        waiting = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if first <= (index := trial.user_attrs.get("index", -1)) < end:
                waiting[index] = trial._trial_id
        for trial_id in waiting.values():
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return waiting

    def _train(self, first: int, end: int, started: Mapping[int, int]) -> None:
        """Train configurations `first` to `end` - 1 in one pass, or in halves if memory runs out.

        A pass always trains all of its configurations, so that its numbers are always the same. Only the
        `started` trials are recorded.
        """
        if not any(first <= index < end for index in started):
            return
        if not self._is_halved(first, end):
            run = self.design.replicas(range(first, end))
            with self.store.claim(run.key, f"{run.row} on {run.column}"):
                trained = self._attempt(run, f"{first}-{end - 1}")
                if trained is not None:
                    self._tell(trained, first, end, started)
                self.store.forget(run.key)
            if trained is not None:
                return
            if end - first == 1:
                raise UserError(f"{run.row} on {run.column}: not enough memory for a single configuration")
            console.print(f"  {end - first} configurations at once: out of memory, halving", markup=False)
            self.study.set_user_attr(f"halved {first}-{end}", True)
        middle = (first + end) // 2
        self._train(first, middle, started)
        self._train(middle, end, started)

    def _is_halved(self, first: int, end: int) -> bool:
        return f"halved {first}-{end}" in self.study.user_attrs

    def _tidy(self, first: int, end: int) -> None:
        """Remove the checkpoint of a pass that was killed after its last trial was completed."""
        self.store.discard(self.design.replicas(range(first, end)).key)
        if self._is_halved(first, end):
            middle = (first + end) // 2
            self._tidy(first, middle)
            self._tidy(middle, end)

    def _attempt(self, run: Run, label: str) -> Trained | None:
        """Train a run; None if memory ran out."""
        try:
            with progress_bar(console, f"{run.row} {label}", run.total_epochs) as update:
                advance, size = _advance(update), len(run.seeds)
                return executor.train(run, self.data, self.store, self.device, advance, Compile.AUTO, size)
        except Exception as error:
            if not memory.ran_out(error):
                raise
        # Outside the except block, nothing refers to the tensors any more.
        memory.give_back(self.device)
        return None

    def _tell(self, trained: Trained, first: int, end: int, started: Mapping[int, int]) -> None:
        """Complete the started trials: test accuracy in %, an intermediate value for each epoch."""
        epochs = trained.epochs
        # A diverged replica has the error of chance level, never NaN, which Optuna would record as FAIL.
        accuracy = 100.0 - epochs["test_error"].to_numpy(float).reshape(-1, end - first)
        diverged = epochs["diverged"].to_numpy(bool).reshape(-1, end - first)[-1]
        for index in range(first, end):
            if index not in started:
                continue
            trial, column = started[index], index - first
            for epoch, value in enumerate(accuracy[:, column], 1):
                self.storage.set_trial_intermediate_value(trial, epoch, float(value))
            self.storage.set_trial_user_attr(trial, "diverged", bool(diverged[column]))
            self.storage.set_trial_user_attr(trial, "sittings", trained.record["sittings"])
            self.storage.set_trial_state_values(trial, TrialState.COMPLETE, [float(accuracy[-1, column])])


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

    `storage` is the URL of an Optuna storage outside the results folder. Its studies are copied into the
    results folder at the end.
    """
    if storage is None or not storage.startswith("sqlite"):
        chosen.root.mkdir(parents=True, exist_ok=True)
    lock = chosen.root / "sensitivity.lock"
    with optuna_storage.driver(storage or default_storage(chosen.store), lock) as opened:
        data = {}  # loaded before a study is made
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
                study.set_user_attr("trials", asked)  # a report still shows earlier trials
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
    """Whether all requested trials are complete. `UserError` if the study was made for another design."""
    if design.name not in optuna.get_all_study_names(storage):
        return False
    study = optuna.load_study(study_name=design.name, storage=storage)
    check(design, study)
    return len(complete(design, study, trials)) == trials


def _keep(found: list[Design], elsewhere: RDBStorage, store: Store) -> None:
    """Copy studies with more complete trials into the results folder, which reports read."""
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
