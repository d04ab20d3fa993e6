"""A run's folder: its files, and what of them is damage."""

import getpass
import platform
import re
import socket
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset
from benchmark.engine.settings import Execution
from benchmark.store.record import EPOCH_COLUMNS, checksum_of, key_of, slug
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


def test_a_specification_that_lacks_something_is_damage(chosen: Selection, data: Dataset) -> None:
    """Though its key is that of what is left."""
    run = picked(chosen)
    folder = train(run, data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    del record["spec"]["precision"]
    record["key"] = key_of(record["spec"])
    renamed = folder.rename(folder.with_name(f"bp-{record['key']}"))
    (renamed / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{renamed / 'run.yaml'}: the specification is not complete; ")
    assert status(run, chosen.store).state is State.MISSING


@pytest.mark.parametrize(
    "dataset", ["mnist", None, *({"name": name} for name in (5, "../../elsewhere", "..", "", "**a"))]
)
def test_a_record_of_no_data_set_is_damage(chosen: Selection, data: Dataset, dataset: Any) -> None:
    folder = train(picked(chosen), data, chosen.store)
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
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record[name] = value
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: {expected}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *(({name: None}, f"{name}: None found; input should be ") for name in (*SITTING, "seeds")),
        *(({name: 5}, f"{name}: 5 found; input should be ") for name in ("execution", "seeds")),
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
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump({**record, "sittings": [SITTING]}))
    assert chosen.store.problems() == []
    (folder / "run.yaml").write_text(yaml.safe_dump({**record, "sittings": [SITTING, {**SITTING, **change}]}))
    (problem,) = chosen.store.problems()
    assert problem.startswith(f"{folder / 'run.yaml'}: sittings.1.{expected}")


@pytest.mark.parametrize("execution", Execution)
def test_every_execution_may_be_recorded(chosen: Selection, data: Dataset, execution: Execution) -> None:
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    record["sittings"][0]["execution"] = execution.value
    (folder / "run.yaml").write_text(yaml.safe_dump(record))
    assert chosen.store.problems() == []


REQUIRED = ("row", "label", "data", "finished", "training_seconds", "sittings")


@pytest.mark.parametrize("name", [*REQUIRED, *(f"sittings.0.{name}" for name in SITTING)])
def test_what_every_record_says_is_required(chosen: Selection, data: Dataset, name: str) -> None:
    folder = train(picked(chosen), data, chosen.store)
    record = yaml.safe_load((folder / "run.yaml").read_text())
    holder, key = (record["sittings"][0], name.split(".")[-1]) if "." in name else (record, name)
    del holder[key]
    (folder / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    (problem,) = chosen.store.problems()
    expected = "not the record of a run" if name == "data" else f"{name}: this key is required"
    assert problem.startswith(f"{folder / 'run.yaml'}: {expected}; ")


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


def test_csv_with_a_matching_checksum_still_needs_every_epoch(chosen: Selection, data: Dataset) -> None:
    folder = train(picked(chosen), data, chosen.store)
    csv = (folder / "epochs.csv").read_text()
    short = "".join(csv.splitlines(keepends=True)[:-1])
    text = (folder / "run.yaml").read_text()
    (folder / "epochs.csv").write_text(short)
    (folder / "run.yaml").write_text(text.replace(checksum_of(csv), checksum_of(short)))
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
    folder = train(picked(chosen), data, chosen.store)
    csv = (folder / "epochs.csv").read_text()
    forged = change(csv)
    assert forged != csv
    text = (folder / "run.yaml").read_text()
    (folder / "epochs.csv").write_text(forged)
    (folder / "run.yaml").write_text(text.replace(checksum_of(csv), checksum_of(forged)))
    (problem,) = chosen.store.problems()
    assert re.match(f"{re.escape(str(folder / 'epochs.csv'))}: {expected}", problem)


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
