"""From a plan to runs: what makes a run another run, states, protocols, diverging seeds."""

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import executor, memory, sweep
from benchmark.datasets import Dataset
from benchmark.errors import UserError
from benchmark.executor import execute
from benchmark.methods import METHODS
from benchmark.options import Selection
from benchmark.precision import Precision
from benchmark.sweep import Run, State, status
from benchmark.training import EpochResult, Training

MINI = "fashion-mnist-mini"
RATES = "lr: 0.5, stepsize: 0.07, lr_feedback: 0.0015, noise_std: 0.02"
PLAN = f"""
title: Tiny
comparable: false
protocol: {{epochs: 1, batch_size: 512, seeds: [1, 2], source: guess}}
networks:
  1x8: {{hidden_layers: 1, width: 8, source: guess}}
columns:
  {MINI}: {{network: 1x8}}
rows:
  BP:
    method: BP
    hyperparameters: {{{MINI}: {{lr: 0.1, source: guess}}}}
  DTP:
    method: DTP
    options: {{feedback_updates: 2}}
    hyperparameters: {{{MINI}: {{{RATES}, source: guess}}}}
"""
CPU = torch.device("cpu")


def select(folder: Path, text: str = PLAN, name: str = "tiny", **options: Any) -> Selection:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    given = {"dataset": None, "method": None, "seeds": None, "epochs": None, **options}
    return Selection(str(file), **given, results=folder / "results")


def picked(chosen: Selection, row: str = "BP") -> Run:
    run = chosen.plan.run(row, MINI)
    assert run is not None
    return run


def train(chosen: Selection, data: Dataset, row: str = "BP") -> None:
    execute(picked(chosen, row), data, chosen.store, CPU, lambda done, result: None)


def states(chosen: Selection) -> dict[str, State]:
    return {found.run.row: found.state for found in chosen.statuses()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lr: 0.5", "lr: 0.25"),
        ("stepsize: 0.07", "stepsize: 0.08"),
        ("lr_feedback: 0.0015", "lr_feedback: 0.002"),
        ("noise_std: 0.02", "noise_std: 0.03"),
        ("feedback_updates: 2", "feedback_updates: 3"),
        ("feedback_updates: 2", "feedback_updates: 2, batch_norm: true"),
        ("feedback_updates: 2", "feedback_updates: 2, decoder_init: 0.02"),
        ("width: 8", "width: 9"),
        ("hidden_layers: 1", "hidden_layers: 2"),
        ("epochs: 1", "epochs: 2"),
        ("batch_size: 512", "batch_size: 256"),
        ("seeds: [1, 2]", "seeds: [1, 3]"),
        ("seeds: [1, 2]", "seeds: [1]"),
        ("method: DTP", "method: DTP\n    size: half"),
        ("method: DTP", "method: TP"),
    ],
)
def test_another_specification_is_another_run(tmp_path: Path, old: str, new: str) -> None:
    assert PLAN.count(old) == 1
    before = picked(select(tmp_path / "a"), "DTP")
    after = picked(select(tmp_path / "b", PLAN.replace(old, new)), "DTP")
    assert before.key != after.key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  DTP:", "  Another label:"),
        ("title: Tiny", "title: Another"),
        ("source: guess", "source: search"),
        ("lr: 0.5", "lr: 5.0e-1"),
        ("feedback_updates: 2", "feedback_updates: 2, batch_norm: false"),
        ("1x8", "net"),
        ("seeds: [1, 2]", "seeds: [2, 1]"),
    ],
)
def test_names_and_paths_do_not_make_another_run(tmp_path: Path, old: str, new: str) -> None:
    after = select(tmp_path / "b", PLAN.replace(old, new), "named")
    keys = [picked(select(tmp_path / "a"), "DTP").key, after.plan.runs(after.rows, after.columns)[1].key]
    assert keys[0] == keys[1]


def test_semantics_and_data_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = picked(select(tmp_path))
    assert replace(run, checksum="0" * 64).key != run.key
    assert replace(run, column="mnist").key != run.key
    assert replace(run, image=[1, 784, 1]).key != run.key
    assert run.spec["dataset"]["image"] == [1, 28, 28]
    assert run.spec["version"] == METHODS["BP"].version == 1
    before = run.key
    with monkeypatch.context() as patch:
        patch.setattr(METHODS["BP"], "version", 2)
        assert run.key != before
    assert run.key == before
    monkeypatch.setattr(sweep, "SEMANTICS", sweep.SEMANTICS + 1)
    assert run.key != before


def test_states(tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = select(tmp_path)
    assert states(chosen) == {"BP": State.MISSING, "DTP": State.MISSING}
    train(chosen, data)
    assert states(chosen) == {"BP": State.STORED, "DTP": State.MISSING}
    changed = select(tmp_path, PLAN.replace("lr: 0.1", "lr: 0.2"))
    (found, _) = changed.statuses()
    assert found.state is State.STALE
    assert found.detail == "stored with hyperparameters.lr 0.1 instead of 0.2"
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)

    def stop(done: int, result: object) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(picked(chosen, "DTP"), data, chosen.store, CPU, stop)
    found = status(picked(chosen, "DTP"), chosen.store)
    assert found.state is State.PARTIAL
    assert found.detail == "1 of 3 epochs"
    assert found.seconds_per_epoch is not None
    assert found.seconds_per_epoch > 0


def test_stale_names_every_difference(tmp_path: Path, data: Dataset) -> None:
    train(select(tmp_path), data)
    changed = PLAN.replace("lr: 0.1", "lr: 0.2").replace("batch_size: 512", "batch_size: 256")
    (found, _) = select(tmp_path, changed.replace("width: 8", "width: 9")).statuses()
    assert found.state is State.STALE
    assert found.detail == (
        "stored with batch_size 512 instead of 256, dims [784, 8, 10] instead of [784, 9, 10], "
        "hyperparameters.lr 0.1 instead of 0.2"
    )


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


def test_protocol_of_a_command(tmp_path: Path) -> None:
    plan = select(tmp_path).plan
    assert plan.with_protocol([1, 2], 1) == plan
    assert plan.with_protocol(None, None, Precision.HIGHEST) == plan
    changed = plan.with_protocol([3, 4], 7, Precision.TF32)
    assert changed.name == "tiny-seeds-3-4-7-epochs-tf32"
    assert changed.changes == ("--seeds", "3,4", "--epochs", "7", "--precision", "tf32")
    run = changed.run("BP", MINI)
    assert run is not None
    assert (run.seeds, run.epochs, run.precision) == ([3, 4], 7, Precision.TF32)
    assert run.spec["precision"] == "tf32"
    names = {plan.with_protocol(list(range(n)), None).name for n in (50, 100, 9999)}
    assert len(names) == 3
    assert all(len(os.fsencode(name)) < 200 for name in names)


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
    monkeypatch.setattr(executor, "CHECKPOINT_SECONDS", 0.0)
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
        execute(run, data, broken.store, CPU, lambda done, result: None, replicas_per_pass=1)
    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    found = status(run, broken.store)
    assert (found.state, found.epochs_done) == (State.PARTIAL, epoch // 3)
    assert found.detail == f"{epoch // 3} of 4 epochs"
    checkpoint = broken.store.checkpoint(run.key)
    assert checkpoint is not None
    assert found.seconds_per_epoch == pytest.approx(3 * checkpoint["log"]["seconds"] / epoch)
    with pytest.raises(UserError, match=r"--replicas-per-pass: 2 found, but run .* was begun with 1"):
        execute(run, data, broken.store, CPU, lambda done, result: None, replicas_per_pass=2)
    execute(run, data, broken.store, CPU, lambda done, result: None)
    stored, expected = broken.store.load(run.key), whole.store.load(run.key)
    assert stored is not None
    assert expected is not None
    assert stored.epochs.equals(expected.epochs)
    assert [sitting["replicas_per_pass"] for sitting in stored.record["sittings"]] == [1, 1]


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path, data: Dataset) -> None:
    chosen = select(tmp_path)
    run = picked(chosen)
    chosen.store.save_checkpoint(run.key, {"training": {"completed": 0}})
    (found, _) = chosen.statuses()
    assert found.state is State.DAMAGED
    assert re.search(rf"partial.{run.key}: begun by an earlier version; delete it", found.detail)
    with pytest.raises(UserError, match="begun by an earlier version"):
        train(chosen, data)


def test_passes_share_out_seeds_and_hyperparameters(tmp_path: Path) -> None:
    run = replace(
        picked(select(tmp_path)), seeds=[1, 1, 2], hyperparameters={"lr": [0.1, 0.2, 0.3], "x": 1.0}
    )
    parts = [(part.seeds, part.hyperparameters) for part in run.passes(2)]
    assert parts == [([1, 1], {"lr": [0.1, 0.2], "x": 1.0}), ([2], {"lr": [0.3], "x": 1.0})]
    assert run.epochs_done(2, 1, 1) == pytest.approx((2 * run.total_epochs + 1) / 3)


def test_what_memory_holds_trains_at_once(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "replicas_per_pass", lambda *_: 2)
    chosen = select(tmp_path, PASSES)
    train(chosen, data)
    stored = chosen.store.load(picked(chosen).key)
    assert stored is not None
    assert stored.record["sittings"][0]["replicas_per_pass"] == 2


def test_a_changed_protocol_has_a_name_that_no_plan_may_have(tmp_path: Path) -> None:
    plan = Selection("quick", None, None, None, None, tmp_path).plan
    for seeds, epochs, precision in (
        ([7], None, None),
        (list(range(40)), None, None),
        (None, 9, None),
        ([1, 2], 9, Precision.TF32),
        (None, None, Precision.TF32),
    ):
        changed = plan.with_protocol(seeds, epochs, precision).name
        assert changed.startswith("quick-")
        assert sweep.CHANGED.search(changed)
    assert not any(
        sweep.CHANGED.search(name) for name in ("table2", "quick", "mine", "seeds", "epochs-20", "tf32-mine")
    )
