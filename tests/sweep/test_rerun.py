"""Stored runs trained once more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.common.errors import DataNotFound, UserError
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Compile, Execution
from benchmark.methods.bp import BP
from benchmark.store.record import StoredRun
from benchmark.sweep import rerun
from benchmark.sweep.execute import execute
from benchmark.sweep.rerun import choose, repeat, run_of
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from tests.helpers import commands
from tests.helpers.commands import MINI

PLAN = (
    commands.PLAN.replace("epochs: 1", "epochs: 3")
    + f"""
  FW-DTP:
    method: FW-DTP
    hyperparameters: {{{MINI}: {{lr: 0.1, stepsize: 0.04, source: guess}}}}
"""
)
CPU = torch.device("cpu")


def silent(done: int, result: object) -> None:
    pass


@pytest.fixture
def chosen(tmp_path: Path, data: Dataset) -> Selection:
    (tmp_path / "tiny.yaml").write_text(PLAN)
    selection = Selection(str(tmp_path / "tiny.yaml"), tmp_path / "results")
    for run in selection.plan.runs(selection.rows, selection.columns):
        execute(run, data, selection.store, CPU, lambda done, result: None)
    return selection


def stored(chosen: Selection, row: str = "BP") -> StoredRun:
    run = chosen.plan.run(row, MINI)
    assert run is not None
    found = chosen.store.load(run.key)
    assert found is not None
    return found


@pytest.mark.parametrize(("asked", "compared"), [(None, 3), (1, 1), (2, 2), (9, 3)])
def test_the_same_numbers_come_out_again(
    chosen: Selection, data: Dataset, asked: int | None, compared: int
) -> None:
    before = chosen.store.folders()
    for row in ("BP", "FW-DTP"):
        found = repeat(stored(chosen, row), run_of(stored(chosen, row), asked), data, CPU, silent)
        assert (found.epochs, found.alike, found.loss, found.error) == (compared, compared, 0.0, 0.0)
        assert found.within(0.0)
        assert found.verdict(0.0) == "identical"
    assert chosen.store.folders() == before


def test_a_forged_number_is_found(chosen: Selection, data: Dataset) -> None:
    genuine = stored(chosen)
    forged = genuine.epochs.copy()
    forged.loc[(forged["epoch"] == 3) & (forged["seed"] == 2), "test_error"] -= 3.0
    found = repeat(StoredRun(genuine.folder, genuine.record, forged, {}), run_of(genuine), data, CPU, silent)
    assert found.alike == 2
    assert found.error == pytest.approx(1.5)
    assert not found.within(1.4)
    assert found.within(1.6)
    assert found.verdict(1.4) == "DIFFERS (from epoch 3)"
    assert found.verdict(1.6) == "agrees (identical up to epoch 2)"


def test_what_diverged_diverges_again(chosen: Selection, data: Dataset) -> None:
    run = chosen.plan.run("BP", MINI)
    assert run is not None
    run = replace(run, hyperparameters={name: 1e38 for name in run.hyperparameters})
    execute(run, data, chosen.store, CPU, silent)
    diverged = chosen.store.load(run.key)
    assert diverged is not None
    assert diverged.epochs["train_loss"].isna().any()
    assert repeat(diverged, run, data, CPU, silent).verdict(0.0) == "identical"


def test_other_images_or_another_version_are_refused(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Dataset(data.name, data.train, data.test, data.source, "0" * 64)
    key = stored(chosen).record["key"]
    with pytest.raises(UserError, match="other images"):
        choose(chosen.store.runs(), [key], 1, 1, lambda _: other)
    run = stored(chosen)
    monkeypatch.setattr(BP, "version", 2)
    with pytest.raises(UserError, match=r"'version': 1}, this code has .*'version': 2}"):
        run_of(run)


def test_choice(chosen: Selection, data: Dataset) -> None:
    runs = chosen.store.runs()

    def drawn(keys: list[str], count: int, seed: int = 1) -> list[str]:
        return [run.record["key"] for run, _ in choose(runs, keys, count, seed, lambda _: data)]

    assert drawn([], 2) == drawn([], 2)
    assert len(set(drawn([], 2))) == 2
    assert {key for seed in range(9) for key in drawn([], 1, seed)} == {run.record["key"] for run in runs}
    assert len(drawn([], 9)) == 3
    folder = runs[0].folder
    for named in (runs[0].record["key"], folder.name, str(folder), f"{folder}/"):
        assert drawn([named], 1) == [runs[0].record["key"]]
    with pytest.raises(UserError, match="no stored run has the key zzz"):
        drawn([runs[0].record["key"], "zzz"], 1)


def test_runs_without_data_are_not_drawn(chosen: Selection, data: Dataset) -> None:
    here, there = stored(chosen, "BP"), stored(chosen, "FA")
    spec = {**there.spec, "dataset": {**there.spec["dataset"], "name": "there"}}
    there = replace(there, record={**there.record, "spec": spec})

    def load(run: StoredRun) -> Dataset:
        if run.column == "there":
            raise DataNotFound("no data set there")
        return data

    for seed in range(4):
        assert choose([here, there], [], 2, seed, load) == [(here, data)]
    for keys in ([], [there.record["key"]]):
        with pytest.raises(UserError, match="no data set there"):
            choose([there], keys, 1, 1, load)


def test_runs_of_another_version_are_not_drawn(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored(chosen)
    monkeypatch.setattr(BP, "version", 2)
    with pytest.raises(UserError, match="other versions"):
        choose([run], [], 1, 1, lambda _: data)


@pytest.mark.parametrize(
    ("sittings", "expected"),
    [
        ([{"execution": "compiled"}], Compile.ON),
        ([{"execution": "graphed"}, {"execution": "graphed"}], Compile.AUTO),
        ([{"execution": "eager"}], Compile.OFF),
        ([{"execution": "compiled"}, {"execution": "eager"}], Compile.OFF),
        ([{"compiled": True}], Compile.ON),  # as the first runs say it
        ([{"compiled": False}], Compile.OFF),
        ([{}], Compile.OFF),
    ],
)
def test_a_run_is_repeated_as_it_was_executed(
    chosen: Selection,
    data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    sittings: list[dict[str, Any]],
    expected: Compile,
) -> None:
    run = stored(chosen)
    asked = []
    monkeypatch.setattr(Run, "execution", lambda run, setting, *_: asked.append(setting) or Execution.EAGER)
    changed = replace(run, record={**run.record, "sittings": sittings})
    repeat(changed, run_of(run), data, CPU, silent)
    assert asked == [expected]


@pytest.mark.parametrize(("size", "expected"), [(None, 3), (3, 3), (2, 2)])
def test_a_run_is_repeated_in_its_passes(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, size: int | None, expected: int
) -> None:
    found = stored(chosen)
    run = run_of(found)
    record = {**found.record, "sittings": [{"replicas_per_pass": size} if size else {}]}
    record["spec"] = {**found.spec, "seeds": [1, 2, 3]}
    asked = []
    train = rerun.train
    monkeypatch.setattr(rerun, "train", lambda *given: asked.append(given[-1]) or train(*given[:-1]))
    repeat(replace(found, record=record), run, data, CPU, silent)
    assert asked == [expected]
