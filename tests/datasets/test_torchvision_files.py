"""Files in torchvision's layout, and Debian's."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets as torchvision_datasets

from benchmark.common.errors import DataNotFound
from benchmark.datasets import load
from tests.datasets.files import (
    IDX,
    IDX_TEST,
    KNOWN,
    MNIST_LIKE,
    Change,
    Samples,
    assert_holds,
    digits,
    entry,
    garble,
    idx,
    refusal,
    write_idx,
)


@pytest.mark.parametrize(("name", "folder"), MNIST_LIKE)
def test_idx_files(name: str, folder: str, root: Path) -> None:
    train, test = digits(7), digits(3, seed=1)
    write_idx(root / folder / "raw", train, test)
    data = load(name, entry(name), data_root=root, download=False)
    assert_holds(data, train, test)
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(images.tobytes() + labels.astype(np.int64).tobytes())
    assert data.record == {
        "name": name,
        "source": "torchvision files",
        "train_samples": 7,
        "test_samples": 3,
        "checksum": digest.hexdigest(),
    }


def cifar_samples(count: int, classes: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, classes, count)


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Samples, Samples]:
    reader: Any = getattr(torchvision_datasets, str(KNOWN[name].torchvision))
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    classes, label_key = KNOWN[name].classes, "labels" if name == "cifar-10" else "fine_labels"

    def dump(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    splits = []
    for attribute, seed in (("train_list", 0), ("test_list", 100)):
        parts, sums = [], []
        for i, (file, _) in enumerate(getattr(reader, attribute)):
            images, labels = cifar_samples(4, classes, seed + i)
            batch = {"data": images.reshape(4, -1), label_key: labels.tolist()}
            if name == "cifar-100":
                batch["coarse_labels"] = [0] * 4
            sums.append([file, dump(file, batch)])
            parts.append((images, labels))
        monkeypatch.setattr(reader, attribute, sums)
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        splits.append((images, labels))
    md5 = dump(reader.meta["filename"], {reader.meta["key"]: [str(c) for c in range(classes)]})
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5})
    return splits[0], splits[1]


@pytest.mark.parametrize(("name", "count"), [("cifar-10", 20), ("cifar-100", 4)])
def test_cifar_batches(name: str, count: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = write_cifar(root, name, monkeypatch)
    data = load(name, entry(name), data_root=root, download=False)
    assert len(data.train) == count
    assert_holds(data, train, test)


def test_cifar_with_a_wrong_md5(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(root, "cifar-10", monkeypatch)
    with open(root / "cifar-10-batches-py" / "test_batch", "ab") as file:
        file.write(b"x")
    line = refusal("cifar-10", entry("cifar-10"), data_root=root)
    assert f"{root / 'cifar-10-batches-py'} (incomplete: expected data_batch_1" in line


@pytest.mark.parametrize("name", [*IDX, *IDX_TEST])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x03", b"hello, world"],
)
def test_damaged_idx_file(name: str, content: bytes, root: Path) -> None:
    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    garble(name, content)(raw)
    before = {file.name: file.read_bytes() for file in raw.iterdir()}
    line = refusal("mnist", entry("mnist"), data_root=root, download=True)
    assert "damaged" in line
    assert "download failed" not in line
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == before


def test_an_incomplete_folder_is_passed_over(tmp_path: Path, root: Path) -> None:
    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    (raw / IDX_TEST[1]).unlink()
    line = refusal("mnist", entry("mnist"), data_root=root)
    assert f"{root / 'MNIST'} (incomplete: expected {IDX[0]}" in line
    write_idx(Path("data/MNIST/raw"), digits(5), digits(2))
    assert len(load("mnist", entry("mnist"), data_root=root, download=False).train) == 5


@pytest.mark.parametrize(
    ("name", "folder"),
    [*MNIST_LIKE, ("cifar-10", "cifar-10-batches-py"), ("cifar-100", "cifar-100-python")],
)
@pytest.mark.parametrize("download", [True, False])
def test_not_found(
    name: str,
    folder: str,
    download: bool,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "env"))
    line = refusal(name, KNOWN[name], data_root=root, download=download)
    assert f"data set {name} not found" in line
    for place in (root, tmp_path / "env", Path("data")):
        assert str(place / folder) in line
    assert (str(tmp_path / "debian") in line) == (name == "fashion-mnist")
    assert "--data-root" in line
    assert ("no network in the tests" in line) == download
    assert ("not downloaded" in line) != download
    assert ("downloading" in capsys.readouterr().out) == download


def test_a_download_that_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits(5), digits(2)
    files = {f"{IDX[i]}.gz": train[i] for i in (0, 1)}
    files |= {f"{IDX_TEST[i]}.gz": test[i] for i in (0, 1)}

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        (Path(download_root) / Path(filename).stem).write_bytes(idx(files[filename]))

    monkeypatch.setattr(torchvision_datasets.mnist, "download_and_extract_archive", fetch)
    assert_holds(load("mnist", entry("mnist"), data_root=root), train, test)
    assert (root / "MNIST" / "raw" / IDX[0]).is_file()


def test_debian_package(tmp_path: Path, root: Path) -> None:
    train, test = digits(6), digits(4, seed=1)
    write_idx(tmp_path / "debian", train, test, packed=True)
    data = load("fashion-mnist", entry("fashion-mnist"), data_root=root, download=False)
    assert_holds(data, train, test)
    assert data.source == "Debian package dataset-fashion-mnist"
    write_idx(root / "FashionMNIST" / "raw", digits(3), test)
    data = load("fashion-mnist", entry("fashion-mnist"), data_root=root, download=False)
    assert (len(data.train), data.source) == (3, "torchvision files")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / f"{IDX[0]}.gz").unlink(),
        garble(f"{IDX[0]}.gz", b"not gzip"),
    ],
)
def test_damaged_debian_package(damage: Change, tmp_path: Path, root: Path) -> None:
    damage(write_idx(tmp_path / "debian", digits(6), digits(4), packed=True))
    line = refusal("fashion-mnist", entry("fashion-mnist"), data_root=root)
    assert re.search(rf"not found; looked at .*, {re.escape(str(tmp_path / 'debian'))} \(damaged: \S", line)


def test_a_damaged_copy_does_not_stop_the_search(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "env"))
    raw = write_idx(root / "FashionMNIST" / "raw", digits(5), digits(2))
    (raw / IDX[0]).write_bytes(b"")
    second = write_idx(tmp_path / "env" / "FashionMNIST" / "raw", digits(6), digits(2))
    fashion = entry("fashion-mnist")
    assert len(load("fashion-mnist", fashion, data_root=root, download=False).train) == 6
    (second / IDX[1]).write_bytes(b"x")
    packed = write_idx(tmp_path / "debian", digits(7), digits(2), packed=True)
    data = load("fashion-mnist", fashion, data_root=root, download=False)
    assert (len(data.train), data.source) == (7, "Debian package dataset-fashion-mnist")
    (packed / f"{IDX[0]}.gz").write_bytes(b"not gzip")
    with pytest.raises(DataNotFound) as error:
        load("fashion-mnist", fashion, data_root=root, download=False)
    places = [root / "FashionMNIST", tmp_path / "env" / "FashionMNIST", tmp_path / "debian"]
    for place in places:
        assert re.search(rf"{re.escape(str(place))} \(damaged: [^)]", str(error.value))
    assert f"{Path('data') / 'FashionMNIST'}, {places[2]} (damaged" in str(error.value)
    assert "\n" not in str(error.value)
