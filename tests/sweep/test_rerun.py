"""Stored runs trained once more."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.common.errors import DataNotFound, UserError
from benchmark.engine import flops
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Compile, Execution
from benchmark.methods.bp import BP
from benchmark.methods.fa import FA
from benchmark.store.record import StoredRun
from benchmark.sweep import rerun
from benchmark.sweep.execute import execute
from benchmark.sweep.rerun import choose, choose_at_hand, repeat, run_of
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
        choose_at_hand(chosen.store.runs(), [key], 1, 1, lambda _: other, pytest.fail)
    run = stored(chosen)
    monkeypatch.setattr(BP, "version", 2)
    with pytest.raises(UserError, match=r"'version': 1}, this code has .*'version': 2}"):
        run_of(run)


def test_choice(chosen: Selection) -> None:
    everything = {stored(chosen, row).record["key"] for row in ("BP", "FA", "FW-DTP")}
    drawn = choose(chosen.store.runs(), [], 2, 1)
    assert [run.record["key"] for run in drawn] == [
        r.record["key"] for r in choose(chosen.store.runs(), [], 2, 1)
    ]
    assert len({run.record["key"] for run in drawn}) == 2
    assert {run.record["key"] for run in choose(chosen.store.runs(), [], 9, 1)} == everything
    key = stored(chosen).record["key"]
    assert [run.record["key"] for run in choose(chosen.store.runs(), [key[:8]], 1, 1)] == [key]
    (folder,) = chosen.store.folders()[:1]
    for named in (folder.name, str(folder), f"{folder}/"):
        assert [run.folder for run in choose(chosen.store.runs(), [named], 1, 1)] == [folder]
    with pytest.raises(UserError, match="no stored run's key begins with '/elsewhere/"):
        choose(chosen.store.runs(), [f"/elsewhere/{folder.name}"], 1, 1)
    runs = chosen.root / "runs"
    with pytest.raises(UserError, match=f"no stored run's key begins with 'zzz'.* in {runs}, .*--plan"):
        choose(chosen.store.runs(), ["zzz"], 1, 1)
    with pytest.raises(UserError, match="the keys of 3 stored runs begin with ''"):
        choose(chosen.store.runs(), [""], 1, 1)


def test_cheap_runs_are_drawn(chosen: Selection) -> None:
    """By what they compute: what took minutes on a GPU takes hours elsewhere."""
    seconds = {"BP": 30.0, "FA": 20.0, "FW-DTP": 10.0}
    known = [
        replace(run, record={**run.record, "training_seconds": seconds[run.record["row"]]})
        for run in chosen.store.runs()
    ]
    assert {choose(known, [], 1, seed)[0].record["row"] for seed in range(20)} == {"BP", "FA"}


def test_a_run_of_unknown_cost_counts_as_the_costliest(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = flops.multiply_adds
    monkeypatch.setattr(
        flops, "multiply_adds", lambda rule, *given: None if rule is FA else count(rule, *given)
    )
    drawn = {choose(chosen.store.runs(), [], 1, seed)[0].record["row"] for seed in range(20)}
    assert drawn == {"BP", "FW-DTP"}


def test_only_what_is_at_hand_is_drawn(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where nothing is, every data set is named, not the last."""

    def of(run: StoredRun, name: str) -> StoredRun:
        spec = {**run.spec, "dataset": {**run.spec["dataset"], "name": name}}
        return replace(run, record={**run.record, "spec": spec})

    def load(run: StoredRun) -> Dataset:
        name = run.spec["dataset"]["name"]
        asked.append(name)
        if name != MINI:
            raise DataNotFound(f"no {name}")
        return data

    here, there, elsewhere = (stored(chosen, row) for row in ("BP", "FA", "FW-DTP"))
    runs = [here, of(there, "there"), of(elsewhere, "elsewhere")]
    lines, asked = list[str](), list[str]()

    def drawn(runs: list[StoredRun], keys: list[str], count: int, seed: int) -> list[StoredRun]:
        lines.clear()
        asked.clear()
        found, at_hand = choose_at_hand(runs, keys, count, seed, load, lines.append)
        assert at_hand == {MINI: data}
        return found

    without = ["drawn without elsewhere: no elsewhere", "drawn without there: no there"]
    for seed in range(8):
        assert drawn(runs, [], 3, seed) == [here]
        assert sorted(lines) == without
        assert sorted(asked) == sorted([MINI, "there", "elsewhere"])
        assert drawn(runs, [], 1, seed) == [here]  # round by round
        assert set(lines) <= set(without)
        assert len(asked) == len(lines) + 1 == len(set(asked))
    everything = [run.record["key"] for run in runs]
    for count, asked_for in ((3, []), (1, []), (1, everything[1:])):
        with pytest.raises(UserError) as error:
            drawn(runs[1:], asked_for, count, 1)
        assert sorted(error.value.args) == ["no elsewhere", "no there"]
        assert asked_for == [] or not lines
    with pytest.raises(UserError, match=r"^no there$"):
        drawn(runs, everything[:2], 3, 1)
    monkeypatch.setattr(BP, "version", 2)  # and so FA's
    with pytest.raises(UserError, match="the 2 stored runs to draw from were made by other versions"):
        drawn(runs, [], 3, 1)
    assert lines == without[:1]


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
    monkeypatch.setattr(
        "benchmark.sweep.run.execution", lambda setting, *_: asked.append(setting) or Execution.EAGER
    )
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
