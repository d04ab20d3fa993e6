"""Runs trained: in passes, with interruptions, to divergence."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmark.common.errors import UserError
from benchmark.engine import memory
from benchmark.engine.samples import Dataset
from benchmark.engine.training import EpochResult, Training
from benchmark.sweep.execute import execute
from benchmark.sweep.status import State, status
from tests.helpers.tiny import CPU, PLAN, picked, select, train


@pytest.mark.filterwarnings("error")
def test_diverged_seed_is_stored_and_counted(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path, PLAN.replace("lr: 0.1", "lr: 1.0e+38"))
    train(chosen, data)
    stored = chosen.store.load(picked(chosen).key)
    assert stored is not None
    assert stored.final["diverged"].tolist() == [True, True]
    assert stored.final["test_error"].notna().all()
    assert (stored.final["test_error"] > 50).all()


def test_epochs_do_not_change_what_came_before(tmp_path: Path, data: Dataset) -> None:
    short, long = select(tmp_path, epochs=2), select(tmp_path, epochs=3)
    for chosen in (short, long):
        train(chosen, data, "DTP")
    runs = [chosen.store.load(picked(chosen, "DTP").key) for chosen in (short, long)]
    assert runs[0] is not None
    assert runs[1] is not None
    first = runs[1].epochs[runs[1].epochs["epoch"] <= 2]
    assert first.equals(runs[0].epochs)


PASSES = PLAN.replace("seeds: [1, 2]", "seeds: [1, 2, 3]").replace("epochs: 1", "epochs: 2")


def test_passes_of_fewer_replicas_give_the_same_run(tmp_path: Path, data: Dataset) -> None:
    tables = []
    for size in (None, 3, 2, 1):
        chosen = select(tmp_path / str(size), PASSES)
        seen: list[int] = []
        run = picked(chosen, "DTP")
        execute(
            run,
            data,
            chosen.store,
            CPU,
            lambda done, result, seen=seen: seen.append(done),
            replicas_per_pass=size,
        )
        stored = chosen.store.load(run.key)
        assert stored is not None
        (sitting,) = stored.record["sittings"]
        assert sitting["replicas_per_pass"] == (size or 3)
        assert seen == sorted(seen)
        assert (seen[0], seen[-1]) == (0, run.total_epochs)
        tables.append(stored.epochs)
    for table in tables[1:]:
        assert table[["epoch", "seed"]].equals(tables[0][["epoch", "seed"]])
        assert np.allclose(table["train_loss"], tables[0]["train_loss"], rtol=1e-5)
        assert np.allclose(table["test_error"], tables[0]["test_error"], atol=0.1)


@pytest.mark.parametrize("epoch", range(1, 12))
def test_a_run_of_several_passes_goes_on_where_it_stopped(
    tmp_path: Path, data: Dataset, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after any of the 3 x 4 epochs, pre-training included; the size is that of the beginning."""
    whole, broken = (select(tmp_path / name, PASSES) for name in ("whole", "broken"))
    run = picked(whole, "DTP")
    execute(run, data, whole.store, CPU, lambda done, result: None, replicas_per_pass=1)
    left = itertools.count(1)

    def stop(training: Training) -> EpochResult | None:
        result = run_epoch(training)
        if next(left) > epoch:
            raise KeyboardInterrupt
        return result

    run_epoch = Training.run_epoch
    monkeypatch.setattr(Training, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        execute(
            run,
            data,
            broken.store,
            CPU,
            lambda done, result: None,
            replicas_per_pass=1,
            checkpoint_seconds=0.0,
        )
    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    found = status(run, broken.store)
    assert (found.state, found.epochs_done) == (State.PARTIAL, epoch // 3)
    assert found.detail == f"{epoch // 3} of 4 epochs"
    checkpoint = broken.store.checkpoint(run.key)
    assert checkpoint is not None
    assert found.seconds_per_epoch == pytest.approx(3 * checkpoint["log"]["seconds"] / epoch)
    with pytest.raises(UserError, match=r"--replicas-per-pass: 2 found, but DTP on .* was begun with 1"):
        execute(run, data, broken.store, CPU, lambda done, result: None, replicas_per_pass=2)
    execute(run, data, broken.store, CPU, lambda done, result: None)
    stored, expected = broken.store.load(run.key), whole.store.load(run.key)
    assert stored is not None
    assert expected is not None
    assert stored.epochs.equals(expected.epochs)
    assert [sitting["replicas_per_pass"] for sitting in stored.record["sittings"]] == [1, 1]


def test_a_failing_method_is_named(tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = select(tmp_path)

    def wrong(*_: object) -> None:
        raise KeyError("momentum")

    monkeypatch.setattr(Training, "run_epoch", wrong)
    with pytest.raises(KeyError) as error:
        train(chosen, data)
    assert error.value.__notes__ == [f"while training BP (BP) on {picked(chosen).column}"]


def test_what_memory_holds_trains_at_once(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "replicas_per_pass", lambda *_: 2)
    chosen = select(tmp_path, PASSES)
    train(chosen, data)
    stored = chosen.store.load(picked(chosen).key)
    assert stored is not None
    assert stored.record["sittings"][0]["replicas_per_pass"] == 2
