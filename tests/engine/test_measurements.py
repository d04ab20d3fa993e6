"""Measurements during training: when they are taken, where they are kept, and that they change nothing."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.config import load_datasets, load_paper_values, load_plan
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import MEASUREMENTS
from benchmark.report import table2
from benchmark.store.record import StoredRun
from benchmark.sweep import execute as executor
from benchmark.sweep.execute import execute
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State
from tests.helpers import tiny
from tests.helpers.tiny import MINI

PLAN = (
    tiny.PLAN.replace("epochs: 1", "epochs: 3")
    .replace("1x8", "2x8")
    .replace("hidden_layers: 1", "hidden_layers: 2")
)
MEASURE = "measure:\n  {name}: {{rows: [{row}], columns: [{column}]}}\n"


def select(folder: Path, name: str | None = "jacobian", row: str = "DTP", column: str = MINI) -> Selection:
    folder.mkdir(exist_ok=True)
    file = folder / "tiny.yaml"
    file.write_text(PLAN + ("" if name is None else MEASURE.format(name=name, row=row, column=column)))
    return Selection(str(file), folder / "results")


def trained(chosen: Selection, data: Dataset) -> StoredRun:
    run = chosen.plan.run("DTP", MINI)
    assert run is not None
    execute(run, data, chosen.store, torch.device("cpu"), lambda done, result: None)
    stored = chosen.store.load(run.key)
    assert stored is not None
    return stored


@pytest.mark.parametrize("name", list(MEASUREMENTS))
def test_measuring_changes_no_number_but_the_key(tmp_path: Path, data: Dataset, name: str) -> None:
    plain, measured = (trained(select(tmp_path / str(n), n), data) for n in (None, name))
    assert measured.epochs.equals(plain.epochs)
    assert plain.measured == {}
    assert measured.record["key"] != plain.record["key"]
    table = measured.measured[name]
    assert list(table.columns) == ["epoch", "seed", *MEASUREMENTS[name].columns]
    assert sorted(table["seed"].unique()) == [1, 2]
    epochs = [0, 1, 2, 3] if MEASUREMENTS[name].every_epoch else [0, 3]
    assert sorted(table["epoch"].unique()) == epochs
    assert (table.groupby(["epoch", "seed"]).size() == len(table) / len(epochs) / 2).all()


class Interrupted(Exception):
    pass


def test_interrupted_anywhere_the_tables_are_the_same(tmp_path: Path, data: Dataset) -> None:
    whole = trained(select(tmp_path / "whole"), data)
    chosen = select(tmp_path / "broken")
    run = chosen.plan.run("DTP", MINI)
    assert run is not None
    for stop in range(run.total_epochs):

        def progress(done: int, result: object, stop: int = stop) -> None:
            if done == stop + 1:
                raise Interrupted

        with pytest.raises(Interrupted):
            execute(run, data, chosen.store, torch.device("cpu"), progress, checkpoint_seconds=0.0)
    again = trained(chosen, data)
    assert again.measured["jacobian"].equals(whole.measured["jacobian"])
    assert again.epochs.equals(whole.epochs)


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("epoch\n")])
def test_a_damaged_table_is_refused(tmp_path: Path, data: Dataset, damage) -> None:  # type: ignore[no-untyped-def]
    chosen = select(tmp_path)
    damage(trained(chosen, data).folder / "jacobian.csv")
    assert [found.state for found in chosen.statuses()] == [State.MISSING, State.DAMAGED]
    (problem,) = chosen.store.problems()
    assert "jacobian.csv" in problem


def test_a_run_without_its_measurement_counts_for_table_2_alone(tmp_path: Path, data: Dataset) -> None:
    plain = trained(select(tmp_path, None), data)
    chosen = select(tmp_path)
    (_, found) = chosen.statuses()
    assert (found.state, found.detail) == (State.UNMEASURED, "stored without jacobian")
    paper = load_paper_values()["table2"]

    def key() -> str | None:
        return table2.build(chosen.plan, chosen.store, paper).cells["DTP", MINI].key

    assert key() == plain.record["key"]
    measured = trained(chosen, data)
    assert key() == measured.record["key"]
    assert [status.state for status in chosen.statuses()] == [State.MISSING, State.STORED]


def test_one_measured_seed_does_not_hide_that_all_are_trained(tmp_path: Path, data: Dataset) -> None:
    trained(select(tmp_path, None), data)
    one = select(tmp_path)
    one.plan = one.plan.with_protocol([2], None)
    trained(one, data)
    (_, found) = select(tmp_path).statuses()
    assert found.state is State.PARTIAL
    assert found.detail == "stored without jacobian; with: 1 of 2 seeds stored"


def test_a_run_that_measured_more_serves_one_that_measures_less(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = trained(select(tmp_path), data)
    chosen = select(tmp_path, None)
    (_, found) = chosen.statuses()
    assert (found.state, found.detail) == (
        State.PARTIAL,
        "2 of 2 seeds stored, `run` assembles them",
    )
    monkeypatch.setattr(executor, "Training", None)
    plain = trained(chosen, data)
    assert plain.measured == {}
    assert plain.epochs.equals(measured.epochs)
    monkeypatch.undo()
    other = select(tmp_path, "conditions")  # not what was measured
    assert [found.state for found in other.statuses()] == [State.MISSING, State.UNMEASURED]


@pytest.mark.parametrize(
    ("name", "row", "column", "message"),
    [
        ("spectrum", "DTP", MINI, r"measure: unknown 'spectrum', allowed: jacobian, conditions"),
        ("jacobian", "TP", MINI, r"measure\.jacobian\.rows: unknown 'TP', allowed: BP, DTP"),
        ("jacobian", "DTP", "mnits", r"measure\.jacobian\.columns\.mnits: unknown data set, allowed: mnist"),
        ("jacobian", "BP", MINI, r"measure\.jacobian\.rows: BP has no decoders to measure"),
    ],
)
def test_bad_input(tmp_path: Path, name: str, row: str, column: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(tmp_path, name, row, column)


def test_the_shipped_plans_measure_what_the_paper_shows() -> None:
    for plan in ("table2", "quick"):
        config = load_plan(plan, load_datasets())
        (column,) = config.measure["jacobian"].columns
        assert config.measured("DTP", column) == ["jacobian", "conditions"]
        assert config.measured("L-DRL", column) == ["conditions"]
        assert config.measured("BP", column) == []


def test_nothing_is_measured_during_pretraining(tmp_path: Path, data: Dataset) -> None:
    table = trained(select(tmp_path), data).measured["jacobian"]
    assert isinstance(table, pd.DataFrame)
    assert not table.duplicated(["epoch", "seed", "encoder", "statistics"]).any()
