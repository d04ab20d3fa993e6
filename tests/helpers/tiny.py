"""A plan of two rows that trains in a second, and what the tests of plans, states and training do with it."""

from pathlib import Path
from typing import Any

import torch

from benchmark.engine.samples import Dataset
from benchmark.sweep.execute import execute
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State

MINI = "fashion-mnist-mini"
RATES = "lr: 0.5, stepsize: 0.07, lr_feedback: 0.0015, noise_std: 0.02"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 1, batch_size: 512, seeds: [1, 2], source: guess}}
networks:
  1x8: {{hidden_layers: 1, width: 8, source: guess}}
columns:
  {MINI}: {{network: 1x8, half_width: 6}}
rows:
  BP:
    method: BP
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
  DTP:
    method: DTP
    options: {{feedback_updates: 2}}
    hyperparameters: {{{MINI}: {{{RATES}, source: guess}}}}
"""
CPU = torch.device("cpu")


def select(folder: Path, text: str = PLAN, name: str = "tiny", **options: Any) -> Selection:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    given = {"dataset": None, "method": None, "seeds": None, "epochs": None, **options}
    return Selection(str(file), folder / "results", **given)


def picked(chosen: Selection, row: str = "BP") -> Run:
    run = chosen.plan.run(row, MINI)
    assert run is not None
    return run


def train(chosen: Selection, data: Dataset, row: str = "BP") -> None:
    execute(picked(chosen, row), data, chosen.store, CPU, lambda done, result: None, checkpoint_seconds=0.0)


def states(chosen: Selection) -> dict[str, State]:
    return {found.run.row: found.state for found in chosen.statuses()}
