"""A run's folder: its files, and what of them is damage."""

import getpass
import platform
import re
import socket
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Execution
from benchmark.store.record import EPOCH_COLUMNS, key_of, slug
from benchmark.sweep import execute as executor
from benchmark.sweep.selection import Selection
from benchmark.sweep.status import State, status
from tests.helpers.stored import PLAN, contents, train
from tests.helpers.tiny import CPU, MINI, picked, select


@pytest.fixture
def chosen(tmp_path: Path) -> Selection:
    return select(tmp_path, PLAN)


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


def test_slugs_are_file_names() -> None:
    assert slug("DTP (half size)") == "dtp-half-size"
    assert slug("../../etc") == "etc"
    assert slug("±") == "run"


def test_key_ignores_order_and_refuses_nan() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        key_of({"a": float("nan")})


SITTING = {"started": "2026-01-02T03:04:05+00:00", "device": "x", "versions": {"torch": "2", "commit": "0"}}


@pytest.mark.parametrize("execution", Execution)
def test_every_execution_may_be_recorded(chosen: Selection, data: Dataset, execution: Execution) -> None:
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record["sittings"][0]["execution"] = execution.value
    (folder / "run.yaml").write_text(yaml.safe_dump(record))
    assert chosen.store.problems() == []


REQUIRED = ("row", "spec.precision", "label", "data", "finished", "training_seconds", "sittings")


@pytest.mark.parametrize("name", [*REQUIRED, *(f"sittings.0.{name}" for name in SITTING)])
def test_what_every_record_says_is_required(chosen: Selection, data: Dataset, name: str) -> None:
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    *above, key = name.split(".")
    holder = record
    for step in above:
        holder = holder[int(step)] if step.isdigit() else holder[step]
    del holder[key]
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: {name}: this key is required; ")


def test_damage_is_refused_in_one_line(chosen: Selection, data: Dataset) -> None:
    run = picked(chosen)
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


@pytest.mark.parametrize(
    ("loss", "error"), [(float("nan"), 90.0), (float("inf"), 90.5), (1, 2), (0.5, 0), (0.5, 100)]
)
def test_every_number_of_a_run_is_kept(chosen: Selection, data: Dataset, loss: float, error: float) -> None:
    """Of a seed that diverged, and of one whose numbers happen to be whole."""
    run = picked(chosen)
    trained = executor.train(run, data, chosen.store, CPU, lambda done, result: None)
    trained.epochs["train_loss"], trained.epochs["test_error"] = loss, error
    chosen.store.commit("BP", trained.record, trained.epochs, trained.measured)
    assert chosen.store.problems() == []
