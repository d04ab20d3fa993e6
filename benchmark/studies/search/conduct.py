"""Hyperparameter search by the paper's protocol: `python -m benchmark.search`.

The last training samples are the validation set; the test set is never looked at. Configurations train side
by side as replicas, in waves, and are thinned out by successive halving over epochs. An Optuna study keeps
every one of them; the winner becomes a patch of the plan for a person to review.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import optuna
import pandas as pd
import torch
import typer
from rich.console import Console

from benchmark import datasets
from benchmark.cli.options import (
    RESULTS,
    DataRoot,
    Datasets,
    DeviceName,
    Methods,
    Results,
    Selection,
    check_number,
    console,
    given_path,
    pick_device,
    run_app,
)
from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.common.progress import progress_bar
from benchmark.config import CONFIGS, LAST_SEED, PlanConfig, load_search, plan_file
from benchmark.engine.samples import Dataset
from benchmark.engine.training import EpochResult
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.search.design import EXACT, UNDER_WAY, Search, kept
from benchmark.studies.search.halving import DIVERGED, Wave
from benchmark.studies.search.plan_patch import plan_patch
from benchmark.sweep.execute import Progress
from benchmark.sweep.plan import Run


def conduct(
    search: Search,
    study: optuna.Study,
    data: Dataset,
    device: torch.device,
    store: Store,
    console: Console,
) -> None:
    """Train waves of configurations until there are as many as asked for.

    A wave is kept in the study from when it is drawn, first its configurations, then their errors, until each
    of them is a trial. So it stays as it was drawn, and trains once, wherever this is stopped.
    """
    data = data.hold_out(search.validation_samples)
    run = replace(search.run, seeds=[search.seed], epochs=search.space.rungs[-1])
    while (begun := study.user_attrs.get(UNDER_WAY)) or len(kept(study)) < search.trials:
        if not begun:
            done = kept(study)
            begun = {"after": len(done), "options": search.choice(done), "configurations": search.draw(done)}
            study.set_user_attr(UNDER_WAY, begun)
        options = {**run.options, **begun.get("options", {})}
        part = replace(run, options=options)
        wave = Wave(part, search.space, begun["configurations"], data, device, store)
        if "errors" not in begun:
            number = math.ceil(begun["after"] / search.wave) + 1
            begun["errors"] = _train(wave, number, console)
            begun["device"] = provenance.device_name(device)
            study.set_user_attr(UNDER_WAY, begun)
        told = len(kept(study)) - begun["after"]
        for configuration, errors in list(zip(wave.configurations, begun["errors"], strict=True))[told:]:
            study.add_trial(search.trial(configuration, errors, begun["device"]))
        wave.forget()
        study.set_user_attr(UNDER_WAY, None)


def _train(wave: Wave, number: int, console: Console) -> list[list[float]]:
    """The errors of every configuration, by rung, as far as it came."""
    found: list[list[float]] = [[] for _ in wave.configurations]
    with progress_bar(console, f"wave {number}", wave.run.total_epochs) as update:
        for rung, errors in wave.rungs(_advance(update)):
            for index, error in errors.items():
                found[index].append(error)
            best = min(errors, key=errors.__getitem__)
            chosen = wave.configurations[best].items()
            values = ", ".join(f"{n} {v:.4g}" if isinstance(v, float) else f"{n} {v}" for n, v in chosen)
            shown = f"{len(errors)} configurations, best {errors[best]:.2f} % ({values})"
            console.print(f"  wave {number}, epoch {rung}: {shown}", markup=False)
    return found


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
    if EXACT in best.user_attrs:
        return search.entry(best.params, note)
    short = {n: float(f"{v:.4g}") if isinstance(v, float) else v for n, v in best.params.items()}
    return search.entry(short, note)


def _has_winner(plan: PlanConfig, run: Run, found: Mapping[str, Any]) -> bool:
    """Whether the cell itself has these values from a search: another note alone is no reason for a patch."""
    given = plan.rows[run.row].hyperparameters.get(run.column)
    return (
        given is not None
        and given.source == "search"
        and given.values.items() <= found.items()
        and given.options == found.get("options", {})
    )


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


def _search(search: Search, data: Dataset, chosen: Selection, file: Path, device: torch.device) -> None:
    """Conduct a search to its end, and write its table and, if it found anything new, its patch of `file`."""
    with search.study(chosen.store) as study:
        done = len(kept(study))
        found = f"{done} configurations complete, {search.trials} asked for"
        if begun := study.user_attrs.get(UNDER_WAY):
            found += f", a wave of {len(begun['configurations'])} goes on"
        elif done >= search.trials:
            found += ", nothing to train"
        console.print(f"{search.name}: {found}", markup=False)
        optuna_storage.check_data(study, data.checksum)
        conduct(search, study, data, device, chosen.store, console)
        texts = {"csv": frame(study).to_csv(index=False, lineterminator="\n")}
        has_learned = study.best_value < DIVERGED
        if has_learned and _has_winner(chosen.plan.config, search.run, best := winner(search, study)):
            console.print(f"{search.name}: {file} has its winner already", markup=False)
        elif has_learned:
            texts["patch"] = plan_patch(file, search.run.row, search.run.column, best)
        for suffix, text in texts.items():
            written = search.folder(chosen.store) / f"{slug(search.run.row)}.{suffix}"
            with atomic_file(written) as stream:
                stream.write(text.encode())
            console.print(f"written: {written}", markup=False)
        if not has_learned:
            raise UserError(f"{search.name}: every configuration diverged, so there is no patch")


def command(
    method: Methods = None,
    dataset: Datasets = None,
    plan: Annotated[str, typer.Option(help="The plan whose rows are searched for.")] = "table2",
    spaces: Annotated[
        Path, typer.Option(parser=given_path, metavar="FILE", help="Search spaces by row.")
    ] = CONFIGS / "search.yaml",
    trials: Annotated[int | None, typer.Option(help="Other than the row's number of trials.")] = None,
    seed: Annotated[int | None, typer.Option(help="Other than the file's seed.")] = None,
    data_root: DataRoot = None,
    results: Results = RESULTS,
    device: DeviceName = "auto",
) -> None:
    """Search hyperparameters of a plan's rows on held-out training samples; write a patch of the plan."""
    chosen = Selection(plan, results, dataset=dataset, method=method, data_root=data_root, empty_cells=True)
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
    for loaded in data.values():
        loaded.hold_out(config.validation_samples)  # has so many
    if len(searches) > 1:
        names = ", ".join(search.name for search in searches)
        console.print(f"{len(searches)} searches, one after the other: {names}", markup=False)
    failures: list[str] = []
    for search in searches:
        try:
            _search(search, data[search.run.column], chosen, file, on)
        except UserError as error:  # another process has this one, say; the others go on
            failures += error.args
    if len(searches) > 1:
        console.print(
            "patches change neighbouring lines: apply one, and run this again, which writes the next anew",
            markup=False,
        )
    if failures:
        raise UserError(*failures)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app)
