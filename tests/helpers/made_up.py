"""A plan held against made-up numbers of the paper; stores filled with made-up errors and accuracies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import create_trial

from benchmark.config import PaperCell, PaperTable
from benchmark.store.record import EPOCH_COLUMNS
from benchmark.studies.sensitivity import design as sensitivity_design
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection

PLAN = """
title: Made up
comparable: true
protocol: {epochs: 1, batch_size: 256, seeds: [1, 2], source: guess}
networks:
  1x8: {hidden_layers: 1, width: 8, source: guess}
  2x8: {hidden_layers: 2, width: 8, source: guess}
columns:
  mnist: {network: 1x8, half_width: 4}
  fashion-mnist: {network: 1x8, half_width: 4}
  fashion-mnist-mini: {network: 2x8, half_width: 4, addition: true}
rows:
  BP:
    method: BP
    hyperparameters: &bp {mnist: {lr: 0.1, source: guess}, fashion-mnist-mini: {lr: 0.1, source: guess}}
  BP (as released):
    method: BP
    options: {as_released: true}
    addition: true
    hyperparameters: *bp
  DTP:
    method: DTP
    hyperparameters: &dtp
      mnist: {lr: 1.0, stepsize: 0.07, lr_feedback: 0.01, noise_std: 0.02, source: guess}
  DRL:
    method: DRL
    hyperparameters: *dtp
  L-DRL:
    method: L-DRL
    hyperparameters: *dtp
  'L-DRL #2_a & b':
    method: L-DRL
    addition: true
    size: half
    hyperparameters: *dtp
"""
MARGINS = PLAN.replace("rows:", "margins: {mnist: 0.3, fashion-mnist: 0.6}\nrows:")
PAPER = PaperTable(
    n=5,
    spread="-",
    unit="-",
    cells={
        "BP": {"mnist": PaperCell(mean=1.85, std=0.09)},
        "DTP": {"mnist": PaperCell(mean=2.5, std=0.5), "fashion-mnist": PaperCell(mean=11.77, std=0.16)},
        "DRL": {"mnist": PaperCell(mean=9.0, std=0.5)},
    },
)


def record_of(run: Run, checksum: str = "d" * 64, **made: Any) -> dict[str, Any]:
    """What the store keeps of a run beside its numbers."""
    sitting = {
        "started": "2026-01-02T03:04:05+00:00",
        "device": "Abacus",
        "versions": {"torch": "2", "commit": "0"},
    }
    return {
        "row": run.row,
        "spec": run.spec,
        "data": {"checksum": checksum, "train_samples": 60_000},
        "finished": "2026-01-02T04:05:06+00:00",
        "training_seconds": 3.0,
        "sittings": [sitting],
        **made,
    }


def select(folder: Path, text: str = PLAN, **options: Any) -> Selection:
    file = folder / "made up.yaml"
    file.write_text(text)
    given = {"dataset": None, "method": None, "seeds": None, "epochs": None, **options}
    return Selection(str(file), folder / "results", **given)


def fill(
    chosen: Selection, finals: Mapping[str, list[float]], diverged: int = 0, data: str = "d" * 64
) -> None:
    """Store made-up final errors of rows on MNIST."""
    for row, errors in finals.items():
        run = chosen.plan.run(row, "mnist")
        assert isinstance(run, Run)
        lines = [
            [epoch, seed, 0.5, error if epoch == run.epochs else 99.0, position < diverged]
            for epoch in range(1, run.epochs + 1)
            for position, (seed, error) in enumerate(zip(run.seeds, errors, strict=True))
        ]
        chosen.store.commit(row, record_of(run, data), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))


def fill_late(chosen: Selection) -> None:
    """Thirty epochs of BP on MNIST: the tenth and the last three at the paper's 1.85 %, the others at 9 %."""
    run = chosen.plan.run("BP", "mnist")
    assert isinstance(run, Run)
    lines = [
        [epoch, seed, 0.5, (1.85 if epoch > 27 or epoch == 10 else 9.0) + 0.001 * seed, False]
        for epoch in range(1, 31)
        for seed in run.seeds
    ]
    chosen.store.commit("BP", record_of(run), pd.DataFrame(lines, columns=list(EPOCH_COLUMNS)))


def fill_study(
    chosen: Selection,
    row: str,
    accuracies: Sequence[float],
    diverged: Sequence[int] = (),
    data: str = "d" * 64,
    storage: str | None = None,
    **options: Any,
) -> optuna.Study:
    """A study whose configurations reached these accuracies."""
    column = options.pop("column", sensitivity_design.default_column(chosen.plan))
    (made,) = sensitivity_design.designs(chosen.plan, [row], column, **options)
    chosen.root.mkdir(parents=True, exist_ok=True)
    opened = optuna.storages.RDBStorage(storage or sensitivity_design.default_storage(chosen.store))
    study = sensitivity_design.open_study(made, opened, 25)
    study.set_user_attr("data", data)
    for index, accuracy in enumerate(accuracies):
        study.add_trial(
            create_trial(
                params=made.configuration(index),
                distributions=made.distributions,
                value=accuracy,
                user_attrs={"index": index, "diverged": index in diverged},
            )
        )
    return study
