"""Where data sets are looked for, and what is refused of any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.datasets import load, loading, search_path
from benchmark.datasets.pixels import Pixels
from tests.datasets.files import (
    KNOWN,
    Samples,
    digits,
    entry,
    folder_entry,
    normalised,
    refusal,
    write_idx,
    write_images,
)


def test_black_and_white() -> None:
    ends = normalised(np.array([[0, 255]], np.uint8))[0].tolist()
    assert ends == pytest.approx([-0.4242, 2.8215], abs=1e-4)


@pytest.mark.parametrize(
    ("train", "test", "change", "expected"),
    [
        (digits(7), digits(3), {"image": [1, 28, 27]}, ["784 values", "756", "[1, 28, 27]"]),
        (digits(7), digits(3), {"image": [3, 28, 28]}, ["784 values", "2352"]),
        (
            (digits(2)[0], np.array([0, 10], np.uint8)),
            digits(3),
            {},
            ["training label 10 found", "classes: 10"],
        ),
        (
            digits(3),
            (digits(2)[0], np.array([255, 0], np.uint8)),
            {},
            ["test label 255 found", "classes: 10"],
        ),
        ((digits(3)[0], digits(2)[1]), digits(3), {}, ["3 training images for 2 labels"]),
        (digits(3), (digits(3)[0], digits(4)[1]), {}, ["3 test images for 4 labels"]),
        (digits(0), digits(3), {}, []),
    ],
)
def test_not_as_declared(
    train: Samples, test: Samples, change: dict[str, Any], expected: list[str], root: Path
) -> None:
    write_idx(root / "MNIST" / "raw", train, test)
    line = refusal("mnist", entry("mnist", **change), data_root=root)
    for part in expected:
        assert part in line


def test_a_negative_label_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = Pixels(
        source="x",
        place=Path("y"),
        train_x=np.zeros((2, 784), np.uint8),
        train_y=np.array([-3, 9]),
        test_x=np.zeros((1, 784), np.uint8),
        test_y=np.array([0]),
    )
    monkeypatch.setitem(loading.READERS, "torchvision", lambda *args: pixels)
    assert "training label -3 found" in refusal("mnist", entry("mnist"), data_root=root)


def test_checksum(root: Path) -> None:
    write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    line = refusal("mnist", KNOWN["mnist"], data_root=root)
    assert f"{str(KNOWN['mnist'].checksum)[:12]}... declared" in line
    assert f"torchvision files in {root / 'MNIST'}" in line
    checksum = load("mnist", entry("mnist"), data_root=root).checksum
    assert checksum[:12] in line
    load("mnist", entry("mnist", checksum=checksum), data_root=root)


def test_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert search_path() == [Path("data")]
    monkeypatch.setenv("BENCHMARK_DATA", "")
    assert search_path() == [Path("data")]
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path))
    assert search_path() == [tmp_path, Path("data")]
    assert search_path(Path("/given")) == [Path("/given"), tmp_path, Path("data")]
    assert search_path(tmp_path) == [tmp_path, Path("data")]
    assert search_path(Path("./data")) == [Path("data"), tmp_path]
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "mistyped"))
    with pytest.raises(UserError, match=r"^\$BENCHMARK_DATA: .*mistyped is not a folder$"):
        search_path()
    assert search_path(tmp_path)[0] == tmp_path  # the variable is not needed
    mini = "fashion-mnist-mini"
    assert len(load(mini, entry(mini)).test) == 1000  # nor where the package ships the data


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "env"))
    given, found = tmp_path / "given", []
    for count, place in ((4, Path("data")), (5, tmp_path / "env"), (6, given)):
        write_idx(place / "MNIST" / "raw", digits(count), digits(2))
        found.append(len(load("mnist", entry("mnist"), data_root=given, download=False).train))
    assert found == [4, 5, 6]


def test_search_order_of_image_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "env"))
    given, found = tmp_path / "given", []
    for count, place in ((4, Path("data")), (5, tmp_path / "env"), (6, given)):
        write_images(place / "mine", per_class=count)
        found.append(len(load("mine", folder_entry(), data_root=given).train))
    assert found == [8, 10, 12]


def test_a_data_root_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for download in (True, False):
        assert str(file) in refusal("mnist", KNOWN["mnist"], data_root=file, download=download)
    assert str(file) in refusal("mine", folder_entry(), data_root=file)


def test_device() -> None:
    data = load("fashion-mnist-mini", KNOWN["fashion-mnist-mini"], device=torch.device("cpu"))
    assert data.train.x.device.type == data.test.y.device.type == "cpu"
