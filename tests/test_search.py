"""Search: what is tried, what survives, what is kept, and that the test set stays unseen."""

import re
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console

from benchmark import datasets, halving, search
from benchmark.config import SearchSpace, load_datasets, load_plan
from benchmark.errors import UserError
from benchmark.halving import Wave
from benchmark.plan_patch import plan_patch
from benchmark.results import Store
from benchmark.samples import Split
from benchmark.search import Search, conduct, frame, kept, winner
from benchmark.sweep import Plan
from benchmark.training import Training

PLAN = """
base: {quick}
title: Tiny
directory: tiny
protocol: {{epochs: 2, seeds: [1]}}
networks:
  4x128: {{hidden_layers: 2, width: 16, source: guess}}
rows:
  DTP:
    hyperparameters:
      fashion-mnist: {{lr: 0.5, stepsize: 0.07, lr_feedback: 0.01, noise_std: 0.02, source: guess}}
  FW-DTP:
    hyperparameters:
      # a comment that stays
      fashion-mnist: {{lr: 1.0, stepsize: 0.004, source: guess, note: A note.}}
  BP:
    hyperparameters:
      fashion-mnist-mini: {{lr: 0.1, source: guess}}
"""
QUIET = Console(file=StringIO())
RANGES = {"lr": [0.05, 5.0], "stepsize": [0.01, 0.3], "lr_feedback": [0.001, 0.1], "noise_std": [0.01, 0.1]}


@pytest.fixture
def plan_path(tmp_path):
    quick = Path(search.CONFIGS / "quick.yaml").resolve()
    (tmp_path / "plans").mkdir()
    for name in ("quick.yaml", "table2.yaml"):
        (tmp_path / "plans" / name).write_text((quick.parent / name).read_text())
    file = tmp_path / "plans" / "tiny.yaml"
    file.write_text(PLAN.format(quick="quick.yaml"))
    return file


@pytest.fixture
def data():
    return datasets.load("fashion-mnist-mini", load_datasets()["fashion-mnist-mini"])


def searched(plan_path, row, space, seed=1):
    catalogue = load_datasets()
    plan = Plan("tiny", load_plan(str(plan_path), catalogue), catalogue, source=str(plan_path))
    return Search(plan.run(row, "fashion-mnist-mini"), space, 1000, seed)


def ranges(**changes):
    return SearchSpace(**{"ranges": RANGES, "trials": 5, "wave": 3, "rungs": [1, 2], **changes})


def run(asked, store, data):
    with asked.study(store) as study:
        conduct(asked, study, data, torch.device("cpu"), store, QUIET)
        return study


@pytest.mark.parametrize(
    ("rungs", "judged"), [([3, 9, 27], [1, 3, 9]), ([2, 6, 18], [1, 2, 6]), ([5, 6], [2, 1]), ([1], [1])]
)
def test_a_third_of_the_epochs_counts(rungs, judged):
    """At most those since the rung before."""
    space = SearchSpace(grid={"lr": [0.5]}, rungs=rungs)
    assert [space.judged(rung) for rung in rungs] == judged


def test_the_test_set_is_never_looked_at(plan_path, data, tmp_path):
    asked = searched(plan_path, "DTP", ranges(trials=3))
    study = run(asked, Store(tmp_path / "a"), data)
    poisoned = data.__class__(
        **{**vars(data), "test": Split(torch.full_like(data.test.x, float("nan")), data.test.y)}
    )
    again = run(asked, Store(tmp_path / "b"), poisoned)
    assert frame(study).equals(frame(again))


def test_a_grid_is_one_wave_with_every_point(plan_path, data, tmp_path):
    grid = {"lr": [0.1, 1], "stepsize": [0.004, 0.04]}
    asked = searched(plan_path, "FW-DTP", SearchSpace(grid=grid, rungs=[1, 2]))
    store = Store(tmp_path)
    with asked.study(store) as study:
        console = Console(file=StringIO(), width=200)
        conduct(asked, study, data, torch.device("cpu"), store, console)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("  wave 1, epoch 1: 4 configurations, best ")
    table = frame(study)
    assert sorted(zip(table["lr"], table["stepsize"], strict=True)) == [
        (0.1, 0.004),
        (0.1, 0.04),
        (1.0, 0.004),
        (1.0, 0.04),
    ]
    assert sorted(table["state"]) == ["complete", "complete", "pruned", "pruned"]


def test_the_plan_s_own_values_take_part_and_draws_lie_in_the_ranges(plan_path, data, tmp_path):
    table = frame(run(searched(plan_path, "DTP", ranges()), Store(tmp_path), data))
    assert len(table) == 5
    assert dict(table.iloc[0][list(RANGES)]) == {
        "lr": 0.5,
        "stepsize": 0.07,
        "lr_feedback": 0.01,
        "noise_std": 0.02,
    }
    for name, (low, high) in RANGES.items():
        assert table[name].between(low, high).all()
    assert not table[list(RANGES)].duplicated().any()


class Crash(Exception):
    pass


@pytest.mark.parametrize("wave", [1, 2])
def test_a_crash_loses_no_configuration(plan_path, data, tmp_path, monkeypatch, wave):
    asked, store = searched(plan_path, "DTP", ranges()), Store(tmp_path)
    whole = frame(run(asked, Store(tmp_path / "whole"), data))
    calls = []
    real = Wave.rungs
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)

    def crashing(self, progress):
        calls.append(self.configurations)
        if len(calls) == wave:
            raise Crash
        return real(self, progress)

    monkeypatch.setattr(Wave, "rungs", crashing)
    with pytest.raises(Crash):
        run(asked, store, data)
    study = run(asked, store, data)
    assert [trial.state for trial in study.trials].count(TrialState.RUNNING) == 0
    assert len(kept(study)) == 5
    assert calls[wave - 1] == calls[wave]  # in this order, by which a wave finds its checkpoint
    assert not list(tmp_path.glob("partial/*"))
    assert not frame(study)[list(RANGES)].duplicated().any()
    assert frame(study).drop(columns="trial").equals(whole.drop(columns="trial"))


@pytest.mark.parametrize("told", range(5))
def test_stopped_while_its_results_are_kept_a_wave_goes_on(plan_path, data, tmp_path, monkeypatch, told):
    asked, store = searched(plan_path, "DTP", ranges()), Store(tmp_path / "stopped")
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    whole = frame(run(asked, Store(tmp_path / "whole"), data))
    real, calls = optuna.Study.tell, iter(range(told))

    def tell(self, trial, *values, **options):
        if next(calls, None) is None:
            raise Crash
        return real(self, trial, *values, **options)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", tell)
        with pytest.raises(Crash):
            run(asked, store, data)
    assert frame(run(asked, store, data)).equals(whole)
    assert not list(tmp_path.glob("stopped/partial/*"))


def test_a_wave_that_began_stays_as_it_is(plan_path, data, tmp_path, monkeypatch):
    """Stopped twice, also while the next one is drawn, and with more trials asked for meanwhile."""
    store = Store(tmp_path)
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    real, trained = Training.run_epoch, []

    def run_epoch(self):
        trained.append(self.epoch)
        if len(trained) == 3:
            raise Crash
        return real(self)

    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    with pytest.raises(Crash):
        run(searched(plan_path, "DTP", ranges(trials=3)), store, data)
    (begun,) = tmp_path.glob("partial/*")
    more = searched(plan_path, "DTP", ranges(trials=6))
    ask, calls = optuna.Study.ask, iter([1])

    def asking(self, *distributions):
        if next(calls, None) is None:
            raise Crash
        return ask(self, *distributions)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", asking)
        with pytest.raises(Crash):
            run(more, store, data)
    assert trained.count(trained[0]) == 1, "begun anew"
    assert not begun.exists()
    study = run(more, store, data)
    assert len(kept(study)) == len(study.trials) == 6
    assert not frame(study)[list(RANGES)].duplicated().any()
    assert not list(tmp_path.glob("partial/*"))


def test_a_trial_that_was_not_drawn_to_the_end_is_drawn_again(plan_path, data, tmp_path):
    asked, store = searched(plan_path, "DTP", ranges(trials=3)), Store(tmp_path)
    with asked.study(store) as study:
        study.ask().suggest_float("lr", 0.05, 5.0, log=True)  # the plan's own, which is tried whatever comes
    study = run(asked, store, data)
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == 1
    table = frame(study)
    assert len(table) == 3
    assert (table["lr"] == 0.5).sum() == 1


def test_a_finished_search_does_nothing_and_more_trials_go_on(plan_path, data, tmp_path):
    store = Store(tmp_path)
    before = frame(run(searched(plan_path, "DTP", ranges(trials=3)), store, data))
    assert frame(run(searched(plan_path, "DTP", ranges(trials=3)), store, data)).equals(before)
    after = frame(run(searched(plan_path, "DTP", ranges(trials=5)), store, data))
    assert after.head(3).equals(before)
    assert len(after) == 5


def test_a_lost_study_is_found_before_anything_trains(plan_path, tmp_path, monkeypatch):
    spaces = tmp_path / "spaces.yaml"
    space = "{ranges: {lr: [0.01, 1]}, rungs: [1]}"
    spaces.write_text(
        f"validation_samples: 1000\nseed: 1\nrows: {{BP: {space}, DTP: {{ranges: {RANGES}, rungs: [1]}}}}\n"
    )
    folder = tmp_path / "results/tiny/search/fashion-mnist-mini"
    folder.mkdir(parents=True)
    (folder / "dtp.csv").write_text("found")
    monkeypatch.setattr(search, "conduct", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"dtp\.db: not there"):
        search.command(plan=str(plan_path), spaces=spaces, results=tmp_path / "results", device="cpu")
    assert [file.name for file in folder.iterdir()] == ["dtp.csv"]


@pytest.mark.parametrize("state", ["not there", "empty"])
def test_a_lost_study_does_not_cost_what_it_found(plan_path, data, tmp_path, state):
    asked, store = searched(plan_path, "DTP", ranges(trials=3)), Store(tmp_path)
    run(asked, store, data)
    folder = asked.folder(store)
    file, whole = folder / "dtp.db", (folder / "dtp.db").read_bytes()
    (folder / "dtp.csv").write_text("found")
    for left in (["dtp.csv"], ["dtp.csv", "dtp.patch"], ["dtp.patch"]):
        (folder / left[-1]).write_text("found")
        file.unlink()
        if state == "empty":
            file.write_bytes(b"")
        listed = " and ".join(str(folder / name) for name in left)
        said = f"{state}, but what its search found is; put it back, or move {listed} away to search anew"
        message = f"{file}: {said}"
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            run(asked, store, data)
        assert all((folder / name).read_text() == "found" for name in left)
        file.write_bytes(whole)
        run(asked, store, data)
        if left == ["dtp.csv", "dtp.patch"]:
            (folder / "dtp.csv").unlink()


def test_another_design_is_refused_and_nothing_changes(plan_path, data, tmp_path):
    store = Store(tmp_path)
    run(searched(plan_path, "DTP", ranges(trials=3)), store, data)
    before = (tmp_path / "search/fashion-mnist-mini/dtp.db").read_bytes()
    with pytest.raises(
        UserError, match=r"this search was made with space\.rungs \[1, 2\] instead of \[1, 3\]"
    ):
        run(searched(plan_path, "DTP", ranges(rungs=[1, 3])), store, data)
    with pytest.raises(UserError, match="seed 1 instead of 2"):
        run(searched(plan_path, "DTP", ranges(), seed=2), store, data)
    assert (tmp_path / "search/fashion-mnist-mini/dtp.db").read_bytes() == before


def test_two_processes_do_not_search_for_the_same(plan_path, data, tmp_path):
    asked, store = searched(plan_path, "DTP", ranges()), Store(tmp_path)
    with asked.study(store), pytest.raises(UserError, match="in use by another process"), asked.study(store):
        pass


@pytest.mark.parametrize(
    ("row", "column"), [("FW-DTP", "fashion-mnist"), ("FW-DTP", "mnist"), ("BP", "mnist")]
)
def test_the_patch_applies_and_says_how_it_was_found(plan_path, data, tmp_path, row, column):
    grid = {"lr": [0.5], "stepsize": [0.005]} if row == "FW-DTP" else {"lr": [0.5]}
    asked = searched(plan_path, row, SearchSpace(grid=grid, rungs=[1, 2]))
    asked = replace(asked, run=replace(asked.run, column=column))
    store = Store(tmp_path)
    with asked.study(store) as study:
        conduct(asked, study, data, torch.device("cpu"), store, QUIET)
    (tmp_path / "winner.patch").write_text(plan_patch(plan_path, row, column, winner(asked, study)))
    before = load_plan(str(plan_path), load_datasets())
    command = ["patch", "-p1", "-i", tmp_path / "winner.patch"]
    subprocess.run(command, cwd=plan_path.parent, check=True, capture_output=True)
    assert "# a comment that stays" in plan_path.read_text()
    after = load_plan(str(plan_path), load_datasets())
    found = after.rows[row].hyperparameters[column]
    assert found.values == {name: values[0] for name, values in grid.items()}
    assert found.source == "search"
    error = study.best_value
    assert f"error {error:.2f} % after 2 epochs, best of 1 configurations, 2 epochs" in found.note
    kept = {c: h for c, h in after.rows[row].hyperparameters.items() if c != column}
    assert kept == {c: h for c, h in before.rows[row].hyperparameters.items() if c != column}


def test_a_cell_without_values_is_searched_too(plan_path, data, tmp_path):
    asked = searched(plan_path, "DTP", ranges(trials=3))
    asked = replace(asked, run=replace(asked.run, hyperparameters={}))
    table = frame(run(asked, Store(tmp_path), data))
    assert len(table) == 3


def test_command_writes_trials_and_patch(plan_path, tmp_path):
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text(
        "validation_samples: 1000\nseed: 1\nrows: {BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\n"
    )
    results = tmp_path / "results"
    search.command(method=["BP"], plan=str(plan_path), spaces=spaces, trials=2, results=results, device="cpu")
    folder = results / "tiny" / "search" / "fashion-mnist-mini"
    assert len((folder / "bp.csv").read_text().splitlines()) == 3
    assert "+++ b/tiny.yaml" in (folder / "bp.patch").read_text()
    trials = pd.read_csv(folder / "bp.csv")
    study = optuna.load_study(study_name="BP on fashion-mnist-mini", storage=f"sqlite:///{folder / 'bp.db'}")
    assert study.best_value == trials["validation_error"].min()
    assert trials["lr"][0] == 0.1


def test_command_says_how_many_rows_it_searches(plan_path, tmp_path, capsys):
    spaces = tmp_path / "spaces.yaml"
    space = "{ranges: {lr: [0.01, 1]}, rungs: [1]}"
    spaces.write_text(
        f"validation_samples: 1000\nseed: 1\nrows: {{BP: {space}, DTP: {{ranges: {RANGES}, rungs: [1]}}}}\n"
    )
    search.command(plan=str(plan_path), spaces=spaces, trials=1, results=tmp_path / "results", device="cpu")
    out = " ".join(capsys.readouterr().out.split())
    begin = "2 searches, one after the other: BP on fashion-mnist-mini, DTP on fashion-mnist-mini "
    assert begin + "BP on fashion-mnist-mini: 0 configurations complete, 1 asked for" in out


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"trials": 0}, "--trials: 0 found"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"trials": 10**11}, "must be from 1 to 10000"),
        ("{BP: {grid: {lr: [0.01, 1]}, rungs: [1]}}", {"trials": 1}, "searched on a grid, always whole"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"seed": -1}, "--seed: -1 found, must be from 0"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"seed": 2**31}, "--seed: 2147483648 found"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"method": ["FA"]}, "no search space for FA"),
        ("{BP: {ranges: {rate: [0.01, 1]}, rungs: [1]}}", {}, "rate found, BP takes lr"),
        ("{BP: {ranges: {lr: [1, 0.01]}, rungs: [1]}}", {}, r"ranges\.lr: \[1\.0, 0\.01\] found"),
        ("{BP: {ranges: {lr: [0, 0.01]}, rungs: [1]}}", {}, r"rows\.BP\.ranges\.lr\.0: 0 found"),
        ("{BP: {rungs: [1]}}", {}, "either 'grid' or 'ranges'"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [3, 1]}}", {}, "must rise"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: []}}", {}, "rungs"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\nseed: 2147483648", {}, "seed: 2147483648 found"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"method": ["TP"]}, "no search space for TP"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"method": ["BP", "TP"]}, "no search space for TP"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(plan_path, tmp_path, text, options, message):
    spaces = tmp_path / "spaces.yaml"
    seed = "" if "seed" in text else "seed: 1\n"
    spaces.write_text(f"validation_samples: 1000\n{seed}rows: {text}\n")
    arguments = {"method": ["BP"], **options}
    with pytest.raises(UserError, match=message):
        search.command(
            plan=str(plan_path), spaces=spaces, results=tmp_path / "results", device="cpu", **arguments
        )
    assert not list((tmp_path).glob("results/**/search*"))
