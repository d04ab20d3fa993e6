"""Runs stopped, killed, and met by a full disk go on bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
import yaml

from benchmark.common.errors import UserError
from benchmark.config import PROJECT
from benchmark.engine.samples import Dataset
from benchmark.store.store import Store
from benchmark.sweep.execute import execute
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status
from tests.helpers.stored import PLAN, contents, train
from tests.helpers.tiny import CPU, MINI, picked, select


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    return select(tmp_path, PLAN)


class Stop(Exception):
    """Interrupts a run between two epochs."""


def interrupt(run: Run, data: Dataset, store: Store, after: int = 1) -> Path:
    """Train some epochs, pre-training included; returns the checkpoint."""

    def progress(done: int, result: object) -> None:
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        execute(run, data, store, CPU, progress, checkpoint_seconds=0.0)
    file = store.root / "partial" / run.key / "checkpoint.pt"
    assert file.is_file()
    return file


@pytest.mark.parametrize("row", ["BP", "DTP"])
def test_interrupted_between_epochs(chosen: Selection, data: Dataset, row: str) -> None:
    run = picked(chosen, row)
    straight = train(run, data, chosen.store)
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
def test_damaged_checkpoint(chosen: Selection, data: Dataset, damage: str) -> None:
    run = picked(chosen)
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


def test_other_data_than_the_checkpoint(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    file = interrupt(run, data, chosen.store)
    before = file.read_bytes()
    other = Dataset(MINI, data.train, data.test, data.source, "0" * 64)
    with pytest.raises(UserError, match="begun on data with checksum"):
        train(run, other, chosen.store)
    assert file.read_bytes() == before
    train(run, data, chosen.store)


def test_a_second_process_is_turned_away(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    lock = chosen.root / "partial" / run.key / "lock"
    lock.parent.mkdir(parents=True)
    with filelock.FileLock(lock), pytest.raises(UserError, match="being trained by another process"):
        train(run, data, chosen.store)
    train(run, data, chosen.store)
    assert not lock.parent.exists()


def test_tidy_removes_what_a_kill_before_unlink_left(chosen: Selection, data: Dataset) -> None:
    done, begun = picked(chosen), picked(chosen, "DTP")
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


def test_progress_begins_with_the_epochs_done(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
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
    first, run = train(picked(chosen), data, chosen.store), picked(chosen, "DTP")
    stored = contents(first)
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
from benchmark.cli.app import main
from benchmark.sweep import execute as executor
from benchmark.store import store as results

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
            main()
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


def test_partial_runs_stay_out_of_the_store(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen, "DTP")
    interrupt(run, data, chosen.store, run.total_epochs)
    assert chosen.store.folders() == []
    assert chosen.store.load(run.key) is None


def test_a_checkpoint_that_cannot_be_found_is_not_none(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
    file = interrupt(run, data, chosen.store)
    for place in (file, file.parent):
        place.rename(chosen.root / "kept")
        place.symlink_to(chosen.root / "not-mounted")
        assert status(run, chosen.store).state is State.DAMAGED
        place.unlink()
        (chosen.root / "kept").rename(place)
    assert status(run, chosen.store).state is State.PARTIAL
