"""Hyperparameter search by the paper's protocol: `python -m benchmark.search`.

The last training samples are the validation set; the test set is never looked at. Configurations train side
by side as replicas, in waves, and are thinned out by successive halving over epochs. An Optuna study keeps
every one of them; the winner becomes a patch of the plan for a person to review.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from rich.console import Console

from benchmark.common import provenance
from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.common.progress import console, progress_bar
from benchmark.config import PlanConfig
from benchmark.engine.samples import Dataset
from benchmark.engine.training import EpochResult
from benchmark.store.record import slug
from benchmark.store.store import Store
from benchmark.studies import storage as optuna_storage
from benchmark.studies.search.design import EXACT, UNDER_WAY, Search, kept
from benchmark.studies.search.halving import DIVERGED, Wave
from benchmark.studies.search.plan_patch import plan_patch, write_entry
from benchmark.sweep.execute import Progress
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection


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


def run_search(
    search: Search,
    data: Dataset,
    chosen: Selection,
    file: Path,
    device: torch.device,
    *,
    apply: bool = False,
) -> None:
    """Conduct a search to its end. Write its table and, if the winner is new, a patch of the plan `file`.

    With `apply` the winner is written into the plan, too.
    """
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
            if apply:
                write_entry(file, search.run.row, search.run.column, best)
                console.print(f"{search.name}: the winner is in {file}", markup=False)
        for suffix, text in texts.items():
            written = search.folder(chosen.store) / f"{slug(search.run.row)}.{suffix}"
            with atomic_file(written) as stream:
                stream.write(text.encode())
            console.print(f"written: {written}", markup=False)
        if not has_learned:
            raise UserError(f"{search.name}: every configuration diverged, so there is no patch")
