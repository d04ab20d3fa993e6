"""What the store has of a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset
from benchmark.sweep.execute import execute
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status
from tests.helpers.tiny import CPU, MINI, PLAN, picked, select, states, train


def stop_after_an_epoch(chosen: Selection, data: Dataset) -> None:
    def stop(done: int, result: object) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(picked(chosen, "DTP"), data, chosen.store, CPU, stop, checkpoint_seconds=0.0)


def test_states(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path)
    assert states(chosen) == {"BP": State.MISSING, "DTP": State.MISSING}
    train(chosen, data)
    assert states(chosen) == {"BP": State.STORED, "DTP": State.MISSING}
    changed = select(tmp_path, PLAN.replace("lr: 0.1", "lr: 0.2"))
    (found, _) = changed.statuses()
    assert found.state is State.STALE
    assert found.detail == "stored with hyperparameters.lr 0.1 instead of 0.2"
    stop_after_an_epoch(chosen, data)
    found = status(picked(chosen, "DTP"), chosen.store)
    assert found.state is State.PARTIAL
    assert found.detail == "1 of 3 epochs"
    assert found.seconds_per_epoch is not None
    assert found.seconds_per_epoch > 0


def test_stale_names_every_difference(tmp_path: Path, data: Dataset) -> None:
    train(select(tmp_path), data)
    changed = PLAN.replace("lr: 0.1", "lr: 0.2").replace("batch_size: 512", "batch_size: 256")
    (found, _) = select(tmp_path, changed).statuses()
    assert found.state is State.STALE
    assert found.detail == "stored with batch_size 512 instead of 256, hyperparameters.lr 0.1 instead of 0.2"


def test_another_network_is_not_stale(tmp_path: Path, data: Dataset) -> None:
    train(select(tmp_path), data)
    (found, _) = select(tmp_path, PLAN.replace("width: 8", "width: 9")).statuses()
    assert found.state is State.MISSING


@pytest.mark.parametrize("options", [{"seeds": "1-3"}, {"epochs": 4}, {"seeds": "1-3", "epochs": 4}])
def test_another_protocol_is_not_stale(tmp_path: Path, data: Dataset, options: dict[str, Any]) -> None:
    train(select(tmp_path), data)
    (found, _) = select(tmp_path, **options).statuses()
    nothing, two_seeds = (State.MISSING, ""), (State.PARTIAL, "2 of 3 seeds stored")
    assert (found.state, found.detail) == (nothing if "epochs" in options else two_seeds)
    (found, _) = select(tmp_path, PLAN.replace("lr: 0.1", "lr: 0.2"), **options).statuses()
    assert (found.state, found.detail) == nothing


def test_seeds_in_another_order_are_the_same_run(tmp_path: Path, data: Dataset) -> None:
    train(select(tmp_path), data)
    turned = select(tmp_path, seeds="2,1")
    assert turned.plan.changes == ()
    assert picked(turned).spec["seeds"] == [1, 2]
    assert states(turned) == {"BP": State.STORED, "DTP": State.MISSING}


def test_damage_of_another_run_is_not_this_ones(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path)
    train(chosen, data)
    folder = chosen.store.folder(picked(chosen).key)
    assert folder is not None
    (folder / "epochs.csv").write_text("")
    assert states(chosen) == {"BP": State.DAMAGED, "DTP": State.MISSING}
    assert states(select(tmp_path, epochs=2)) == {"BP": State.MISSING, "DTP": State.MISSING}


def test_rows_alike_share_a_run(tmp_path: Path, data: Dataset) -> None:
    twin = (
        PLAN + f"  BP again:\n    method: BP\n    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}\n"
    )
    chosen = select(tmp_path, twin)
    train(chosen, data)
    assert states(chosen) == {"BP": State.STORED, "DTP": State.MISSING, "BP again": State.STORED}
    train(chosen, data, "BP again")
    assert len(chosen.store.folders()) == 1


def test_another_column_of_that_row_is_not_stale(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path)
    train(chosen, data)
    other = replace(picked(chosen), column="mnist")
    assert status(other, chosen.store).state is State.MISSING


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path)
    run = picked(chosen)
    chosen.store.save_checkpoint(run.key, {"training": {"completed": 0}})
    (found, _) = chosen.statuses()
    assert found.state is State.DAMAGED
    assert re.search(rf"partial.{run.key}: begun by an earlier version; delete it", found.detail)
    with pytest.raises(UserError, match="begun by an earlier version"):
        train(chosen, data)
