"""The sensitivity study of Figure 3: `python -m benchmark.sensitivity`.

Configurations train side by side as replicas. Optuna keeps them; what a pass of them needs to go on after
a kill is a run's checkpoint in the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import optuna
import torch
import typer
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from benchmark import datasets
from benchmark.cli.options import (
    RESULTS,
    DataRoot,
    Datasets,
    DeviceName,
    Epochs,
    PrecisionSetting,
    ReplicasPerPass,
    Results,
    Selection,
    check_number,
    console,
    pick_device,
    run_app,
)
from benchmark.common.errors import UserError
from benchmark.common.progress import progress_bar
from benchmark.config import LAST_SEED, MOST_EPOCHS
from benchmark.engine import memory
from benchmark.engine.compilation import Compile
from benchmark.engine.samples import Dataset
from benchmark.engine.training import EpochResult
from benchmark.methods import METHODS
from benchmark.report import figure3
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import (
    SEED,
    TRIALS,
    Design,
    check,
    complete,
    default_column,
    default_rows,
    default_storage,
    designs,
    enqueue,
    open_study,
)
from benchmark.sweep import execute as executor
from benchmark.sweep.assembly import Trained
from benchmark.sweep.plan import Run

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


def command(
    trials: Annotated[int, typer.Option(help="Configurations a method.")] = TRIALS,
    methods: Annotated[
        list[str] | None, typer.Option("--method", "--methods", help="Rows (repeat, or a,b).")
    ] = None,
    dataset: Datasets = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL instead of a SQLite file in the results folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the configurations and of their training.")] = SEED,
    replicas_per_pass: ReplicasPerPass = None,
    results: Results = RESULTS,
    data_root: DataRoot = None,
    device: DeviceName = "auto",
    profile: Annotated[
        str, typer.Option("--profile", "--plan", help="paper (the plan table2), or another plan.")
    ] = "paper",
) -> None:
    """Train random configurations around a method's hyperparameters; draw Figure 3."""
    check_number("--trials", trials)
    check_number("--epochs", epochs, most=MOST_EPOCHS)
    check_number("--seed", seed, least=0, most=LAST_SEED)
    check_number("--replicas-per-pass", replicas_per_pass)
    if storage == "":
        raise UserError("--storage: '' found, allowed: the URL of a database, such as sqlite:///study.db")
    plan = PROFILES.get(profile, profile)
    chosen = Selection(
        plan, results, dataset=dataset, method=methods, data_root=data_root, precision=precision
    )
    rows = chosen.rows if methods is not None else default_rows(chosen.plan)
    columns = chosen.columns if dataset is not None else [default_column(chosen.plan)]
    studied = {column: designs(chosen.plan, rows, column, epochs, seed) for column in columns}
    on = pick_device(device, chosen.precision)
    chosen.refuse_unwritable()
    if storage is not None and optuna_storage.same(storage, default_storage(chosen.store)):
        storage = None
    if storage is None:
        chosen.root.mkdir(parents=True, exist_ok=True)
    url = storage or default_storage(chosen.store)
    with optuna_storage.driver(url) as opened:
        data = {}  # before a study is made
        for column, found in studied.items():
            if not all(_is_complete(design, opened, trials) for design in found):
                config = chosen.plan.datasets[column]
                data[column] = datasets.load(column, config, data_root=data_root, device=on)
        made = {
            column: [_study(design, opened, replicas_per_pass, on) for design in found]
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
                Conductor(design, study, opened, chosen.store, data[column], on).conduct(trials)
        if storage is not None:
            for found in studied.values():
                _keep(found, opened, chosen.store)
    reported = rows if methods is not None and not set(rows) <= set(default_rows(chosen.plan)) else None
    for column in columns:
        figure = figure3.build(
            chosen.plan,
            chosen.store,
            rows=reported,
            column=column,
            epochs=epochs,
            seed=seed,
            trials=trials,
            storage=storage,
        )
        written = figure3.write(figure, chosen.figures, chosen.root / "tables")
        figure3.show(figure, console)
        for file in written:
            console.print(f"written: {file}", markup=False)


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


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)
