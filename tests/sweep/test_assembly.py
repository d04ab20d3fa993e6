"""A run put together from stored runs of its seeds is the run that trains them all."""

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset
from benchmark.store.record import StoredRun
from benchmark.sweep import execute as executor
from benchmark.sweep.execute import execute
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status, stored_seeds

MINI = "fashion-mnist-mini"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 2, batch_size: 256, seeds: [1, 2, 3], source: guess}}
networks:
  2x8: {{hidden_layers: 2, width: 8, source: guess}}
columns:
  {MINI}: {{network: 2x8}}
measure:
  conditions: {{rows: [DTP], columns: [{MINI}]}}
rows:
  DTP:
    method: DTP
    options: {{feedback_updates: 1}}
    hyperparameters:
      {MINI}: {{lr: 0.5, stepsize: 0.07, lr_feedback: 0.0015, noise_std: 0.02, source: guess}}
"""


def select(folder: Path, seeds: str | None = None) -> Selection:
    folder.mkdir(exist_ok=True)
    file = folder / "tiny.yaml"
    file.write_text(PLAN)
    return Selection(str(file), folder / "results", seeds=seeds)


def the_run(chosen: Selection) -> Run:
    (run,) = chosen.plan.runs(chosen.rows, chosen.columns)
    return run


def train(folder: Path, data: Dataset, seeds: str | None = None) -> StoredRun:
    chosen = select(folder, seeds)
    execute(the_run(chosen), data, chosen.store, torch.device("cpu"), lambda done, result: None)
    stored = chosen.store.load(the_run(chosen).key)
    assert stored is not None
    return stored


def interrupt(folder: Path, data: Dataset, after: int) -> Selection:
    """Begin the whole run, and leave it with the checkpoint of so many epochs."""
    chosen = select(folder)

    def kill(done: int, result: object) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(the_run(chosen), data, chosen.store, torch.device("cpu"), kill, checkpoint_seconds=0.0)
    return chosen


def assert_alike(ours: StoredRun, theirs: StoredRun) -> None:
    """In other company products may be rounded otherwise."""
    assert ours.spec == theirs.spec
    pd.testing.assert_frame_equal(ours.epochs, theirs.epochs, rtol=1e-4)
    assert ours.measured.keys() == theirs.measured.keys() == {"conditions"}
    keys = ["epoch", "seed", "encoder", "quantity"]
    ours_measured, theirs_measured = (
        run.measured["conditions"].sort_values(keys, ignore_index=True) for run in (ours, theirs)
    )
    pd.testing.assert_frame_equal(ours_measured[keys], theirs_measured[keys])
    # Angles and pseudo-inverses magnify rounding.
    pd.testing.assert_frame_equal(ours_measured, theirs_measured, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "parts", [("2",), ("3", "1"), ("1", "2", "3"), ("1,2", "3"), ("1", "1,2"), ("2,3,4", "1,4")], ids=str
)
def test_stored_seeds_do_not_train_again(
    parts: tuple[str, ...], tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "at-once", data)
    folder = tmp_path / "in-parts"
    for seeds in parts:
        train(folder, data, seeds)
    there = {int(seed) for seeds in parts for seed in seeds.split(",")} - {4}
    found = status(the_run(select(folder)), select(folder).store)
    collects = ", `run` assembles them" if len(there) == 3 else ""
    assert (found.state, found.detail) == (State.PARTIAL, f"{len(there)} of 3 seeds stored{collects}")
    assert found.epochs_done == 3 * len(there) // 3

    trained: list[list[int]] = []
    really = executor.train
    monkeypatch.setattr(
        executor, "train", lambda *given, **how: trained.append(how["seeds"]) or really(*given, **how)
    )
    run = train(folder, data)
    assert trained == ([] if len(there) == 3 else [[seed for seed in (1, 2, 3) if seed not in there]])
    assert_alike(run, whole)
    assert {seed for sitting in run.record["sittings"] for seed in sitting["seeds"]} == {1, 2, 3}
    assert status(the_run(select(folder)), select(folder).store).state is State.STORED
    assert not list((folder / "results" / "partial").iterdir())


def test_all_stored_seeds_are_collected_without_data(tmp_path: Path, data: Dataset) -> None:
    """Whatever was begun of them meanwhile."""
    whole = train(tmp_path / "at-once", data)
    folder = tmp_path / "in-parts"
    chosen = interrupt(folder, data, 2)
    train(folder, data, "1,2")
    assert not executor.collect(the_run(chosen), chosen.store)
    train(folder, data, "3")
    assert executor.collect(the_run(chosen), chosen.store)
    stored = chosen.store.load(the_run(chosen).key)
    assert stored is not None
    assert_alike(stored, whole)
    assert not list((folder / "results" / "partial").iterdir())


def test_seeds_of_different_images_are_not_collected(tmp_path: Path, data: Dataset) -> None:
    folder = tmp_path / "in-parts"
    train(folder, data, "1,2")
    train(folder, Dataset(data.name, data.train, data.test, data.source, "0" * 64), "3")
    chosen = select(folder)
    with pytest.raises(UserError, match="was trained on data with checksum"):
        executor.collect(the_run(chosen), chosen.store)
    assert chosen.store.load(the_run(chosen).key) is None


def test_the_rest_goes_on_after_a_kill(tmp_path: Path, data: Dataset) -> None:
    whole = train(tmp_path / "at-once", data)
    folder = tmp_path / "in-parts"
    train(folder, data, "2")
    chosen = interrupt(folder, data, 2)
    found = status(the_run(chosen), chosen.store)
    assert (found.state, found.detail) == (State.PARTIAL, "1 of 3 seeds stored, 2 of 3 epochs")
    assert found.epochs_done == 2  # (3 + 2 + 2) / 3
    assert found.seconds_per_epoch is not None
    assert_alike(train(folder, data), whole)


def test_a_run_under_way_goes_on_though_more_seeds_are_stored_meanwhile(
    tmp_path: Path, data: Dataset
) -> None:
    train(tmp_path, data, "1")
    chosen = interrupt(tmp_path, data, 2)
    train(tmp_path, data, "2")
    found = status(the_run(chosen), chosen.store)
    assert found.detail == "1 of 3 seeds stored, 2 of 3 epochs"
    seen: list[int] = []
    execute(the_run(chosen), data, chosen.store, torch.device("cpu"), lambda done, result: seen.append(done))
    assert seen == [2, 3]
    assert not list((chosen.root / "partial").iterdir())


def test_seeds_that_vanish_from_the_store_are_missed_before_training(tmp_path: Path, data: Dataset) -> None:
    part = train(tmp_path, data, "1")
    interrupt(tmp_path, data, 1)
    shutil.rmtree(part.folder)
    with pytest.raises(UserError, match=r"begun when seeds 1 were stored, which they no longer are; delete"):
        train(tmp_path, data)


def test_a_run_under_way_goes_on_with_all_its_seeds(tmp_path: Path, data: Dataset) -> None:
    chosen = interrupt(tmp_path, data, 1)
    train(tmp_path, data, "2")
    seen: list[int] = []
    execute(the_run(chosen), data, chosen.store, torch.device("cpu"), lambda done, result: seen.append(done))
    assert seen == [1, 2, 3]


def test_other_specifications_other_seeds_and_damage_are_no_parts(tmp_path: Path, data: Dataset) -> None:
    train(tmp_path, data, "1")
    broken = train(tmp_path, data, "3")
    (broken.folder / "epochs.csv").write_text("epoch,seed\n")
    chosen = select(tmp_path)
    (chosen.store.root / "runs" / MINI / "backup").mkdir()
    found = stored_seeds(the_run(chosen), chosen.store)
    assert list(found) == [1]
    (tmp_path / "tiny.yaml").write_text(PLAN.replace("lr: 0.5", "lr: 0.4"))
    other = Selection(str(tmp_path / "tiny.yaml"), tmp_path / "results")
    assert stored_seeds(the_run(other), other.store) == {}


def test_a_stored_seed_that_may_not_be_read_does_not_train_again(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = train(tmp_path, data, "1").folder / "epochs.csv"
    read = Path.read_text

    def refused(path: Path, *given: Any, **how: Any) -> str:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read(path, *given, **how)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: cannot be read: Permission denied$"):
        train(tmp_path, data)
    chosen = select(tmp_path)
    assert status(the_run(chosen), chosen.store).state is State.DAMAGED


def test_parts_of_different_data_are_refused(tmp_path: Path, data: Dataset) -> None:
    train(tmp_path, data, "1")
    other = Dataset(MINI, data.train, data.test, data.source, "0" * 64)
    train(tmp_path, other, "2")
    with pytest.raises(UserError, match=rf"000000000000\.\.\., {data.checksum[:12]}\.\.\. found now"):
        train(tmp_path, data)
    assert the_run(select(tmp_path)).key not in {
        folder.name.rsplit("-", 1)[1] for folder in select(tmp_path).store.folders()
    }
