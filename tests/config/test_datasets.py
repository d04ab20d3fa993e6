"""The list of data sets: what the shipped one says, and every bad entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig, load_datasets, merge

Write = Callable[..., Path]
LineOf = Callable[[pytest.ExceptionInfo[UserError]], str]

DATASETS = [
    *("mnist", "fashion-mnist", "cifar-10", "cifar-100"),
    "fashion-mnist-mini",
]
ENTRY: dict[str, Any] = {"title": "T", "kind": "image-folder", "image": [3, 8, 8], "classes": 2}


def test_datasets(datasets: dict[str, DatasetConfig]) -> None:
    assert list(datasets) == DATASETS
    inputs = [datasets[name].inputs for name in DATASETS]
    assert inputs == [784, 784, 3072, 3072, 784]
    assert [datasets[name].classes for name in DATASETS] == [10, 10, 10, 100, 10]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colour": 1}, "mine.colour: unknown key"),
        ({"title": None}, "mine.title: this key is required"),
        ({"kind": "folder"}, "mine.kind: 'folder' found"),
        ({"kind": "torchvision"}, "torchvision"),
        ({"kind": "torchvision", "torchvision": "SVHN"}, "mine.torchvision: 'SVHN' found"),
        ({"torchvision": "MNIST"}, "torchvision"),
        ({"kind": "shipped", "folder": "x"}, "image-folder"),
        ({"kind": "shipped", "archive": "x"}, "image-folder"),
        ({"image": [2, 8, 8]}, "2 channels found, 1 or 3 allowed"),
        ({"image": [8, 8]}, "mine.image: [8, 8] found"),
        ({"image": [1, 8, 8, 8]}, "mine.image: [1, 8, 8, 8] found"),
        ({"image": [3, 0, 8]}, "mine.image.1: 0 found"),
        ({"image": [3, 8.0, 8]}, "mine.image.1: 8.0 found"),
        ({"image": 8}, "mine.image: 8 found"),
        ({"classes": 1}, "mine.classes: 1 found"),
        ({"classes": "2"}, "mine.classes: '2' found"),
        ({"checksum": "abc"}, "mine.checksum: 'abc' found"),
        ({"checksum": "A" * 64}, "mine.checksum: 'AAA"),
        ({"checksum": "a" * 65}, "mine.checksum: 'aaa"),
        ({"checksum": "a" * 64 + "\n"}, "mine.checksum: 'aaa"),
    ],
)
def test_bad_dataset(change: dict[str, Any], expected: str, write: Write, line_of: LineOf) -> None:
    file = write({"mine": merge(ENTRY, change)}, "datasets.yaml")
    with pytest.raises(UserError) as error:
        load_datasets(file)
    line = line_of(error)
    assert line.startswith(f"{file}: mine")
    assert expected in line


@pytest.mark.parametrize("name", ["my flowers", "../../elsewhere", "-x", ".x", "a/b", "", "x" * 201])
def test_a_name_that_cannot_be_a_folder_s(name: str, write: Write, line_of: LineOf) -> None:
    """The store would not find again what it had trained on it."""
    file = write({name: ENTRY}, "datasets.yaml")
    with pytest.raises(UserError) as error:
        load_datasets(file)
    assert line_of(error).startswith(f"{file}: {name!r} found, allowed as a name: letters, digits")


@pytest.mark.parametrize("entry", [None, 3, "x", [1]])
def test_a_dataset_that_is_no_mapping(entry: Any, write: Write, line_of: LineOf) -> None:
    file = write({"mine": entry})
    with pytest.raises(UserError) as error:
        load_datasets(file)
    assert line_of(error).startswith(f"{file}: mine: {entry!r} found; ")


def test_a_good_dataset(write: Write) -> None:
    assert load_datasets(write({"mine": ENTRY}))["mine"].inputs == 192
