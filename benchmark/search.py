"""Hyperparameter search by the paper's protocol: `python -m benchmark.search`.

The last training samples are the validation set; the test set is never looked at. Configurations train side
by side as replicas, in waves, and are thinned out by successive halving over epochs. An Optuna study keeps
every one of them; the winner becomes a patch of the plan for a person to review.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import pandas as pd
import torch
import typer
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from benchmark import datasets, optuna_storage, provenance
from benchmark.config import CONFIGS, LAST_SEED, SearchSpace, load_search, plan_file
from benchmark.errors import UserError
from benchmark.executor import Progress
from benchmark.halving import Configuration, Wave
from benchmark.methods import METHODS
from benchmark.options import (
    RESULTS,
    DataRoot,
    Datasets,
    DeviceName,
    Methods,
    Results,
    Selection,
    check_number,
    console,
    pick_device,
    run_app,
)
from benchmark.plan_patch import plan_patch
from benchmark.progress import progress_bar
from benchmark.results import Store, atomic_file, slug
from benchmark.samples import Dataset
from benchmark.sweep import Run, differences
from benchmark.training import EpochResult


@dataclass(frozen=True)
class Search:
    """What is searched for one row on one data set."""

    run: Run
    space: SearchSpace
    validation_samples: int
    seed: int
    guest: str = ""
    """See `Plan.guest`."""

    @property
    def name(self) -> str:
        """Of the Optuna study."""
        return f"{self.run.row} on {self.run.column}"

    @property
    def design(self) -> dict[str, Any]:
        """Everything but the number of trials that decides what the study holds."""
        varied = ("hyperparameters", "seeds", "epochs", "measure")
        spec = {name: value for name, value in self.run.spec.items() if name not in varied}
        space = self.space.model_dump(exclude={"trials"}, exclude_none=True)
        judged = f"over the last 1/{self.space.reduction} of the epochs"
        own = {"validation_samples": self.validation_samples, "seed": self.seed, "judged": judged}
        return {**spec, **own, "space": space}

    def check(self, file: Path) -> None:
        """`UserError` unless the space is one of the row's hyperparameters."""
        allowed = METHODS[self.run.method].hyperparameters
        if set(self.space.names) != set(allowed):
            raise UserError(
                f"{file}: rows.{self.run.row}: {', '.join(self.space.names)} found, "
                f"{self.run.method} takes {', '.join(allowed)}"
            )

    def entry(self, values: Configuration, note: str) -> dict[str, Any]:
        """A configuration as a plan's entry."""
        ordered = {name: values[name] for name in METHODS[self.run.method].hyperparameters}
        return {**ordered, "source": "search", "note": note}

    @property
    def trials(self) -> int:
        """Configurations in all."""
        grid = self.space.grid
        return self.space.trials if grid is None else math.prod(map(len, grid.values()))

    @property
    def wave(self) -> int:
        """Configurations trained side by side; a grid is one batch."""
        return self.space.wave if self.space.grid is None else self.trials

    def known(self) -> list[Configuration]:
        """What is tried whatever comes out: the whole grid, or the values that the plan has now."""
        grid = self.space.grid
        if grid is None and not self.run.hyperparameters:
            return []
        if grid is None:
            return [{name: float(value) for name, value in self.run.hyperparameters.items()}]  # type: ignore[arg-type]
        return [
            dict(zip(grid, map(float, values), strict=True)) for values in itertools.product(*grid.values())
        ]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Log-uniform, wide enough for the values that are tried anyway."""
        ends = self.space.grid or self.space.ranges or {}
        found: dict[str, BaseDistribution] = {}
        for name, values in ends.items():
            reached = [*values, *(configuration[name] for configuration in self.known())]
            found[name] = FloatDistribution(min(reached), max(reached), log=True)
        return found

    @contextmanager
    def study(self, store: Store) -> Iterator[optuna.Study]:
        """The Optuna study in `<store>/search/<data set>/<row>.db`, for this process alone.

        `UserError` if another process searches there, if the study was made for another design, or if it is
        gone and what it found is not.
        """
        file = self.file(store)
        file.parent.mkdir(parents=True, exist_ok=True)
        self.refuse_lost(store)
        with optuna_storage.driver(optuna_storage.sqlite_url(file)) as storage:
            study = optuna.create_study(storage=storage, study_name=self.name, load_if_exists=True)
            made_for = study.user_attrs.get("design")
            if made_for is None:
                for configuration in self.known():
                    study.enqueue_trial(dict(configuration), skip_if_exists=True)
                study.set_user_attr("design", self.design)
            elif (made_for := {"judged": "by the last epoch", **made_for}) != self.design:
                raise UserError(
                    f"{file}: this search was made with {differences(made_for, self.design)}; "
                    "search with another --results folder"
                )
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if set(trial.params) != set(self.space.names):  # stopped while it was drawn
                    study.tell(trial.number, state=TrialState.FAIL)
                    if known := trial.system_attrs.get("fixed_params"):
                        study.enqueue_trial(known)
            yield study

    def refuse_lost(self, store: Store) -> None:
        """`UserError` if the study is gone and what it found is not, which another would write over."""
        file = self.file(store)
        if file.exists() and file.stat().st_size:
            return
        found = [str(f) for f in map(file.with_suffix, (".csv", ".patch")) if f.exists()]
        if found:
            state = "empty" if file.exists() else "not there"
            raise UserError(
                f"{file}: {state}, but what its search found is; put it back, or move "
                f"{' and '.join(found)} away to search anew"
            )

    def file(self, store: Store) -> Path:
        """The study's database."""
        return self.folder(store) / f"{slug(self.run.row)}.db"

    def folder(self, store: Store) -> Path:
        """Where the search keeps what it finds."""
        return store.root / "search" / self.guest / self.run.column


def kept(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: those that were trained."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def conduct(
    search: Search,
    study: optuna.Study,
    data: Dataset,
    device: torch.device,
    store: Store,
    console: Console,
) -> None:
    """Train waves of trials until there are as many as asked for."""
    data = data.hold_out(search.validation_samples)
    run = replace(search.run, seeds=[search.seed], epochs=search.space.rungs[-1])
    while len(kept(study)) < search.trials:
        number, trials = _wave(search, study)
        live = {i: Trial(study, t._trial_id) for i, t in enumerate(trials) if not t.state.is_finished()}
        wave = Wave(run, search.space, [trial.params for trial in trials], data, device, store)
        with progress_bar(console, f"wave {number}", run.total_epochs) as update:
            for rung, errors in wave.rungs(_advance(update)):
                for index, error in errors.items():
                    if index in live and rung not in trials[index].intermediate_values:
                        live[index].report(error, rung)
                best = min(errors, key=errors.__getitem__)
                shown = ", ".join(f"{name} {value:.4g}" for name, value in trials[best].params.items())
                found = f"{len(errors)} configurations, best {errors[best]:.2f} % ({shown})"
                console.print(f"  wave {number}, epoch {rung}: {found}", markup=False)
        for index, trial in live.items():
            trial.set_user_attr("device", provenance.device_name(device))
            if index in errors:
                study.tell(trial, errors[index])
            else:
                study.tell(trial, state=TrialState.PRUNED)
        wave.forget()


def _wave(search: Search, study: optuna.Study) -> tuple[int, list[FrozenTrial]]:
    """Number and trials of a wave that was stopped, some of which may be told already, or of a new one."""
    done = kept(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = len(done) // search.wave + 1
    if running:
        number = next((t.user_attrs["wave"] for t in running if "wave" in t.user_attrs), number)
        told = [trial for trial in done if trial.user_attrs.get("wave") == number]
        return number, sorted([*told, *running], key=lambda trial: trial.number)
    # A sampler seeded once would draw the same in every process; what failed does not count, so that a wave
    # after a stop is drawn as it would have been without.
    drawn = len(study.trials) - len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))
    study.sampler = optuna.samplers.TPESampler(
        seed=search.seed + drawn, n_startup_trials=search.wave, multivariate=True
    )
    size = min(search.wave, search.trials - len(done))
    for trial in [study.ask(search.distributions()) for _ in range(size)]:
        trial.set_user_attr("wave", number)
    return number, study.get_trials(states=(TrialState.RUNNING,))


def _advance(update: Callable[[int, str], None]) -> Progress:
    def advance(done: int, result: EpochResult | None) -> None:
        errors = [] if result is None else result.test_error
        update(done, f"best of {len(errors)}: {min(errors):.2f} %" if errors else "")

    return advance


def winner(search: Search, study: optuna.Study) -> dict[str, Any]:
    """The best configuration as a plan's entry, with how it was found."""
    best, last = study.best_trial, search.space.rungs[-1]
    first = last - search.space.judged(last) + 1
    when = f"after {last} epochs" if first == last else f"over epochs {first} to {last}"
    epochs = sum(max(trial.intermediate_values) for trial in kept(study))
    assert best.datetime_complete is not None
    note = (
        f"Validation error {best.value:.2f} % {when}, best of "
        f"{len(kept(study))} configurations, {epochs} epochs in all, seed {search.seed}, "
        f"{best.datetime_complete:%Y-%m-%d}."
    )
    return search.entry({name: float(f"{value:.4g}") for name, value in best.params.items()}, note)


def frame(study: optuna.Study) -> pd.DataFrame:
    """Every trial that counts: state, epochs trained, validation error in % as judged there,
    hyperparameters."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "epochs": max(trial.intermediate_values),
            "validation_error": trial.intermediate_values[max(trial.intermediate_values)],
            **trial.params,
        }
        for trial in kept(study)
    ]
    return pd.DataFrame(rows)


def command(
    method: Methods = None,
    dataset: Datasets = None,
    plan: Annotated[str, typer.Option(help="The plan whose rows are searched for.")] = "table2",
    spaces: Annotated[Path, typer.Option(help="Search spaces by row.")] = CONFIGS / "search.yaml",
    trials: Annotated[int | None, typer.Option(help="Other than the row's number of trials.")] = None,
    seed: Annotated[int | None, typer.Option(help="Other than the file's seed.")] = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Search hyperparameters of a plan's rows on held-out training samples; write a patch of the plan."""
    chosen = Selection(plan, dataset, method, None, None, results, data_root, empty_cells=True)
    config = load_search(spaces)
    check_number("--trials", trials)
    check_number("--seed", seed, least=0, most=LAST_SEED)
    file = plan_file(plan)
    on = pick_device(device, chosen.precision)
    rows = chosen.rows
    if method is None:  # those that have a space
        rows = [row for row in rows if row in config.rows]
        if not rows:
            raise UserError(f"{file}: none of its rows has a search space in {spaces}")
    if dataset is None:  # all cells that the plan has, and no others
        runs = chosen.plan.runs(rows, chosen.columns)
    else:
        cells = itertools.product(chosen.columns, rows)
        runs = [chosen.plan.run(r, c) or chosen.plan.run_with(r, c, {}) for c, r in cells]
    searches = []
    for run in runs:  # all is checked before anything trains
        if run.row not in config.rows:
            found = ", ".join(config.rows)
            raise UserError(
                f"{spaces}: no search space for {run.row}, found: {found}; --spaces names another file"
            )
        space = config.rows[run.row]
        if trials is not None and space.grid is not None:
            raise UserError(f"--trials: {trials} found, but {run.row} is searched on a grid, always whole")
        if trials is not None:
            space = space.model_copy(update={"trials": trials})
        drawn = config.seed if seed is None else seed
        searches.append(Search(run, space, config.validation_samples, drawn, chosen.plan.guest))
        searches[-1].check(spaces)
        searches[-1].refuse_lost(chosen.store)
        # Whatever wins can be written there.
        plan_patch(file, run.row, run.column, searches[-1].entry(dict.fromkeys(space.names, 1.0), ""))
    catalogue = chosen.plan.datasets
    chosen.refuse_unwritable()
    data = {
        column: datasets.load(column, catalogue[column], data_root=data_root, device=on)
        for column in dict.fromkeys(run.column for run in runs)
    }
    if len(searches) > 1:
        names = ", ".join(search.name for search in searches)
        console.print(f"{len(searches)} searches, one after the other: {names}", markup=False)
    for search in searches:
        with search.study(chosen.store) as study:
            done = len(kept(study))
            nothing = ", nothing to train" if done >= search.trials else ""
            found = f"{done} configurations complete, {search.trials} asked for"
            console.print(f"{search.name}: {found}{nothing}", markup=False)
            conduct(search, study, data[search.run.column], on, chosen.store, console)
            folder = search.folder(chosen.store)
            for suffix, text in (
                ("csv", frame(study).to_csv(index=False, lineterminator="\n")),
                ("patch", plan_patch(file, search.run.row, search.run.column, winner(search, study))),
            ):
                with atomic_file(folder / f"{slug(search.run.row)}.{suffix}") as stream:
                    stream.write(text.encode())
                console.print(f"written: {folder / slug(search.run.row)}.{suffix}", markup=False)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)
