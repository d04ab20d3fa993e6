"""From a plan to runs: what makes a run another run, protocols and their names, passes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.common.files import RESULTS
from benchmark.engine.settings import Precision
from benchmark.methods import METHODS
from benchmark.sweep import run as run_module
from benchmark.sweep.plan import NOT_COMPARABLE
from benchmark.sweep.run import Run
from benchmark.sweep.selection import Selection
from tests.helpers.tiny import MINI, PLAN, picked, select


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
    monkeypatch.setattr(run_module, "SEMANTICS", run_module.SEMANTICS + 1)
    assert run.key != before


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", ["table2", "quick"])
def test_a_specification_says_all_of_a_run(name: str, precision: Precision) -> None:
    plan = Selection(name, RESULTS, precision=precision).plan
    for run in plan.runs(list(plan.config.rows), list(plan.config.columns)):
        assert Run.of(run.row, run.spec) == run.unmeasured


def test_protocol_of_a_command(tmp_path: Path) -> None:
    plan = select(tmp_path).plan
    assert plan.with_protocol([1, 2], 1) == plan
    assert plan.with_protocol(None, None, Precision.HIGHEST) == plan
    changed = plan.with_protocol([3, 4], 7, Precision.TF32)
    assert changed.name == "tiny-seeds-3-4-7-epochs"
    assert changed.changes == ("--seeds", "3,4", "--epochs", "7", "--precision", "tf32")
    run = changed.run("BP", MINI)
    assert run is not None
    assert (run.seeds, run.epochs, run.precision) == ([3, 4], 7, Precision.TF32)
    assert run.spec["precision"] == "tf32"
    names = {plan.with_protocol(list(range(n)), None).name for n in (50, 100, 9999)}
    assert len(names) == 3
    assert all(len(os.fsencode(name)) < 200 for name in names)


def test_passes_share_out_seeds_and_hyperparameters(tmp_path: Path) -> None:
    run = replace(
        picked(select(tmp_path)), seeds=[1, 1, 2], hyperparameters={"lr": [0.1, 0.2, 0.3], "x": 1.0}
    )
    parts = [(part.seeds, part.hyperparameters) for part in run.passes(2)]
    assert parts == [([1, 1], {"lr": [0.1, 0.2], "x": 1.0}), ([2], {"lr": [0.3], "x": 1.0})]
    assert run.epochs_done(2, 1, 1) == pytest.approx((2 * run.total_epochs + 1) / 3)


def test_what_is_said_of_a_plan() -> None:
    plan = Selection("table2", RESULTS).plan
    assert plan.heading == "Table 2: 100 epochs, seeds 1, 2, 3, 4, 5"
    assert plan.warning is None
    assert plan.run_command("BP", "mnist") == "python -m benchmark run table2 --method BP --dataset mnist"
    changed = plan.with_protocol([3, 1], 7)
    assert changed.protocol == "7 epochs, seeds 1, 3"
    assert changed.warning == "NOT THE PAPER'S PROTOCOL: --seeds 1,3 --epochs 7"
    assert changed.run_command("DTP (half size)", "mnist").endswith(
        "--method 'DTP (half size)' --dataset mnist --seeds 1,3 --epochs 7"
    )
    quick = Selection("quick", RESULTS).plan
    assert quick.warning == NOT_COMPARABLE
