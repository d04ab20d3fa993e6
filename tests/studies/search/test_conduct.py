"""Search: what is tried, what survives, what is kept, and that the test set stays unseen."""

import re
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path

import filelock
import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState, create_trial
from rich.console import Console

from benchmark import datasets
from benchmark.cli.search import command as search
from benchmark.common.errors import UserError
from benchmark.config import CONFIGS, SearchSpace, load_datasets, load_plan
from benchmark.engine.samples import Split
from benchmark.engine.settings import Precision
from benchmark.engine.training import Training
from benchmark.methods import METHODS
from benchmark.store.store import Store
from benchmark.studies.search import halving
from benchmark.studies.search.conduct import conduct, frame, winner
from benchmark.studies.search.design import Search, _short, kept
from benchmark.studies.search.halving import Wave
from benchmark.studies.search.plan_patch import plan_patch
from benchmark.sweep.plan import Plan

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
    quick = Path(CONFIGS / "quick.yaml").resolve()
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
    plan = Plan(load_plan(str(plan_path), catalogue), catalogue, str(plan_path))
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


def crash(monkeypatch, place, name, after):
    """Let so many calls pass."""
    real, calls = getattr(place, name), iter(range(after))

    def crashing(*given, **options):
        if next(calls, None) is None:
            raise Crash
        return real(*given, **options)

    monkeypatch.setattr(place, name, crashing)


def count_calls(monkeypatch, place, name):
    """A list that grows with every call."""
    real, calls = getattr(place, name), []
    monkeypatch.setattr(
        place, name, lambda *given, **options: (calls.append(name), real(*given, **options))[1]
    )
    return calls


GRID = SearchSpace(grid={"lr": [0.01, 0.03, 1e38, 0.3]}, rungs=[1, 2], reduction=2)
WRITES = {
    "add_trial": optuna.Study,
    "set_user_attr": optuna.Study,
    "discard": Store,
    "save_checkpoint": Store,
    "claim": Store,
}
"""By what a search writes."""


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("row", ["DTP", "BP"])
def test_stopped_before_anything_it_writes_it_comes_out_the_same(
    plan_path, data, tmp_path, monkeypatch, row, name
):
    """The same configurations, and of each the same errors; nothing is left behind."""
    asked = searched(plan_path, row, ranges(trials=5) if row == "DTP" else GRID)
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        calls = count_calls(patch, WRITES[name], name)
        whole = frame(run(asked, Store(tmp_path / "whole"), data))
    assert calls
    for after in range(len(calls)):
        store = Store(tmp_path / f"stopped-{after}")
        with monkeypatch.context() as patch:
            crash(patch, WRITES[name], name, after)
            with pytest.raises(Crash):
                run(asked, store, data)
        assert frame(run(asked, store, data)).equals(whole)
        assert not list(store.root.glob("partial/*"))


@pytest.mark.parametrize("after", range(3))
def test_stopped_while_it_is_extended_it_comes_out_the_same(plan_path, data, tmp_path, monkeypatch, after):
    """The wave before is no part of the wave that goes on, though neither is a whole one."""
    stores = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    for store in stores:
        for trials in (2, 3):
            run(searched(plan_path, "DTP", ranges(trials=trials)), store, data)
    more = searched(plan_path, "DTP", ranges(trials=5))
    whole = frame(run(more, stores[0], data))
    monkeypatch.setattr(halving, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        crash(patch, Training, "run_epoch", after)
        with pytest.raises(Crash):
            run(more, stores[1], data)
    assert frame(run(more, stores[1], data)).equals(whole)
    assert not list(tmp_path.glob("stopped/partial/*"))


@pytest.mark.parametrize("told", range(3))
def test_a_wave_trains_once_however_short_it_is(plan_path, data, tmp_path, monkeypatch, told):
    """No checkpoint is as old as it would have to be."""
    asked, store = searched(plan_path, "DTP", ranges(trials=3)), Store(tmp_path)
    with monkeypatch.context() as patch:
        crash(patch, optuna.Study, "add_trial", told)
        with pytest.raises(Crash):
            run(asked, store, data)
    with monkeypatch.context() as patch:
        trained = count_calls(patch, Training, "run_epoch")
        assert len(kept(run(asked, store, data))) == 3
    assert not trained


def test_a_wave_that_began_is_finished_whatever_is_asked_for(plan_path, data, tmp_path, monkeypatch):
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        crash(patch, optuna.Study, "add_trial", 1)
        with pytest.raises(Crash):
            run(searched(plan_path, "DTP", ranges(trials=3)), store, data)
    study = run(searched(plan_path, "DTP", ranges(trials=1)), store, data)
    assert len(kept(study)) == 3


def test_later_waves_learn_from_earlier_ones(plan_path, data, tmp_path):
    """Once there is a wave's worth; before, draws are random, and no two waves' are the same."""
    asked = searched(plan_path, "DTP", ranges(trials=40, wave=8))
    first = asked.draw([])
    assert asked.draw([]) == first
    ranked = [asked.trial(c, [50.0 + i, 40.0 + i], "Abacus") for i, c in enumerate(first)]
    turned = [asked.trial(c, [50.0 - i, 40.0 - i], "Abacus") for i, c in enumerate(first)]
    assert asked.draw(ranked) != asked.draw(turned)
    assert asked.draw(ranked[:3]) == asked.draw(turned[:3])
    wide = replace(asked, space=asked.space.model_copy(update={"wave": 16, "trials": 40}))
    many = [asked.trial(c, [50.0 + i, 40.0 + i], "Abacus") for i, c in enumerate(wide.draw([]))]
    back = [asked.trial(c, [50.0 - i, 40.0 - i], "Abacus") for i, c in enumerate(wide.draw([]))]
    assert wide.draw(many[:12]) == wide.draw(back[:12])
    pruned = [[asked.trial(c, [50.0 + sign * i], "Abacus") for i, c in enumerate(first)] for sign in (1, -1)]
    assert asked.draw(pruned[0]) != asked.draw(pruned[1])  # those that did not come to the last rung, too
    assert len(asked.draw(ranked)) == 8
    later = asked.draw(ranked[:7])
    drawn = [tuple(c.values()) for c in [*first, *later, *asked.draw(ranked)]]
    assert len(set(drawn)) == len(drawn)


def test_a_search_that_was_begun_on_other_images_is_refused(plan_path, data, tmp_path, monkeypatch):
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text(
        "validation_samples: 1000\nseed: 1\nrows: {BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\n"
    )
    options = {"plan": str(plan_path), "spaces": spaces, "results": tmp_path / "results", "device": "cpu"}
    search(**options, trials=1)
    (file,) = tmp_path.glob("results/tiny/search/*/bp.db")
    before = file.read_bytes()
    other = replace(data, checksum="f" * 64)
    monkeypatch.setattr(datasets, "load", lambda *given, **more: other)
    with pytest.raises(UserError, match="'BP on fashion-mnist-mini' was begun on data with checksum"):
        search(**options, trials=2)
    assert file.read_bytes() == before


def test_draws_lie_in_the_ranges_wherever_the_plan_s_values_are(plan_path, data, tmp_path):
    asked = searched(plan_path, "DTP", ranges(trials=24, wave=8))
    far = {"lr": 500.0, "stepsize": 1e-5, "lr_feedback": 0.01, "noise_std": 0.123456789}
    asked = replace(asked, run=replace(asked.run, hyperparameters=far))
    done = []
    for _ in range(3):
        done += [asked.trial(c, [50.0, c["lr"]], "Abacus") for c in asked.draw(done)]
    assert done[0].params == far
    assert len(done) == 24
    for name, (low, high) in RANGES.items():
        assert all(low <= trial.params[name] <= high for trial in done[1:])
    # And whatever the plan's values become meanwhile.
    changed = replace(asked, run=replace(asked.run, hyperparameters={**far, "lr": 0.0001}))
    assert changed.draw(done[:8]) == asked.draw(done[:8]) == [trial.params for trial in done[8:16]]


def test_what_is_trained_is_what_the_patch_says(plan_path, data, tmp_path):
    """Four digits of what is drawn, and all of what a grid or the plan has."""
    asked = searched(plan_path, "DTP", ranges(trials=16, wave=16))
    for configuration in asked.draw([])[1:]:
        assert all(float(f"{value:.4g}") == value for value in configuration.values())
    with asked.study(Store(tmp_path / "drawn")) as study:
        for index, configuration in enumerate(asked.draw([])):
            study.add_trial(asked.trial(configuration, [50.0, 40.0 - index], "Abacus"))
        found = winner(asked, study)
        assert {name: found[name] for name in RANGES} == asked.draw([])[-1]
    exact = searched(plan_path, "BP", SearchSpace(grid={"lr": [0.123456789]}, rungs=[1, 2]))
    assert winner(exact, run(exact, Store(tmp_path / "grid"), data))["lr"] == 0.123456789
    early = create_trial(params={"lr": 0.123456789}, distributions=exact.distributions(), value=40.0)
    early.intermediate_values = {1: 50.0, 2: 40.0}
    with exact.study(Store(tmp_path / "early")) as study:
        study.add_trial(early)
        assert winner(exact, study)["lr"] == 0.1235  # as patches were before
    assert _short(0.12341, 0.12341, 1.0) == 0.12341
    assert _short(0.98766, 0.1, 0.98766) == 0.98766
    own = searched(plan_path, "BP", SearchSpace(ranges={"lr": [0.01, 1]}, trials=1, rungs=[1]))
    own = replace(own, run=replace(own.run, hyperparameters={"lr": 0.123456789}))
    assert winner(own, run(own, Store(tmp_path / "own"), data))["lr"] == 0.123456789


def test_what_diverges_is_last(plan_path, data, tmp_path):
    """Networks that are not finite name the first class, which would be no worse than chance."""
    asked = searched(plan_path, "FA", SearchSpace(grid={"lr": [1e38, 1e-9, 3e38]}, rungs=[1, 2]))
    study = run(asked, Store(tmp_path), data)
    assert study.best_params == {"lr": 1e-9}
    table = frame(study)
    assert list(table["validation_error"].where(table["lr"] > 1).dropna()) == [100.0, 100.0]


def test_without_a_finite_configuration_there_is_no_patch(plan_path, tmp_path):
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text("validation_samples: 1000\nseed: 1\nrows: {BP: {grid: {lr: [1.0e+38]}, rungs: [1]}}\n")
    with pytest.raises(UserError, match="BP on fashion-mnist-mini: every configuration diverged"):
        search(plan=str(plan_path), spaces=spaces, results=tmp_path / "results", device="cpu")
    folder = tmp_path / "results/tiny/search/fashion-mnist-mini"
    assert (folder / "bp.csv").exists()
    assert not (folder / "bp.patch").exists()


def test_another_minibatch_is_another_design(plan_path, data, tmp_path):
    asked, store = searched(plan_path, "BP", GRID), Store(tmp_path)
    run(asked, store, data)
    for changes in ({"batch_size": 128}, {"dims": [784, 8, 10]}, {"precision": Precision.TF32}):
        (name,) = changes
        with pytest.raises(UserError, match=f"this search was made with {name}"):
            run(replace(asked, run=replace(asked.run, **changes)), store, data)


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
    with monkeypatch.context() as patch:
        crash(patch, Search, "draw", 0)
        with pytest.raises(Crash):
            run(more, store, data)
    assert trained.count(trained[0]) == 1, "begun anew"
    assert not begun.exists()
    study = run(more, store, data)
    assert len(kept(study)) == len(study.trials) == 6
    assert not frame(study)[list(RANGES)].duplicated().any()
    assert not list(tmp_path.glob("partial/*"))


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
    monkeypatch.setattr("benchmark.studies.search.conduct.conduct", lambda *_: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"dtp\.db: not there"):
        search(plan=str(plan_path), spaces=spaces, results=tmp_path / "results", device="cpu")
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


def test_command_writes_trials_and_patch(plan_path, tmp_path, capsys):
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text(
        "validation_samples: 1000\nseed: 1\nrows: {BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\n"
    )
    results = tmp_path / "results"
    search(method=["BP"], plan=str(plan_path), spaces=spaces, trials=2, results=results, device="cpu")
    folder = results / "tiny" / "search" / "fashion-mnist-mini"
    assert len((folder / "bp.csv").read_text().splitlines()) == 3
    assert "+++ b/tiny.yaml" in (folder / "bp.patch").read_text()
    trials = pd.read_csv(folder / "bp.csv")
    study = optuna.load_study(study_name="BP on fashion-mnist-mini", storage=f"sqlite:///{folder / 'bp.db'}")
    assert study.best_value == trials["validation_error"].min()
    assert trials["lr"][0] == 0.1
    # Once it is applied there is nothing to patch, and the patch stays.
    written = (folder / "bp.patch").read_text()
    subprocess.run(["patch", "-p1", "-i", folder / "bp.patch"], cwd=plan_path.parent, check=True)
    search(method=["BP"], plan=str(plan_path), spaces=spaces, trials=2, results=results, device="cpu")
    assert (folder / "bp.patch").read_text() == written
    out = capsys.readouterr().out
    assert "BP on fashion-mnist-mini: 2 configurations complete, 2 asked for, nothing to train\n" in out
    assert f"BP on fashion-mnist-mini: {plan_path} has its winner already" in out
    # Nor where a thinner search finds the same.
    arguments = {"plan": str(plan_path), "spaces": spaces, "trials": 1, "device": "cpu"}
    search(method=["BP"], results=tmp_path / "others", **arguments)
    assert not list((tmp_path / "others").rglob("*.patch"))


def test_command_says_that_a_wave_goes_on(plan_path, tmp_path, monkeypatch, capsys):
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text(
        "validation_samples: 1000\nseed: 1\nrows: {BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\n"
    )
    arguments = {"method": ["BP"], "plan": str(plan_path), "spaces": spaces, "trials": 2, "device": "cpu"}
    with monkeypatch.context() as patch:
        crash(patch, optuna.Study, "add_trial", 1)
        with pytest.raises(Crash):
            search(results=tmp_path / "results", **arguments)
    search(results=tmp_path / "results", **arguments)
    said = "BP on fashion-mnist-mini: 1 configurations complete, 2 asked for, a wave of 2 goes on\n"
    assert said in capsys.readouterr().out


def test_what_a_rule_keeps_beside_the_weights_goes_from_rung_to_rung(plan_path, data, tmp_path, monkeypatch):
    class Slow(METHODS["BP"]):
        """Counts its minibatches, and learns less with each."""

        name = "BP"

        @classmethod
        def initial_state(cls, dims, options, draw):
            return {"count": torch.ones(1, 1)}

        def train_step(self, x, y, noise):
            whole, self.lr = self.lr, self.lr / self.state["count"].add_(1)
            logits = super().train_step(x, y, noise)
            self.lr = whole
            return logits

    monkeypatch.setitem(METHODS, "BP", Slow)
    grid = {"lr": [0.1, 0.5, 2.0]}
    in_two, at_once = (
        frame(
            run(searched(plan_path, "BP", SearchSpace(grid=grid, rungs=rungs)), Store(tmp_path / name), data)
        )
        for name, rungs in (("two", [1, 2]), ("one", [2]))
    )
    best = in_two[in_two["state"] == "complete"]
    assert len(best) == 1
    same = at_once[at_once["lr"].isin(best["lr"])]
    assert same["validation_error"].tolist() == best["validation_error"].tolist()


def test_values_of_another_data_set_are_not_its_winner(plan_path, tmp_path):
    """Those of Fashion-MNIST, which the plan uses here, too, may change with another search there."""
    plan_path.write_text(plan_path.read_text().replace("source: guess, note: A note.", "source: search"))
    spaces = tmp_path / "spaces.yaml"
    grid = "{lr: [1.0], stepsize: [0.004]}"
    spaces.write_text(f"validation_samples: 1000\nseed: 1\nrows: {{FW-DTP: {{grid: {grid}, rungs: [1]}}}}\n")
    arguments = {"method": ["FW-DTP"], "plan": str(plan_path), "spaces": spaces, "device": "cpu"}
    search(results=tmp_path / "results", **arguments)
    (patch,) = (tmp_path / "results").rglob("*.patch")
    assert "+      fashion-mnist-mini: {lr: 1.0, stepsize: 0.004, source: search" in patch.read_text()


def test_command_says_how_many_rows_it_searches(plan_path, tmp_path, capsys):
    spaces = tmp_path / "spaces.yaml"
    space = "{ranges: {lr: [0.01, 1]}, rungs: [1]}"
    spaces.write_text(
        f"validation_samples: 1000\nseed: 1\nrows: {{BP: {space}, DTP: {{ranges: {RANGES}, rungs: [1]}}}}\n"
    )
    search(plan=str(plan_path), spaces=spaces, trials=1, results=tmp_path / "results", device="cpu")
    out = " ".join(capsys.readouterr().out.split())
    begin = "2 searches, one after the other: BP on fashion-mnist-mini, DTP on fashion-mnist-mini "
    assert begin + "BP on fashion-mnist-mini: 0 configurations complete, 1 asked for" in out


def test_a_search_that_another_process_conducts_does_not_stop_the_others(plan_path, tmp_path, capsys):
    space = "{grid: {lr: [0.1]}, rungs: [1]}"
    spaces = tmp_path / "spaces.yaml"
    spaces.write_text(f"validation_samples: 1000\nseed: 1\nrows: {{BP: {space}, BP again: {space}}}\n")
    text = plan_path.read_text()
    again = text[text.index("  BP:") :].replace("BP:", "BP again:\n    method: BP", 1)
    plan_path.write_text(text + again)
    folder = tmp_path / "results/tiny/search/fashion-mnist-mini"
    folder.mkdir(parents=True)
    options = {"plan": str(plan_path), "spaces": spaces, "results": tmp_path / "results", "device": "cpu"}
    with filelock.FileLock(folder / "bp.db.lock"), pytest.raises(UserError) as refused:
        search(**options, method=["BP,BP again"])
    (problem,) = refused.value.args
    assert problem.startswith(f"{folder / 'bp.db'} is in use by another process")
    assert (folder / "bp-again.csv").exists()
    assert not (folder / "bp.csv").exists()
    search(**options, method=["BP"])
    assert (folder / "bp.csv").read_bytes() == (folder / "bp-again.csv").read_bytes()


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
        ("{BP: {rungs: [1]}}", {}, "'grid' or 'ranges': neither found, one is required"),
        (
            "{BP: {grid: {lr: [0.1]}, ranges: {lr: [0.01, 1]}, rungs: [1]}}",
            {},
            "'grid' or 'ranges': both found, one is required",
        ),
        ("{BP: {grid: {}, rungs: [1]}}", {}, r"rows\.BP\.grid: {} found"),
        (
            "{BP: {grid: {lr: [1, 0.1, 1.0]}, rungs: [1]}}",
            {},
            r"grid\.lr: \[1\.0, 0\.1, 1\.0\] found, each value",
        ),
        ("{BP: {grid: {lr: [1]}, trials: 1, rungs: [1]}}", {}, "trials: goes with 'ranges'"),
        ("{BP: {grid: {lr: [1]}, wave: 1, rungs: [1]}}", {}, "wave: goes with 'ranges'"),
        (
            "{BP: {grid: {lr: [1]}, rungs: [1]}}\nvalidation_samples: 6000",
            {},
            "6000 validation samples asked for",
        ),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [3, 1]}}", {}, "must rise"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: []}}", {}, "rungs"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}\nseed: 2147483648", {}, "seed: 2147483648 found"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"method": ["TP"]}, "no search space for TP"),
        ("{BP: {ranges: {lr: [0.01, 1]}, rungs: [1]}}", {"method": ["BP", "TP"]}, "no search space for TP"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(plan_path, tmp_path, text, options, message):
    spaces = tmp_path / "spaces.yaml"
    given = {"validation_samples": 1000, "seed": 1}
    rest = "".join(f"{name}: {value}\n" for name, value in given.items() if name not in text)
    spaces.write_text(f"{rest}rows: {text}\n")
    arguments = {"method": ["BP"], **options}
    with pytest.raises(UserError, match=message):
        search(plan=str(plan_path), spaces=spaces, results=tmp_path / "results", device="cpu", **arguments)
    assert not list((tmp_path).glob("results/**/search*"))


def test_structural_options_take_turns_and_compete(plan_path, tmp_path, data):
    starts = {"decoder_init": [0.01, "orthogonal"]}
    ranges = {"lr": [0.1, 1.0], "stepsize": [0.01, 0.1]}
    asked = searched(
        plan_path, "FW-DTP", SearchSpace(ranges=ranges, options=starts, trials=2, wave=2, rungs=[1])
    )
    store = Store(tmp_path / "store")
    with asked.study(store) as study:
        conduct(asked, study, data, torch.device("cpu"), store, QUIET)
        tried = [trial.params for trial in study.get_trials(deepcopy=False)]
        found = winner(asked, study)
    assert [params["decoder_init"] for params in tried] == [0.01, 0.01, "orthogonal", "orthogonal"]
    assert [params["lr"] for params in tried[:2]] == [params["lr"] for params in tried[2:]]
    assert found["options"] in ({"decoder_init": 0.01}, {"decoder_init": "orthogonal"})
    assert found["lr"] in [params["lr"] for params in tried]
