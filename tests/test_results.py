"""The store: its files, what it refuses, and that a killed run goes on bit for bit."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pandas as pd
import pytest
import torch
import yaml

from benchmark import executor, results
from benchmark.compilation import Execution
from benchmark.config import PROJECT
from benchmark.errors import UserError
from benchmark.executor import execute
from benchmark.options import Selection
from benchmark.results import EPOCH_COLUMNS, Store, key_of, slug
from benchmark.samples import Dataset
from benchmark.states import State, status
from benchmark.sweep import Run
from tests import tiny
from tests.tiny import CPU, MINI

PLAN = tiny.PLAN.replace("epochs: 1", "epochs: 2")


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    plan = tmp_path / "tiny.yaml"
    plan.write_text(PLAN)
    return Selection(str(plan), None, None, None, None, tmp_path / "results")


def picked(chosen: Selection, row: str) -> Run:
    run = chosen.plan.run(row, MINI)
    assert run is not None
    return run


def train(run: Run, data: Dataset, store: Store) -> Path:
    execute(run, data, store, CPU, lambda done, result: None)
    folder = store.folder(run.key)
    assert folder is not None
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_files_are_readable(chosen: Selection, data: Dataset) -> None:
    folder = train(picked(chosen, "DTP"), data, chosen.store)
    assert sorted(contents(chosen.root)) == [
        f"runs/{MINI}/{folder.name}/epochs.csv",
        f"runs/{MINI}/{folder.name}/run.yaml",
    ]
    assert folder.name == f"dtp-{picked(chosen, 'DTP').key}"
    text = (folder / "run.yaml").read_text()
    record = yaml.safe_load(text)
    assert record["key"] == key_of(record["spec"])
    assert record["spec"] == picked(chosen, "DTP").spec
    assert record["data"]["checksum"] == data.checksum
    assert record["data"]["train_samples"] == 600
    assert not {"started", "device", "versions"} & set(record)
    assert record["training_seconds"] >= 0
    (sitting,) = record["sittings"]
    assert sorted(sitting) == [
        "device",
        "execution",
        "from_epoch",
        "method_code",
        "replicas_per_pass",
        "started",
        "versions",
    ]
    assert sitting["execution"] == "eager"
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", sitting["versions"]["commit"])
    assert sitting["versions"]["python"] == platform.python_version()
    assert sitting["versions"]["torch"] == str(torch.__version__)
    assert sitting["device"]
    assert sitting["from_epoch"] == -2  # before epoch 0: DTP pre-trains for two epochs
    started, finished = map(datetime.fromisoformat, (sitting["started"], record["finished"]))
    assert started.utcoffset() is not None
    assert started <= finished
    lines = (folder / "epochs.csv").read_text().splitlines()
    assert lines[0] == ",".join(EPOCH_COLUMNS)
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
    for file in (folder, *folder.iterdir()):
        assert file.stat().st_mode & 0o444 == 0o444
    words = set(re.findall(r"[\w.-]+", text))
    assert socket.gethostname() not in words
    assert str(Path.home()) not in text
    assert getpass.getuser() not in words
    assert str(chosen.root) not in text


def test_a_stored_run_is_not_trained_again(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    before = contents(chosen.root)
    monkeypatch.setattr(executor, "Training", None)
    assert train(picked(chosen, "BP"), data, chosen.store) == folder
    assert contents(chosen.root) == before


def test_slugs_are_file_names() -> None:
    assert slug("DTP (half size)") == "dtp-half-size"
    assert slug("../../etc") == "etc"
    assert slug("±") == "run"


def test_key_ignores_order_and_refuses_nan() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        key_of({"a": float("nan")})


def test_a_specification_that_lacks_something_is_damage(chosen: Selection, data: Dataset) -> None:
    """Though its key is that of what is left."""
    run = picked(chosen, "BP")
    folder = train(run, data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    del record["spec"]["precision"]
    record["key"] = key_of(record["spec"])
    renamed = folder.rename(folder.with_name(f"bp-{record['key']}"))
    (renamed / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{renamed / 'run.yaml'}: the specification is not complete; ")
    assert status(run, chosen.store).state is State.MISSING


def test_a_run_in_the_wrong_place_is_told_where_it_belongs(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    home = train(run, data, chosen.store)
    for wrong in (
        home.with_name("mine"),
        home.with_name(f"{home.name}-copy"),
        home.parents[1] / "mnist" / home.name,
        home.parents[1] / "a" / home.name,
    ):
        wrong.parent.mkdir(exist_ok=True)
        shutil.copytree(home, wrong)
        (problem,) = chosen.store.problems()
        assert problem == f"{wrong}: a copy of {home}, not looked at; delete this one"
        assert status(run, chosen.store).state is State.STORED
        whole = (home / "epochs.csv").read_text()
        (home / "epochs.csv").write_text("x")
        damage = [problem for problem in chosen.store.problems() if problem.startswith(f"{wrong}: ")]
        assert damage == [
            f"{wrong}: not where this run is looked for; let it replace {home}, which is damaged"
        ]
        (home / "epochs.csv").write_text(whole)
        shutil.rmtree(home)
        (problem,) = chosen.store.problems()
        assert problem == f"{wrong}: not where this run is looked for; move it to {home}"
        wrong.rename(home)
        assert chosen.store.problems() == []


def test_of_two_runs_with_one_key_an_intact_one_is_read(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    home = train(run, data, chosen.store)
    other = home.with_name(f"a-backup-{run.key}")
    shutil.copytree(home, other)
    assert chosen.store.folder(run.key) == other
    assert chosen.store.problems() == [f"{home}: a copy of {other}, not looked at; delete this one"]
    (other / "epochs.csv").write_text("x")
    assert chosen.store.folder(run.key) == home
    (damage,) = chosen.store.problems()
    assert damage.startswith(f"{other / 'epochs.csv'}: changed since")
    assert status(run, chosen.store).state is State.STORED


def test_another_training_of_a_run_is_no_copy(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen, "BP"), data, chosen.store)
    other = home.parents[1] / home.name  # one level too high
    shutil.copytree(home, other)
    (problem,) = chosen.store.problems()
    assert problem == f"{other}: a copy of {home}, not looked at; delete this one"
    record = yaml.safe_load((other / "run.yaml").read_text())
    record["data"]["checksum"] = "0" * 64
    (other / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert (
        problem
        == f"{other}: the same run as {home}, trained another time, and not looked at; keep one of them"
    )


def test_a_row_may_have_another_label_now(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    home = train(run, data, chosen.store)
    home.rename(home.with_name(f"renamed-{run.key}"))
    assert chosen.store.problems() == []
    assert status(run, chosen.store).state is State.STORED


@pytest.mark.parametrize(
    "dataset", ["mnist", None, *({"name": name} for name in (5, "../../elsewhere", "..", "", "**a"))]
)
def test_a_record_of_no_data_set_is_damage(chosen: Selection, data: Dataset, dataset: Any) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record["spec"]["dataset"] = dataset
    record["key"] = key_of(record["spec"])
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: not the record of a run; ")


SITTING = {"started": "2026-01-02T03:04:05+00:00", "device": "x", "versions": {"torch": "2", "commit": "0"}}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(
            ("training_seconds", seconds, f"training_seconds: {seconds!r} found; input should be ")
            for seconds in (-5, "0.3", float("nan"), float("inf"), 1.1e9, True, None)
        ),
        ("row", 5, "row: 5 found; input should be a valid string; "),
        ("label", 5, "label: 5 found; input should be a valid string; "),
        ("finished", "yesterday", "finished: 'yesterday' found; input should be a time of UTC as "),
        ("finished", date(2026, 1, 2), "finished: datetime.date(2026, 1, 2) found; input should be a "),
        ("data", {"checksum": "0"}, "data.train_samples: this key is required; "),
        ("data", {"checksum": "0", "train_samples": 0}, "data.train_samples: 0 found; input should be "),
        ("sittings", "abc", "sittings: 'abc' found; input should be a valid list; "),
        ("sittings", None, "sittings: None found; input should be a valid list; "),
        ("sittings", [], "sittings: [] found; list should have at least 1 item"),
        ("sittings", [5], "sittings.0: 5 found; input should be a mapping; "),
    ],
)
def test_what_no_run_says_of_its_making_is_damage(
    chosen: Selection, data: Dataset, name: str, value: Any, expected: str
) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record[name] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: {expected}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *(({name: None}, f"{name}: None found; input should be ") for name in (*SITTING, "seeds")),
        *(
            ({name: 5}, f"{name}: 5 found; input should be ")
            for name in ("execution", "method_code", "seeds")
        ),
        ({"started": "9999"}, "started: '9999' found; input should be a time of UTC as "),
        *(
            ({"started": when}, f"started: {when!r} found; input should be a time of UTC as ")
            for when in ("2026-01-02", "2026-W01-1", "2026-01-02T03:04:05", "2026-01-02T03:04:05+05:00")
        ),
        ({"execution": ""}, "execution: '' found; input should be 'eager', "),
        ({"execution": "somehow"}, "execution: 'somehow' found; input should be "),
        ({"replicas_per_pass": 0}, "replicas_per_pass: 0 found; input should be "),
        ({"versions": {"torch": "2"}}, "versions.commit: this key is required; "),
        ({"versions": {"commit": "0"}}, "versions.torch: this key is required; "),
    ],
)
def test_what_no_sitting_says_is_damage(
    chosen: Selection, data: Dataset, change: dict[str, Any], expected: str
) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump({**record, "sittings": [SITTING]}))
    assert chosen.store.problems() == []
    (folder / "run.yaml").write_text(yaml.safe_dump({**record, "sittings": [SITTING, {**SITTING, **change}]}))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: sittings.1.{expected}")


@pytest.mark.parametrize("execution", Execution)
def test_every_execution_may_be_recorded(chosen: Selection, data: Dataset, execution: Execution) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record["sittings"][0]["execution"] = execution.value
    (folder / "run.yaml").write_text(yaml.safe_dump(record))
    assert chosen.store.problems() == []


REQUIRED = ("row", "label", "data", "finished", "training_seconds", "sittings")


@pytest.mark.parametrize("name", [*REQUIRED, *(f"sittings.0.{name}" for name in SITTING)])
def test_what_every_record_says_is_required(chosen: Selection, data: Dataset, name: str) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    holder, key = (record["sittings"][0], name.split(".")[-1]) if "." in name else (record, name)
    del holder[key]
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    expected = "not the record of a run" if name == "data" else f"{name}: this key is required"
    assert problem.startswith(f"{folder / 'run.yaml'}: {expected}; ")


def test_a_run_inside_another_one_is_found(chosen: Selection, data: Dataset) -> None:
    outer, inner = (train(picked(chosen, row), data, chosen.store) for row in ("BP", "DTP"))
    lost = inner.rename(outer / inner.name)
    assert chosen.store.problems() == [f"{lost}: not where this run is looked for; move it to {inner}"]


def test_two_runs_that_changed_places(chosen: Selection, data: Dataset) -> None:
    one, other = (train(picked(chosen, row), data, chosen.store) for row in ("BP", "DTP"))
    aside = one.rename(one.with_name("aside"))
    other.rename(one)
    aside.rename(other)
    for problem in chosen.store.problems():
        assert problem.endswith(", once what is there is out of the way")
    assert len(chosen.store.problems()) == 2


def test_a_run_outside_its_data_sets_folder(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen, "BP"), data, chosen.store)
    wrong = home.rename(home.parents[1] / home.name)
    problems = chosen.store.problems()
    assert problems == [f"{wrong}: not where this run is looked for; move it to {home}"]


def test_a_folder_with_runs_below_is_not_to_be_deleted(chosen: Selection, data: Dataset) -> None:
    home = train(picked(chosen, "BP"), data, chosen.store)
    shutil.copytree(home.parent, home.parents[1] / "copies" / "of-mini")
    nested, problem = chosen.store.problems()
    copy = home.parents[1] / "copies" / "of-mini" / home.name
    assert nested == f"{copy}: a copy of {home}, not looked at; delete this one"
    assert "delete" not in problem
    assert f"move out what it holds, such as {home.parents[1] / 'copies' / 'of-mini' / home.name}" in problem


def test_damage_is_refused_in_one_line(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    folder = train(run, data, chosen.store)
    yaml_text, csv = (folder / "run.yaml").read_text(), (folder / "epochs.csv").read_text()
    assert chosen.store.problems() == []
    lr = "    lr: 0.1\n"
    assert lr in yaml_text
    damages: list[tuple[str, str | None]] = [
        ("epochs.csv", csv.replace("2,1,", "2,3,")),
        ("epochs.csv", csv[: len(csv) // 2]),
        ("epochs.csv", ""),
        ("epochs.csv", None),
        ("run.yaml", yaml_text.replace(lr, "    lr: 0.2\n")),
        ("run.yaml", yaml_text.replace(lr, "    lr: 2020-01-01\n")),
        ("run.yaml", yaml_text.replace(lr, "    lr: .nan\n")),
        ("run.yaml", yaml_text.replace("key: ", "key: f")),
        ("run.yaml", yaml_text[: len(yaml_text) // 2]),
        ("run.yaml", yaml_text.replace("\ndata:\n", "\nother:\n")),
        ("run.yaml", yaml_text.replace("\nepochs_sha256:", "\nother:")),
        ("run.yaml", "[1, 2"),
        ("run.yaml", "- 1\n"),
        ("run.yaml", ""),
        ("run.yaml", None),
    ]
    for name, damaged in damages:
        file = folder / name
        whole = file.read_text()
        assert damaged != whole
        if damaged is None:
            file.unlink()
        else:
            file.write_text(damaged)
        before = contents(chosen.root)
        (problem,) = chosen.store.problems()
        assert str(file) in problem
        assert "\n" not in problem
        found = status(run, chosen.store)
        assert (found.state, found.detail) == (State.DAMAGED, problem)
        with pytest.raises(UserError) as error:
            chosen.store.load(run.key)
        assert str(error.value) == problem
        train(run, data, chosen.store)
        assert contents(chosen.root) == before, "a damaged run was overwritten"
        file.write_text(whole)
    assert chosen.store.problems() == []


def test_csv_with_a_matching_checksum_still_needs_every_epoch(chosen: Selection, data: Dataset) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    csv = (folder / "epochs.csv").read_text()
    short = "".join(csv.splitlines(keepends=True)[:-1])
    text = (folder / "run.yaml").read_text()
    (folder / "epochs.csv").write_text(short)
    (folder / "run.yaml").write_text(text.replace(results._sha256(csv), results._sha256(short)))
    assert "not every epoch and seed" in chosen.store.problems()[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda csv: "", "no table: No columns to parse from file"),
        (
            lambda csv: csv.replace("test_error", "error"),
            "columns epoch, seed, train_loss, error, diverged found",
        ),
        (
            lambda csv: re.sub(r"[^,]+,False\n", "banana,False\n", csv, count=1),
            "test_error is not a number in every line",
        ),
        (
            lambda csv: csv.replace("epoch,seed", "seed,epoch"),
            "columns seed, epoch, train_loss, test_error, diverged found, must be epoch, seed, train_loss, ",
        ),
        (
            lambda csv: re.sub(r"(?m)^(?=\d)", "x,", csv),
            "columns .* found, must be .*, and no line may have more",
        ),
        (lambda csv: csv.replace("False", "maybe", 1), "diverged is not True or False in every line"),
        (lambda csv: csv.replace("\n1,", "\n1.5,", 1), "epoch is not a whole number in every line"),
        *(
            (
                lambda csv, found=found: re.sub(r"[^,]+,False\n$", f"{found},False\n", csv),
                rf"line 5: test_error {found} found, must be from 0 to 100",
            )
            for found in ("236.8", "-39", "nan")
        ),
    ],
)
def test_csv_with_a_matching_checksum_still_needs_columns_types_and_errors_of_a_run(
    chosen: Selection, data: Dataset, change: Callable[[str], str], expected: str
) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    csv = (folder / "epochs.csv").read_text()
    forged = change(csv)
    assert forged != csv
    text = (folder / "run.yaml").read_text()
    (folder / "epochs.csv").write_text(forged)
    (folder / "run.yaml").write_text(text.replace(results._sha256(csv), results._sha256(forged)))
    (problem,) = chosen.store.problems()
    assert re.match(f"{re.escape(str(folder / 'epochs.csv'))}: {expected}", problem)


@pytest.mark.parametrize(
    ("loss", "error"), [(float("nan"), 90.0), (float("inf"), 90.5), (1, 2), (0.5, 0), (0.5, 100)]
)
def test_every_number_of_a_run_is_kept(chosen: Selection, data: Dataset, loss: float, error: float) -> None:
    """Of a seed that diverged, and of one whose numbers happen to be whole."""
    run = picked(chosen, "BP")
    trained = executor.train(run, data, chosen.store, CPU, lambda done, result: None)
    trained.epochs["train_loss"], trained.epochs["test_error"] = loss, error
    chosen.store.commit("BP", trained.record, trained.epochs, trained.measured)
    assert chosen.store.problems() == []


class Stop(Exception):
    """Interrupts a run between two epochs."""


def interrupt(run: Run, data: Dataset, store: Store, after: int = 1) -> Path:
    """Train some epochs, pre-training included; returns the checkpoint."""

    def progress(done: int, result: object) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        execute(run, data, store, CPU, progress)
    file = store.root / "partial" / run.key / "checkpoint.pt"
    assert file.is_file()
    return file


@pytest.mark.parametrize("row", ["BP", "DTP"])
def test_interrupted_between_epochs(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, row: str
) -> None:
    run = picked(chosen, row)
    straight = train(run, data, chosen.store)
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    other = Store(chosen.root / "again")
    first = yaml.safe_load((straight / "run.yaml").read_text())["sittings"][0]
    for after in range(1, run.total_epochs + 1):
        interrupt(run, data, other, after)
        found = status(run, other)
        assert (found.state, found.epochs_done) == (State.PARTIAL, after)
        assert found.detail == f"{after} of {run.total_epochs} epochs"
        assert other.folders() == []
    resumed = train(run, data, other)
    assert (resumed / "epochs.csv").read_bytes() == (straight / "epochs.csv").read_bytes()
    sittings = yaml.safe_load((resumed / "run.yaml").read_text())["sittings"]
    begun = range(first["from_epoch"], run.epochs + 1)
    assert [sitting["from_epoch"] for sitting in sittings] == list(begun)
    assert len(sittings) == run.total_epochs + 1
    for sitting in sittings:
        assert {**sitting, "started": None, "from_epoch": None} == {
            **first,
            "started": None,
            "from_epoch": None,
        }
    assert list((other.root / "partial").iterdir()) == []


@pytest.mark.parametrize("damage", ["empty", "half", "bit", "text", "directory"])
def test_damaged_checkpoint(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    run = picked(chosen, "BP")
    file = interrupt(run, data, chosen.store)
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    damaged = {"empty": b"", "half": whole[:middle], "bit": flipped, "text": b"hello"}.get(damage)
    if damaged is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged") as error:
        train(run, data, chosen.store)
    found = status(run, chosen.store)
    assert (found.state, found.detail) == (State.DAMAGED, str(error.value))
    assert str(file) in found.detail
    assert "\n" not in found.detail
    assert file.is_dir() if damaged is None else file.read_bytes() == damaged
    assert chosen.store.folders() == []


def test_other_data_than_the_checkpoint(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    run = picked(chosen, "BP")
    file = interrupt(run, data, chosen.store)
    before = file.read_bytes()
    other = Dataset(MINI, data.train, data.test, data.source, "0" * 64)
    with pytest.raises(UserError, match="begun on data with checksum"):
        train(run, other, chosen.store)
    assert file.read_bytes() == before
    train(run, data, chosen.store)


def test_a_second_process_is_turned_away(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    lock = chosen.root / "partial" / run.key / "lock"
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock), pytest.raises(UserError, match="being trained by another process"):
        train(run, data, chosen.store)
    train(run, data, chosen.store)
    assert not lock.parent.exists()


def test_tidy_removes_what_a_kill_before_unlink_left(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    done, begun = picked(chosen, "BP"), picked(chosen, "DTP")
    orphan = interrupt(done, data, chosen.store, done.total_epochs)
    content = orphan.read_bytes()
    folder = train(done, data, chosen.store)
    orphan.parent.mkdir()
    orphan.write_bytes(content)
    kept = interrupt(begun, data, chosen.store)
    before = contents(folder)
    with filelock.FileLock(orphan.parent / "lock"):
        chosen.store.tidy(done.key)
        assert orphan.exists(), "another process holds it"
    for run in (done, begun, done):
        chosen.store.tidy(run.key)
    assert not orphan.parent.exists()
    assert kept.is_file()
    assert contents(folder) == before


def test_progress_begins_with_the_epochs_done(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    run = picked(chosen, "BP")
    interrupt(run, data, chosen.store)
    calls: list[tuple[int, bool]] = []
    execute(run, data, chosen.store, CPU, lambda done, result: calls.append((done, result is None)))
    assert calls == [(1, True), (2, False)]


def disk_full(*arguments: Any, **options: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "os.chmod", "torch.save"])
def test_checkpoint_survives_a_failing_write(
    chosen: Selection, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    state = {"training": {"completed": 1}, "weights": torch.zeros(3)}
    chosen.store.save_checkpoint("k", state)
    before = contents(chosen.root)
    with monkeypatch.context() as patch:
        patch.setattr(call, disk_full)
        with pytest.raises(OSError, match="No space"):
            chosen.store.save_checkpoint("k", {**state, "weights": torch.ones(3)})
    assert contents(chosen.root) == before
    assert chosen.store.checkpoint("k") is not None


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "os.rename", "tempfile.mkdtemp"])
def test_store_survives_a_failing_commit(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    first, run = train(picked(chosen, "BP"), data, chosen.store), picked(chosen, "DTP")
    stored = contents(first)
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    file = interrupt(run, data, chosen.store, run.total_epochs)
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(call, disk_full)
        with pytest.raises(OSError, match="No space"):
            train(run, data, chosen.store)
    assert file.read_bytes() == before
    assert contents(first) == stored
    assert chosen.store.folders() == [first]
    train(run, data, chosen.store)
    assert len(chosen.store.folders()) == 2
    assert list((chosen.root / "partial").iterdir()) == []


DRIVER = """
import json, os, random, signal, sys, time
import benchmark.cli, benchmark.executor
from benchmark import cli, executor, results

executor.CHECKPOINT_SECONDS = 0.0

def sitting(arguments, prepare, after=None):
    '''One process that runs a command, killed `after` seconds or as `prepare` arranges; its status.'''
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            sys.argv = ["benchmark", *arguments]
            prepare()
            cli.main()
        except SystemExit as end:
            os._exit(end.code or 0)
        finally:
            os._exit(70)
    if after is not None:
        time.sleep(after)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
    _, status = os.waitpid(child, 0)
    return status

def kill_at(number):
    '''Kill at the number-th durable step: half written, written, renamed, removed.'''
    seen = [0]
    def wrap(module, name, late):
        real = getattr(module, name)
        def step(*args, **options):
            seen[0] += 1
            if seen[0] == number and not late:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **options)
            if seen[0] == number and late:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(module, name, step)
    def prepare():
        for name, late in (("fsync", False), ("replace", True), ("rename", True), ("unlink", False)):
            wrap(os, name, late)
        wrap(results.shutil, "rmtree", False)
    return prepare

def nothing():
    pass

straight, killed, every, plan, seed = sys.argv[1:]
arguments = ["run", plan, "--device", "cpu", "--results"]
report = {"straight": sitting([*arguments, straight], nothing)}

# At random moments, each time a little later, until a sitting comes to its end.
draw, patience, report["random"] = random.Random(int(seed)), 0.05, 0
while sitting([*arguments, killed], nothing, draw.uniform(0.02, patience)) != 0:
    patience += 0.03
    report["random"] += 1
    assert report["random"] < 200

# At every durable step: the n-th sitting is killed at its n-th step, so all come to pass.
number, report["steps"] = 1, 0
while sitting([*arguments, every], kill_at(number)) != 0:
    number = number % 11 + 1
    report["steps"] += 1
    assert report["steps"] < 200
print(json.dumps(report))
"""


def test_killed_at_any_moment_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL at seeded random moments and at every durable step, pre-training and commit included."""
    plan, driver = tmp_path / "tiny.yaml", tmp_path / "driver.py"
    plan.write_text(PLAN.replace("batch_size: 512", "batch_size: 256"))
    driver.write_text(DRIVER)
    names = ["straight", "killed", "every"]
    done = subprocess.run(
        [sys.executable, driver, *(tmp_path / name for name in names), plan, "7"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["straight"] == 0
    assert report["random"] >= 3
    assert report["steps"] >= 8
    tables = {
        name: {file.parent.name: file.read_bytes() for file in (tmp_path / name).glob("runs/*/*/epochs.csv")}
        for name in names
    }
    assert len(tables["straight"]) == 2
    assert tables["killed"] == tables["straight"]
    assert tables["every"] == tables["straight"]
    for name in names:
        store = Store(tmp_path / name)
        assert store.problems() == []
    sittings = [yaml.safe_load((f / "run.yaml").read_text())["sittings"] for f in store.folders()]
    assert max(map(len, sittings)) > 1
    for starts in ([sitting["from_epoch"] for sitting in run] for run in sittings):
        assert starts == sorted(starts)


def test_partial_runs_stay_out_of_the_store(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    run = picked(chosen, "DTP")
    interrupt(run, data, chosen.store, run.total_epochs)
    assert chosen.store.folders() == []
    assert chosen.store.load(run.key) is None


def test_unwritable_results_folder(chosen: Selection, data: Dataset) -> None:
    chosen.root.mkdir()
    (chosen.root / "partial").write_text("in the way")
    with pytest.raises(UserError, match="results folder") as error:
        train(picked(chosen, "BP"), data, chosen.store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["runs", f"runs/{MINI}"])
@pytest.mark.parametrize("damage", ["file", "link", "unreadable"])
def test_what_cannot_be_read_is_not_missing(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch, place: str, damage: str
) -> None:
    run = picked(chosen, "BP")
    train(run, data, chosen.store)
    folder = chosen.root / place
    kept = folder.rename(chosen.root / "kept")
    if damage == "file":
        folder.write_text("in the way")
    elif damage == "link":
        folder.symlink_to(chosen.root / "not-mounted")
    else:
        kept.rename(folder)
        read = Path.iterdir

        def refused(path: Path) -> Any:
            if path == folder:
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(Path, "iterdir", refused)
    for call in (chosen.store.folders, chosen.store.problems, lambda: chosen.store.load(run.key)):
        with pytest.raises(UserError, match=f"^{re.escape(str(folder))}: .*a readable folder of the store"):
            call()
    assert status(run, chosen.store).state is State.DAMAGED
    if damage != "unreadable":
        with pytest.raises(UserError, match=re.escape(str(folder))):
            chosen.store.refuse_unwritable(MINI)


def test_hidden_files_are_none_of_the_stores(chosen: Selection, data: Dataset) -> None:
    folder = train(picked(chosen, "BP"), data, chosen.store)
    for place in (folder.parent, folder.parent.parent):
        (place / ".gitkeep").touch()
        (place / "notes.txt").write_text("the second seed is odd")
    (folder.parent.parent / "lost+found").mkdir(mode=0)
    assert chosen.store.folders() == [folder]
    assert chosen.store.folder(picked(chosen, "BP").key) == folder
    assert chosen.store.problems() == []


def test_a_link_of_a_run_that_leads_nowhere_is_damage(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    folder = train(run, data, chosen.store)
    folder.rename(chosen.root / "kept")
    folder.symlink_to(chosen.root / "not-mounted")
    assert chosen.store.folders() == [folder]
    (problem,) = chosen.store.problems()
    assert str(folder / "run.yaml") in problem
    assert status(run, chosen.store).state is State.DAMAGED


def test_a_checkpoint_that_cannot_be_found_is_not_none(
    chosen: Selection, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
    run = picked(chosen, "BP")
    file = interrupt(run, data, chosen.store)
    for place in (file, file.parent):
        place.rename(chosen.root / "kept")
        place.symlink_to(chosen.root / "not-mounted")
        assert status(run, chosen.store).state is State.DAMAGED
        place.unlink()
        (chosen.root / "kept").rename(place)
    assert status(run, chosen.store).state is State.PARTIAL


def test_runs_on_another_file_system_are_refused(
    chosen: Selection, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished ones are moved there in one step, which fails between two."""
    runs = chosen.root / "runs" / MINI
    runs.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    runs.symlink_to(tmp_path / "elsewhere")
    chosen.store.refuse_unwritable(MINI)
    stat = Path.stat

    def two_devices(path: Path, **options: bool) -> Any:
        found = stat(path, **options)
        return SimpleNamespace(st_dev=found.st_dev + (path == runs), st_mode=found.st_mode)

    monkeypatch.setattr(Path, "stat", two_devices)
    with pytest.raises(UserError, match=f"runs/{MINI} and .*/partial are on two file systems"):
        chosen.store.refuse_unwritable(MINI)


def test_runs_that_mix_states_of_a_methods_code(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    train(run, data, chosen.store)
    stored = chosen.store.load(run.key)
    assert stored is not None
    for codes, mixes in (
        (["3.11-a"], False),
        (["3.11-a", "3.11-a", ""], False),
        (["3.11-a", "3.12-b"], False),  # the same code, as far as versions of Python can tell
        (["3.11-a", "3.11-b"], True),
        (["3.12-c", "3.11-a", "3.11-b"], True),
    ):
        stored.record["sittings"] = [{"method_code": code} for code in codes] + [{}]
        assert stored.mixes_code is mixes, codes


def test_commit_never_replaces(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "BP")
    folder = train(run, data, chosen.store)
    before = contents(folder)
    frame = pd.DataFrame([[1, 1, 0.0, 0.0, False]], columns=list(EPOCH_COLUMNS))
    assert chosen.store.commit(run.row, {"spec": run.spec}, frame) == folder
    assert contents(folder) == before
