"""The sensitivity study: its design, kills and resumes, crashed and diverged trials, halving, bad input."""

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from benchmark import datasets
from benchmark.cli.options import run_app
from benchmark.cli.sensitivity import command as sensitivity
from benchmark.common.errors import INTERRUPTED, DataNotFound, UserError
from benchmark.common.files import RESULTS
from benchmark.config import PROJECT, load_datasets
from benchmark.datasets import load
from benchmark.engine import memory
from benchmark.engine.settings import Precision
from benchmark.methods import METHODS
from benchmark.report import drawing
from benchmark.studies import storage as optuna_storage
from benchmark.studies.sensitivity import samples as sensitivity_samples
from benchmark.studies.sensitivity.design import (
    Design,
    complete,
    default_column,
    default_rows,
    designs,
    enqueue,
    open_study,
    study_command,
)
from benchmark.studies.sensitivity.study import PROFILES, Conductor
from benchmark.sweep import execute as executor
from benchmark.sweep.plan import Plan
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from tests.helpers.commands import Command, fails

MINI = "fashion-mnist-mini"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 1, batch_size: 1000, seeds: [1, 2], source: guess}}
networks:
  1x8: {{hidden_layers: 1, width: 8, source: guess}}
columns:
  {MINI}: {{network: 1x8}}
rows:
  DTP:
    method: DTP
    options: {{feedback_updates: 1}}
    hyperparameters:
      {MINI}: {{lr: 0.5, stepsize: 0.07, lr_feedback: 0.0015, noise_std: 0.02, source: guess}}
  FW-DTP:
    method: FW-DTP
    hyperparameters:
      {MINI}: {{lr: 1.0, stepsize: 0.04, source: guess}}
"""
CPU = torch.device("cpu")
NAME = f"sensitivity FW-DTP {MINI} 1 epochs seed 1 plan tiny"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(PLAN)
    return file


@pytest.fixture
def command(plan: Path, monkeypatch: pytest.MonkeyPatch, ended: Command) -> Command:
    """`python -m benchmark.sensitivity` on the tiny plan, nothing drawn."""
    monkeypatch.chdir(plan.parent)
    monkeypatch.setattr(sensitivity_samples, "_importances", lambda design, table: {})
    monkeypatch.setattr(drawing, "save", lambda figure, folder, name: [folder / f"{name}.png"])

    def call(*arguments: str) -> tuple[int, str, str]:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(sensitivity)
        given = ["--profile", "tiny.yaml", "--results", "results", "--device", "cpu", *arguments]
        return ended(partial(run_app, app), *given)

    return call


def url(results: Path) -> str:
    return optuna_storage.sqlite_url(results / "sensitivity.db")


def study(results: Path, name: str = NAME) -> optuna.Study:
    (found,) = optuna_storage.read_studies(url(results), [name])
    assert found is not None
    return found


def counted(results: Path, name: str = NAME) -> dict[int, tuple[dict[str, float], float | None]]:
    """Configuration and accuracy by index, of every complete trial."""
    trials = study(results, name).get_trials(states=(TrialState.COMPLETE,))
    found = {trial.user_attrs["index"]: (trial.params, trial.value) for trial in trials}
    assert len(found) == len(trials)
    return found


@cache
def table2() -> Plan:
    return Selection("table2", Path("nowhere")).plan


def design(row: str = "DTP", **options: Any) -> Design:
    return designs(table2(), [row], "mnist", **options)[0]


# The design


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10_000), st.sampled_from(["DTP", "FW-DTP", "BP", "TP"]))
def test_configurations_lie_within_bounds(seed: int, index: int, row: str) -> None:
    drawn = design(row, seed=seed)
    configuration = drawn.configuration(index)
    assert tuple(configuration) == METHODS[drawn.run.method].hyperparameters
    for name, value in configuration.items():
        centre = drawn.centre[name]
        assert centre / 5 <= value <= centre * 5
        assert drawn.distributions[name]._contains(value)


def test_configurations_are_these() -> None:
    """Frozen: an index means the same configuration on every machine and in every version."""
    found = design("DTP").configuration(0)
    ratios = [
        value / centre for value, centre in zip(found.values(), design("DTP").centre.values(), strict=True)
    ]
    frozen = [1.0387856035283167, 4.2630578250076650, 0.3180947387008531, 4.2382347890948280]
    assert ratios == pytest.approx(frozen, rel=1e-12)


def test_design_is_uniform_and_independent_in_the_logarithms() -> None:
    drawn = design("DTP")
    exponents = [
        [math.log(value / drawn.centre[name], 5) for name, value in drawn.configuration(index).items()]
        for index in range(2000)
    ]
    table = torch.tensor(exponents, dtype=torch.float64)
    assert table.mean(0).abs().max() < 0.06  # 5 standard errors of U(-1, 1)
    assert (table.var(0) - 1 / 3).abs().max() < 0.03
    correlation = torch.corrcoef(table.T) - torch.eye(4)
    assert correlation.abs().max() < 0.1
    assert len({tuple(line) for line in exponents}) == 2000


def test_fewer_trials_are_a_prefix_of_more(tmp_path: Path) -> None:
    drawn = design("FW-DTP")
    indices, params = [], []
    for trials in (5, 12):
        fresh = optuna.create_study(direction="maximize")
        enqueue(drawn, fresh, trials)
        indices.append([trial.user_attrs["index"] for trial in fresh.trials])
        params.append([trial.params for trial in fresh.trials])
    assert indices == [list(range(5)), list(range(12))]
    assert params[0] == params[1][:5]
    grown = optuna.create_study(direction="maximize")
    for trials in (5, 12, 12, 3):
        enqueue(drawn, grown, trials)
    assert [trial.params for trial in grown.trials] == params[1]


def test_seed_row_and_data_set_make_the_design() -> None:
    base = design("DTP")
    assert base.configuration(3) == design("DTP").configuration(3)
    assert base.configuration(3) != base.configuration(4)
    assert base.configuration(3) != design("DTP", seed=2).configuration(3)
    names = {base.name, design("DTP", seed=2).name, design("FW-DTP").name, design("DTP", epochs=3).name}
    assert len(names) == 4
    assert base.name == "sensitivity DTP mnist 100 epochs seed 1"
    run = base.replicas([2, 5])
    assert run.seeds == [1, 1]
    assert [run.hyperparameters[name] for name in ("lr",)] == [
        [base.configuration(2)["lr"], base.configuration(5)["lr"]]
    ]


@pytest.mark.parametrize("centre", [0.0, -1.0, math.inf, math.nan, [1.0, 2.0]])
def test_a_centre_without_surroundings_is_refused(centre: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = table2()
    run = plan.run("FW-DTP", "mnist")
    assert run is not None
    broken = replace(run, hyperparameters={**run.hyperparameters, "stepsize": centre})
    monkeypatch.setattr(Plan, "run", lambda self, row, column: broken)
    with pytest.raises(UserError, match=r"FW-DTP on mnist: stepsize .* found, must be finite and above 0"):
        designs(plan, ["FW-DTP"], "mnist")


def test_foreign_trials_are_refused_and_doubles_count_once() -> None:
    drawn = design("FW-DTP")
    made = optuna.create_study(direction="maximize")

    def add(index: int, value: float, **params: float) -> None:
        made.add_trial(
            optuna.trial.create_trial(
                params={**drawn.configuration(index), **params},
                distributions=drawn.distributions,
                value=value,
                user_attrs={"index": index},
            )
        )

    for index, value in ((1, 50.0), (0, 40.0), (1, 60.0)):
        add(index, value)
    assert {index: trial.value for index, trial in complete(drawn, made, 5).items()} == {0: 40.0, 1: 50.0}
    assert list(complete(drawn, made, 1)) == [0]
    add(2, 50.0, lr=drawn.centre["lr"])
    with pytest.raises(UserError, match="trial 3 is no configuration of the design"):
        complete(drawn, made, 5)


# Training


def test_trials_hold_what_was_trained(command: Command, tmp_path: Path) -> None:
    code, out, err = command("--trials", "5", "--replicas-per-pass", "3", "--epochs", "2")
    assert (code, err) == (0, "")
    assert "5 of 5" in out
    for row in ("DTP", "FW-DTP"):
        found = study(tmp_path / "results", f"sensitivity {row} {MINI} 2 epochs seed 1 plan tiny")
        assert [trial.state for trial in found.trials] == [TrialState.COMPLETE] * 5
        for trial in found.trials:
            assert trial.intermediate_values[2] == trial.value
            assert list(trial.intermediate_values) == [1, 2]
            assert trial.user_attrs["diverged"] is False
            assert trial.user_attrs["sittings"][0]["versions"]["torch"] == torch.__version__
        record = found.user_attrs["design"]
        assert (record["row"], record["plan"], record["spec"]["epochs"]) == (row, "tiny", 2)
        assert found.user_attrs["versions"]["torch"] == torch.__version__
        assert found.user_attrs["data"] == load_datasets()[MINI].checksum
    assert not list((tmp_path / "results" / "partial").iterdir())
    assert "written: results/figures/figure3-tiny-2-epochs-5-trials.png" in out
    before = {file: file.read_bytes() for file in (tmp_path / "results").rglob("*") if file.is_file()}
    code, out, err = command("--trials", "5", "--epochs", "2")
    assert (code, err) == (0, "")
    assert out.count("5 of 5 configurations complete, nothing to train") == 2
    assert {file: file.read_bytes() for file in before} == before


def test_a_replica_of_a_pass_equals_itself_alone(tmp_path: Path, plan: Path) -> None:
    chosen = Selection(str(plan), tmp_path / "results")
    data = load(MINI, load_datasets()[MINI])
    for drawn in designs(chosen.plan, ["DTP", "FW-DTP"], MINI):
        together, alone = (
            executor.train(drawn.replicas(indices), data, chosen.store, CPU, lambda done, result: None).epochs
            for indices in (range(6), [4])
        )
        assert together["train_loss"].iloc[4] == pytest.approx(alone["train_loss"].iloc[0], rel=1e-4)
        assert together["test_error"].iloc[4] == pytest.approx(alone["test_error"].iloc[0], abs=0.1)
        assert together["train_loss"].nunique() == 6


def test_more_trials_later_and_fewer(command: Command, tmp_path: Path) -> None:
    arguments = ("--methods", "FW-DTP", "--replicas-per-pass", "4")
    assert command(*arguments, "--trials", "3")[0] == 0
    first = counted(tmp_path / "results")
    assert list(first) == [0, 1, 2]
    assert command(*arguments, "--trials", "6")[0] == 0
    assert list(counted(tmp_path / "results")) == list(range(6))
    assert counted(tmp_path / "results").items() >= first.items()
    code, out, _ = command(*arguments, "--trials", "2")
    assert code == 0
    assert "2 of 2 configurations complete" in out
    assert len(study(tmp_path / "results").trials) == 6
    assert study(tmp_path / "results").user_attrs["trials"] == 6  # which a report goes by


class Killed(BaseException):
    """Stands for a moment at which nothing more can be done."""


def test_a_study_kept_elsewhere_is_reported_from_the_results_folder(command: Command, tmp_path: Path) -> None:
    elsewhere = ("--storage", f"sqlite:///{tmp_path / 'elsewhere.db'}", "--epochs", "1")
    for trials in ("2", "3", "2"):
        assert command("--trials", trials, *elsewhere)[0] == 0
    assert len(counted(tmp_path / "results")) == 3
    table = (tmp_path / "results/tables").glob("figure3*-configurations.csv")
    assert all(len(file.read_text().splitlines()) > 1 for file in table)


def test_the_stores_own_file_may_be_named_otherwise(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = "sqlite:///results/../results/sensitivity.db"
    code, _, err = command("--trials", "2", "--epochs", "1", "--storage", file)
    assert (code, err) == (0, "")
    assert len(counted(tmp_path / "results")) == 2


def test_crashed_trials_are_retried(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--methods", "FW-DTP", "--replicas-per-pass", "3", "--trials", "5")
    told = 0
    finish = optuna.storages.RDBStorage.set_trial_state_values

    def stop_in_the_middle(self: Any, trial: int, state: TrialState, values: Any = None) -> bool:
        nonlocal told
        if state is not TrialState.RUNNING:
            told += 1
            if told > 2:
                raise Killed
        return finish(self, trial, state, values)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", stop_in_the_middle)
        with pytest.raises(Killed):
            command(*arguments)
    states = Counter(trial.state for trial in study(tmp_path / "results").trials)
    assert states == {TrialState.COMPLETE: 2, TrialState.RUNNING: 1, TrialState.WAITING: 2}
    interrupted = counted(tmp_path / "results")
    assert command(*arguments)[0] == 0
    states = Counter(trial.state for trial in study(tmp_path / "results").trials)
    assert states == {TrialState.COMPLETE: 5}
    assert counted(tmp_path / "results").items() >= interrupted.items()
    assert command(*arguments, "--results", "whole")[0] == 0
    assert counted(tmp_path / "whole") == counted(tmp_path / "results")
    assert not list((tmp_path / "results" / "partial").iterdir())


def test_interruption_is_kind(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    arguments = ("--methods", "FW-DTP", "--trials", "2")
    with monkeypatch.context() as patch:
        patch.setattr(executor, "train", interrupt)
        code, _, err = command(*arguments)
    assert (code, err) == (130, INTERRUPTED + "\n")
    assert {trial.state for trial in study(tmp_path / "results").trials} == {TrialState.WAITING}
    assert command(*arguments)[0] == 0
    assert list(counted(tmp_path / "results")) == [0, 1]


RUN = """
import sys
from benchmark.cli.sensitivity import command as sensitivity
from benchmark.sweep import execute as executor
from benchmark.sweep import run as run_module
import typer
from benchmark.cli.options import run_app
executor.CHECKPOINT_SECONDS = 0.0
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(sensitivity)
print("begin", flush=True)
run_app(app)
"""


@pytest.mark.parametrize("attributes", [{}, {"replicas_per_pass": 3}])
def test_killed_while_its_study_was_made_it_begins_anew(
    command: Command, tmp_path: Path, attributes: dict[str, int]
) -> None:
    (tmp_path / "results").mkdir()
    url = f"sqlite:///{tmp_path}/results/sensitivity.db"
    made = optuna.create_study(storage=url, study_name=NAME, direction="maximize")
    for name, value in attributes.items():
        made.set_user_attr(name, value)
    assert command("--methods", "FW-DTP", "--trials", "2")[0] == 0
    assert list(counted(tmp_path / "results")) == [0, 1]


def test_a_study_of_trials_without_a_design_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    url = f"sqlite:///{tmp_path}/results/sensitivity.db"
    made = optuna.create_study(storage=url, study_name=NAME, direction="maximize")
    made.optimize(lambda trial: trial.suggest_float("lr", 0.1, 1.0), n_trials=1)
    assert f"the study '{NAME}' was made with" in fails(command("--methods", "FW-DTP", "--trials", "2"))
    assert len(study(tmp_path / "results").trials) == 1


def test_killed_twice_it_ends_with_the_same_numbers(command: Command, tmp_path: Path, plan: Path) -> None:
    arguments = ["--epochs", "3", "--trials", "6", "--replicas-per-pass", "3"]
    clock = time.monotonic()
    assert command(*arguments, "--results", "whole")[0] == 0
    needed = time.monotonic() - clock
    moments = random.Random(3)
    given = ["--profile", str(plan), "--results", str(tmp_path / "results"), "--device", "cpu", *arguments]
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *given],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(moments.uniform(0.1, 0.6) * needed)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert command(*arguments)[0] == 0
    for row in ("DTP", "FW-DTP"):
        name = f"sensitivity {row} {MINI} 3 epochs seed 1 plan tiny"
        assert counted(tmp_path / "results", name) == counted(tmp_path / "whole", name)
        assert list(counted(tmp_path / "whole", name)) == list(range(6))
    assert not list((tmp_path / "results" / "partial").iterdir())
    trials = Path("results/tables/figure3-tiny-3-epochs-6-trials-configurations.csv")
    assert (tmp_path / trials).read_text() == (tmp_path / "whole" / trials.relative_to("results")).read_text()


def test_diverged_is_complete_and_marked(command: Command, tmp_path: Path, plan: Path) -> None:
    plan.write_text(PLAN.replace("lr: 0.5", "lr: 1.0e+38"))
    assert command("--trials", "3", "--methods", "DTP")[0] == 0
    for trial in study(tmp_path / "results", NAME.replace("FW-DTP", "DTP")).trials:
        assert trial.state is TrialState.COMPLETE
        assert trial.user_attrs["diverged"] is True
        assert trial.value is not None
        assert 0 <= trial.value <= 30


# Memory


def test_out_of_memory_halves_the_pass(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    train = executor.train

    def short(run: Run, *rest: Any) -> executor.Trained:
        sizes.append(len(run.seeds))
        if len(run.seeds) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return train(run, *rest)

    arguments = ("--methods", "FW-DTP", "--trials", "5", "--replicas-per-pass", "5")
    monkeypatch.setattr(executor, "train", short)
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert sizes == [5, 2, 3, 1, 2]
    assert out.count("out of memory, halving") == 2
    assert len(counted(tmp_path / "results")) == 5
    assert not list((tmp_path / "results" / "partial").iterdir())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
        MemoryError(),
    ],
    ids=["cuda", "linux", "windows", "python"],
)
def test_every_way_to_run_out_of_memory(error: Exception) -> None:
    assert memory.ran_out(error)


def test_a_real_failed_allocation_is_recognised() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.ran_out(error.value)
    assert not memory.ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_failed_allocation_of_compiled_code_is_recognised() -> None:
    def outer(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x[:, None, None] + x[None, :, None] * x[None, None, :])

    x = torch.zeros(1 << 18)  # 2^54 numbers
    with pytest.raises(RuntimeError) as error:
        torch.compile(outer, dynamic=False, options={"cpp_wrapper": True})(x)
    assert memory.ran_out(error.value)


def test_halves_are_remembered(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass halved once is never tried whole again: a resumed study trains what the first one did."""
    train = executor.train

    def short(run: Run, *rest: Any) -> executor.Trained:
        if len(run.seeds) > 2:
            raise MemoryError
        if run.hyperparameters["lr"][0] == third:  # type: ignore[index]
            raise KeyboardInterrupt
        return train(run, *rest)

    third = designs(Selection("tiny.yaml", Path("results")).plan, ["FW-DTP"], MINI)[0].configuration(2)["lr"]
    arguments = ("--methods", "FW-DTP", "--trials", "4", "--replicas-per-pass", "4")
    with monkeypatch.context() as patch:
        patch.setattr(executor, "train", short)
        assert command(*arguments)[0] == 130
    sizes = []
    monkeypatch.setattr(
        executor, "train", lambda run, *rest: sizes.append(len(run.seeds)) or train(run, *rest)
    )
    assert command(*arguments)[0] == 0
    assert sizes == [2]
    assert len(counted(tmp_path / "results")) == 4


def test_no_memory_for_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(executor, "train", short)
    line = fails(command("--methods", "FW-DTP", "--trials", "2"))
    assert "FW-DTP on fashion-mnist-mini: not enough memory for a single configuration" in line


# One driver


def test_one_driver_of_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with optuna_storage.driver(url(tmp_path / "results")):
        line = fails(command("--trials", "2"))
    assert "sensitivity.db is in use by another process" in line


def test_a_file_where_none_can_be_is_nobody_elses(command: Command) -> None:
    line = fails(command("--trials", "2", "--storage", "sqlite:////proc/a.db"))
    assert "--storage: /proc cannot be written to" in line


@pytest.fixture
def opened(tmp_path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(url(tmp_path))


def conductor(plan: Path, storage: optuna.storages.RDBStorage, results: str, size: int) -> Conductor:
    chosen = Selection(str(plan), plan.parent / results)
    (drawn,) = designs(chosen.plan, ["FW-DTP"], MINI)
    data = load(MINI, load_datasets()[MINI])
    return Conductor(drawn, open_study(drawn, storage, size), storage, chosen.store, data, CPU)


# Bad input


def test_a_changed_plan_is_refused(command: Command, tmp_path: Path, plan: Path) -> None:
    arguments = ("--methods", "FW-DTP", "--trials", "2")
    assert command(*arguments)[0] == 0

    def content() -> list[FrozenTrial]:
        return study(tmp_path / "results").trials

    before = content()
    for old, new, difference in (
        ("stepsize: 0.04", "stepsize: 0.05", "centre.stepsize 0.04 instead of 0.05"),
        ("width: 8", "width: 9", "spec.dims [784, 8, 10] instead of [784, 9, 10]"),
        ("batch_size: 1000", "batch_size: 500", "spec.batch_size 1000 instead of 500"),
    ):
        plan.write_text(PLAN.replace(old, new))
        line = fails(command(*arguments))
        assert f"the study '{NAME}' was made with {difference}; it is left as it is" in line
    assert content() == before
    plan.write_text(PLAN)
    assert command(*arguments)[0] == 0


def test_plans_that_share_a_store_have_studies_of_their_own(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: tiny.yaml\ntitle: Mine\n")
    for plan in ("tiny.yaml", "mine.yaml"):
        code, out, err = command("--method", "FW-DTP", "--trials", "2", "--profile", plan)
        assert (code, err) == (0, "")
        assert "0 of 2 configurations complete" in out
        assert f"tables/figure3-{Path(plan).stem}-2-trials.md" in out


@pytest.mark.parametrize(("factor", "known"), [(1 + 1e-15, True), (1 + 1e-9, False)])
def test_configurations_are_told_apart_to_rounding(
    plan: Path, opened: optuna.storages.RDBStorage, factor: float, known: bool
) -> None:
    """C libraries differ in the last digit of a power."""
    work = conductor(plan, opened, "a", 2)
    drawn = work.design.configuration(0)
    assert drawn["lr"] * factor != drawn["lr"]
    trial = optuna.trial.create_trial(
        value=50.0,
        params={**drawn, "lr": drawn["lr"] * factor},
        distributions=work.design.distributions,
        user_attrs={"index": 0},
    )
    work.study.add_trial(trial)
    if known:
        assert list(complete(work.design, work.study, 1)) == [0]
    else:
        with pytest.raises(UserError, match="trial 0 is no configuration of the design"):
            complete(work.design, work.study, 1)


def test_other_data_are_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--methods", "FW-DTP")
    assert command(*arguments, "--trials", "2")[0] == 0
    data = load(MINI, load_datasets()[MINI])
    monkeypatch.setattr(datasets, "load", lambda *given, **more: replace(data, checksum="f" * 64))
    line = fails(command(*arguments, "--trials", "3"))
    assert "was begun on data with checksum" in line


def test_absent_data_add_no_study(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("--methods", "FW-DTP", "--trials", "1")[0] == 0
    url = optuna_storage.sqlite_url(tmp_path / "results" / "sensitivity.db")
    before = optuna_storage.study_names(url)
    monkeypatch.setattr(datasets, "load", Mock(side_effect=DataNotFound("data set nowhere")))
    assert "data set nowhere" in fails(command("--methods", "DTP", "--trials", "1"))
    assert optuna_storage.study_names(url) == before
    assert len(before) == 1
    assert command("--methods", "FW-DTP", "--trials", "1")[0] == 0, "complete, and needs none"


def test_another_pass_size_is_refused(command: Command) -> None:
    assert command("--methods", "FW-DTP", "--trials", "2", "--replicas-per-pass", "2")[0] == 0
    line = fails(command("--methods", "FW-DTP", "--trials", "2", "--replicas-per-pass", "3"))
    assert re.search(r"--replicas-per-pass: 3 found, but the study .* trains 2 configurations", line)


@pytest.mark.parametrize(
    ("plan", "precision", "designed", "asked", "words"),
    [
        ("table2", None, {}, {}, "--method DTP --dataset cifar-10"),
        ("table2", None, {"epochs": 3, "seed": 7}, {"trials": 9}, "--trials 9 --epochs 3 --seed 7"),
        ("table2", Precision.TF32, {}, {}, "--precision tf32"),
        ("table2", None, {}, {"shared_storage": True}, "--storage URL"),
        ("quick", None, {}, {}, f"--method DTP --dataset {MINI} --profile quick"),
    ],
)
def test_the_command_that_trains_what_is_missing(
    plan: str, precision: Precision | None, designed: dict[str, int], asked: dict[str, Any], words: str
) -> None:
    """The words are all that it holds beyond the row and the data set."""
    chosen = Selection(plan, RESULTS, precision=precision).plan
    (design,) = designs(chosen, ["DTP"], default_column(chosen), **designed)
    said = study_command(chosen, design, **asked).removeprefix("python -m benchmark.sensitivity ")
    basic = f"--method DTP --dataset {design.run.column}"
    assert said == (words if words.startswith(basic) else f"{basic} {words}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "0"], "--trials: 0 found, must be from 1 to 10000"),
        (["--trials", "-5"], "--trials: -5 found, must be from 1 to 10000"),
        (["--trials", "10001"], "--trials: 10001 found, must be from 1 to 10000"),
        (["--trials", "x"], "Invalid value for '--trials'"),
        (["--epochs", "0"], "--epochs: 0 found, must be from 1 to 1000000"),
        (["--seed", "99999999999999999999"], "found, must be from 0 to 2147483647"),
        (["--storage", ""], "--storage: '' found"),
        (["--seed", "-1"], "--seed: -1 found, must be from 0 to 2147483647"),
        (["--replicas-per-pass", "0"], "--replicas-per-pass: 0 found, must be from 1 to 10000"),
        (["--methods", "unknown"], "'unknown' found, allowed: DTP, FW-DTP"),
        (["--dataset", "unknown"], f"'unknown' found, allowed: {MINI}"),
        (["--precision", "half"], "Invalid value for '--precision'"),
        (["--device", "cuda:99"], "'cuda:99' cannot be used"),
        (["--profile", "unknown"], "unknown plan 'unknown', allowed: quick, table2"),
        (["--profile", "unknown.yaml"], "unknown.yaml: no such file"),
        (["--profile", "paper", "--methods", "TP"], "no hyperparameters for TP on cifar-10"),
        (["--storage", "nonsense"], "--storage: not the URL of a database"),
        (["--storage", "sqlite://"], "names no file"),
        (["--storage", "foo://x"], "unknown kind of database"),
        (["--storage", "sqlite:////nowhere/at/all.db"], "the folder /nowhere/at does not exist"),
        (["--storage", "sqlite:///tiny.yaml"], "file is not a database"),
        (["--storage", "mssql+nothing://me:secret@127.0.0.1:9/x"], "unknown kind of database"),
        (["--storage", "postgresql+psycopg2://me:secret@127.0.0.1:9/x"], "127.0.0.1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors(command: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    line = fails(command(*arguments))
    assert said in line
    assert "secret" not in line
    assert not (tmp_path / "results" / "sensitivity.db").exists()
    assert (tmp_path / "tiny.yaml").read_text() == PLAN


def test_missing_driver_of_a_database_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    line = fails(command("--storage", "postgresql+psycopg2://me:secret@127.0.0.1:9/x"))
    assert "the Python package psycopg2 is needed and not installed" in line
    failure = ModuleNotFoundError("No module named 'lost'", name="lost")
    monkeypatch.setattr(optuna_storage, "RDBStorage", Mock(side_effect=failure))
    assert "the Python package lost is needed" in fails(command("--storage", "sqlite:///other.db"))


def test_profiles() -> None:
    for profile, column, epochs in (("paper", "cifar-10", 100), ("quick", MINI, 2)):
        chosen = Selection(PROFILES[profile], Path("nowhere"))
        assert default_rows(chosen.plan) == ["DTP", "FW-DTP"]
        assert default_column(chosen.plan) == column
        (drawn, _) = designs(chosen.plan, ["DTP", "FW-DTP"], column)
        assert drawn.run.epochs == epochs
        assert drawn.run.measure == ()
