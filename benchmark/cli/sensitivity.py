"""`sensitivity`: train the configurations of Figure 3 and draw it."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import (
    DataRoot,
    Datasets,
    DeviceName,
    Epochs,
    PrecisionSetting,
    ReplicasPerPass,
    Results,
    pick_device,
)
from benchmark.common.errors import UserError
from benchmark.common.files import RESULTS
from benchmark.common.progress import console
from benchmark.config import LAST_SEED, MOST_EPOCHS
from benchmark.report import figure3
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity.design import (
    SEED,
    TRIALS,
    default_column,
    default_rows,
    default_storage,
    designs,
)
from benchmark.studies.sensitivity.study import PROFILES, train_designs
from benchmark.sweep.selection import Selection, check_number


def command(
    trials: Annotated[int, typer.Option(help="Number of configurations for each method.")] = TRIALS,
    methods: Annotated[
        list[str] | None, typer.Option("--method", "--methods", help="Rows of the plan (repeat, or a,b).")
    ] = None,
    dataset: Datasets = None,
    epochs: Epochs = None,
    precision: PrecisionSetting = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL instead of a SQLite file in the results folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the configurations and of their training.")] = SEED,
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
    train_designs(chosen, studied, trials, storage, replicas_per_pass, data_root, on)
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
