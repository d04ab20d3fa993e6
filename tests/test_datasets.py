"""Data sets: every format on disk, where they are looked for, and what is refused."""

from __future__ import annotations

import collections
import gzip
import hashlib
import io
import pickle
import re
import struct
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets

from benchmark import datasets
from benchmark.config import DatasetConfig, load_datasets
from benchmark.datasets import load, search_path
from benchmark.errors import DataNotFound, UserError
from benchmark.samples import Dataset

KNOWN = load_datasets()
Change = Callable[[Path], object]


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache, data, environment or network of the machine."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no network\nin the tests")

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DATA", raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    for module in (torchvision_datasets.mnist, torchvision_datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def entry(name: str, **change: Any) -> DatasetConfig:
    """The declared data set without its checksum, which small files cannot have."""
    return KNOWN[name].model_copy(update={"checksum": None, **change})


def refusal(name: str, config: DatasetConfig, **kwargs: Any) -> str:
    with pytest.raises(UserError) as error:
        load(name, config, **{"download": False, **kwargs})
    line = str(error.value)
    assert len(line.splitlines()) == 1
    assert f"data set {name}" in line
    assert not line.rstrip().endswith(":")
    return line


def normalised(pixels: np.ndarray) -> torch.Tensor:
    values = (pixels.reshape(len(pixels), -1).astype(np.float64) / 255 - 0.1307) / 0.3081
    return torch.from_numpy(values.astype(np.float32))


def assert_holds(data: Dataset, train: tuple[Any, Any], test: tuple[Any, Any]) -> None:
    """Pixels given channels first, labels as a list."""
    for split, (pixels, labels) in ((data.train, train), (data.test, test)):
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
        assert split.x.is_contiguous()
        assert split.y.tolist() == list(labels)
        torch.testing.assert_close(split.x, normalised(pixels), rtol=1e-5, atol=1e-6)
        assert len(split) == len(labels)


# ---- torchvision's formats

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
Samples = tuple[np.ndarray, np.ndarray]


def digits(count: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_idx(raw: Path, train: Samples, test: Samples, *, packed: bool = False) -> Path:
    raw.mkdir(parents=True)
    for names, arrays in ((IDX, train), (IDX_TEST, test)):
        for name, array in zip(names, arrays, strict=True):
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (raw / name).write_bytes(idx(array))
    return raw


MNIST_LIKE = [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]


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


def test_black_and_white() -> None:
    ends = normalised(np.array([[0, 255]], np.uint8))[0].tolist()
    assert ends == pytest.approx([-0.4242, 2.8215], abs=1e-4)


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
    known = "there, but damaged: not the files that torchvision knows"
    assert f"{root / 'cifar-10-batches-py'} ({known})" in line
    for file in ("test_batch", "data_batch_2"):
        (root / "cifar-10-batches-py" / file).unlink()
    line = refusal("cifar-10", entry("cifar-10"), data_root=root)
    assert f"{root / 'cifar-10-batches-py'} (there, but without data_batch_2, test_batch)" in line


def garble(file: str, content: bytes) -> Change:
    return lambda raw: (raw / file).write_bytes(content)


@pytest.mark.parametrize("name", [*IDX, *IDX_TEST])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0", b"\0\0\x08\x03", b"\0\0\x08\x01\0\0\0\x05\0", b"\x1f\x8b garbage"),
        *(b"\0\0\x0a\x01\0\0\0\x01\0", b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", b"hello, world"),
        *(b"\0\0\x08\x03" + b"\xff" * 64, b"\0\0\x08\x02" + b"\0\0\0\x01" * 3),
    ],
)
def test_damaged_idx_file(name: str, content: bytes, root: Path) -> None:
    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    garble(name, content)(raw)
    before = {file.name: file.read_bytes() for file in raw.iterdir()}
    line = refusal("mnist", entry("mnist"), data_root=root, download=True)
    assert "damaged" in line
    assert "download failed" not in line
    kind = "labels" if "idx1" in name else "images"
    assert f"damaged: {name}: no IDX file of {kind}" in line, line
    assert {file.name: file.read_bytes() for file in raw.iterdir()} == before


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_misplaced_or_packed_file_is_named(root: Path, packed: str) -> None:
    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    (raw / IDX[1]).rename(root / "MNIST" / f"{IDX[1]}{packed}")
    line = refusal("mnist", entry("mnist"), data_root=root)
    assert f"(there, but {IDX[1]}{packed} belongs in {raw / IDX[1]})" in line


def test_an_unreadable_file_is_not_called_damaged_in_its_format(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import mnist

    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    garble(IDX[0], b"")(raw)

    def read(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(mnist, "read_image_file", read)
    line = refusal("mnist", entry("mnist"), data_root=root)
    assert f"(damaged: {IDX_TEST[0]}: Permission denied)" in line


def test_a_file_in_the_place_of_a_folder(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "MNIST").write_text("")
    assert f"{root / 'MNIST'} (a file, not a folder)" in refusal("mnist", entry("mnist"), data_root=root)


def test_an_incomplete_folder_is_passed_over(tmp_path: Path, root: Path) -> None:
    raw = write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    (raw / IDX_TEST[1]).unlink()
    line = refusal("mnist", entry("mnist"), data_root=root)
    assert f"{root / 'MNIST'} (there, but without {IDX_TEST[1]})" in line
    write_idx(Path("data/MNIST/raw"), digits(5), digits(2))
    assert len(load("mnist", entry("mnist"), data_root=root, download=False).train) == 5


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
    pixels = datasets._Pixels(
        source="x",
        place=Path("y"),
        train_x=np.zeros((2, 784), np.uint8),
        train_y=np.array([-3, 9]),
        test_x=np.zeros((1, 784), np.uint8),
        test_y=np.array([0]),
    )
    monkeypatch.setitem(datasets._READERS, "torchvision", lambda *args: pixels)
    assert "training label -3 found" in refusal("mnist", entry("mnist"), data_root=root)


def test_checksum(root: Path) -> None:
    write_idx(root / "MNIST" / "raw", digits(7), digits(3))
    line = refusal("mnist", KNOWN["mnist"], data_root=root)
    assert f"{str(KNOWN['mnist'].checksum)[:12]}... declared" in line
    assert f"torchvision files in {root / 'MNIST'}" in line
    checksum = load("mnist", entry("mnist"), data_root=root).checksum
    assert checksum[:12] in line
    load("mnist", entry("mnist", checksum=checksum), data_root=root)


# ---- where data are looked for


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


@pytest.mark.parametrize(
    "error", [OSError(), TimeoutError(), ValueError("bad\nanswer"), EOFError(), KeyError("x")]
)
def test_a_download_that_fails_without_a_word(
    error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision_datasets.mnist, "download_and_extract_archive", fail)
    assert "download failed (" in refusal("mnist", KNOWN["mnist"], data_root=root, download=True)
    assert not (root / "MNIST").exists()


def test_a_download_that_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits(5), digits(2)
    files = {f"{IDX[i]}.gz": train[i] for i in (0, 1)}
    files |= {f"{IDX_TEST[i]}.gz": test[i] for i in (0, 1)}

    def fetch(url: str, download_root: str, filename: str, md5: str) -> None:
        (Path(download_root) / Path(filename).stem).write_bytes(idx(files[filename]))

    monkeypatch.setattr(torchvision_datasets.mnist, "download_and_extract_archive", fetch)
    assert_holds(load("mnist", entry("mnist"), data_root=root), train, test)
    assert (root / "MNIST" / "raw" / IDX[0]).is_file()


def test_a_data_root_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for download in (True, False):
        assert str(file) in refusal("mnist", KNOWN["mnist"], data_root=file, download=download)
    assert str(file) in refusal("mine", folder_entry(), data_root=file)


# ---- Debian's package


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
        garble(f"{IDX[0]}.gz", gzip.compress(b"x" * 1000)[:-12]),
        garble(f"{IDX[0]}.gz", gzip.compress(b"")),
        garble(f"{IDX[0]}.gz", gzip.compress(bytes(range(256)))[:12] + b"\xff" * 300),
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


# ---- image folders


def folder_entry(**change: Any) -> DatasetConfig:
    values: dict[str, Any] = {"title": "Mine", "kind": "image-folder", "folder": "mine"}
    values |= {"image": [3, 4, 6], "classes": 2, "archive": "mine.tar.gz"}
    return DatasetConfig(**{**values, **change})


def write_images(
    folder: Path, *, per_class: int = 20, mode: str = "RGB", suffix: str = "png", size: Any = (4, 6)
) -> dict[tuple[str, int], list[np.ndarray]]:
    """Random images of classes a and b; what was written, by split and class."""
    rng = np.random.default_rng(0)
    written: dict[tuple[str, int], list[np.ndarray]] = {}
    for part, count in (("train", per_class), ("test", 3)):
        for label, name in enumerate("ab"):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                shape = (*size, 3) if mode == "RGB" else size
                pixels = rng.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.{suffix}")
                written.setdefault((part, label), []).append(pixels)
    return written


def rows_of(images: list[np.ndarray]) -> set[bytes]:
    return {np.ascontiguousarray(image).tobytes() for image in images}


def bytes_of(x: torch.Tensor) -> list[bytes]:
    pixels = ((x.double() * 0.3081 + 0.1307) * 255).round().to(torch.uint8).numpy()
    return [row.tobytes() for row in pixels]


def same(one: Dataset, other: Dataset) -> bool:
    return one.checksum == other.checksum and all(
        torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
        for a, b in ((one.train, other.train), (one.test, other.test))
    )


@pytest.mark.parametrize("suffix", ["png", "PNG"])
def test_image_folder(suffix: str, root: Path) -> None:
    written = write_images(root / "mine", suffix=suffix)
    (root / "mine" / "train" / "a" / "notes.txt").write_text("not an image")
    (root / "mine" / "README").write_text("nor this")
    (root / "mine" / "train" / "stray.png").write_bytes(b"nor this")
    data = load("mine", folder_entry(), data_root=root)
    assert data.source == "image folder"
    for part, split in (("train", data.train), ("test", data.test)):
        for label in (0, 1):
            expected = rows_of([image.transpose(2, 0, 1) for image in written[part, label]])
            assert set(bytes_of(split.x[split.y == label])) == expected
        assert len(split) == 2 * len(written[part, 0])
    values = normalised(written["train", 0][0].transpose(2, 0, 1)[None])[0]
    assert (data.train.x - values).abs().max(dim=1).values.min() < 1e-5


def test_the_order_is_fixed_and_not_by_class(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    labels = first.train.y.tolist()
    assert labels != sorted(labels)
    assert sum(a != b for a, b in pairwise(labels)) > 5
    assert sum(labels) == 20
    assert same(first, load("mine", folder_entry(), data_root=root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    assert same(first, load("mine", folder_entry(), data_root=root))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour(suffix: str, mode: str, channels: int, root: Path) -> None:
    write_images(root / "mine", per_class=2, mode=mode, suffix=suffix)
    data = load("mine", folder_entry(image=[channels, 4, 6]), data_root=root)
    for split in (data.train, data.test):
        part = "train" if split is data.train else "test"
        for label, name in enumerate("ab"):
            expected = []
            for file in (root / "mine" / part / name).iterdir():
                array = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB"))
                expected.append(array if channels == 1 else array.transpose(2, 0, 1))
            assert set(bytes_of(split.x[split.y == label])) == rows_of(expected)


def test_the_kinds_of_files_and_the_folders_of_torchvision(tmp_path: Path, root: Path) -> None:
    """Links, folders below a class's, every kind that its ImageFolder takes."""
    write_images(tmp_path / "elsewhere", per_class=4)
    (root / "mine").mkdir()
    (root / "mine" / "train").symlink_to(tmp_path / "elsewhere" / "train")
    (root / "mine" / "test").mkdir()
    for name in "ab":
        (root / "mine" / "test" / name).symlink_to(tmp_path / "elsewhere" / "test" / name)
    below = tmp_path / "elsewhere" / "train" / "a" / "more"
    below.mkdir()
    Image.new("RGB", (6, 4)).save(below / "x.webp", lossless=True)
    data = load("mine", folder_entry(), data_root=root)
    assert (len(data.train), len(data.test)) == (9, 6)
    (root / "mine" / "test" / "a" / ".#0.png").symlink_to(tmp_path / "nowhere")
    (root / "mine" / "back").symlink_to(root / "mine")
    (tmp_path / "elsewhere" / "train" / "b" / "up").symlink_to(root / "mine" / "train")
    assert load("mine", folder_entry(), data_root=root).checksum == data.checksum
    (tmp_path / "elsewhere" / "train" / "b" / "up").unlink()
    ours = torchvision_datasets.ImageFolder(str(root / "mine" / "train"))
    assert collections.Counter(ours.targets) == collections.Counter(data.train.y.tolist())


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(mode: str, root: Path) -> None:
    """Pillow would clip them: an image of two values."""
    write_images(root / "mine", per_class=2)
    suffix = "png" if mode == "I;16" else "tiff"
    Image.new(mode, (6, 4)).save(root / f"mine/train/a/x.{suffix}")
    assert f"x.{suffix} is not a readable image: its pixels have more than 8 bits" in refusal(
        "mine", folder_entry(), data_root=root
    )


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_are_converted(mode: str, root: Path) -> None:
    write_images(root / "mine", per_class=2)
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (6, 4), "white").convert(mode).save(root / f"mine/train/a/x.{suffix}")
    data = load("mine", folder_entry(), data_root=root)
    assert bytes([255]) * 72 in bytes_of(data.train.x)


def test_resizing(root: Path) -> None:
    write_images(root / "mine", per_class=2, size=(9, 5))
    for name, colour in (("a", (255, 0, 10)), ("b", (0, 200, 10))):
        for part in ("train", "test"):
            for file in (root / "mine" / part / name).iterdir():
                Image.new("RGB", (17, 3), colour).save(file)
    data = load("mine", folder_entry(), data_root=root)
    assert data.train.x.shape == (4, 72)
    expected = {0: (255, 0, 10), 1: (0, 200, 10)}
    for row, label in zip(bytes_of(data.train.x), data.train.y.tolist(), strict=True):
        assert row == b"".join(bytes([value]) * 24 for value in expected[label])


def test_resizing_keeps_height_and_width_apart(root: Path) -> None:
    write_images(root / "mine", per_class=1, mode="L")
    ramp = np.repeat(np.linspace(0, 255, 12, dtype=np.uint8)[None], 8, axis=0)  # brighter rightward
    for file in (root / "mine").rglob("*.png"):
        Image.fromarray(ramp).save(file)
    data = load("mine", folder_entry(image=[1, 4, 6]), data_root=root)
    image = data.train.x[0].reshape(4, 6)
    assert torch.equal(image, image[:1].expand(4, 6))
    assert (image[0].diff() > 0).all()


def test_a_grey_image_in_a_colour_folder(root: Path) -> None:
    write_images(root / "mine", per_class=2, mode="L")
    image = load("mine", folder_entry(), data_root=root).train.x.reshape(4, 3, 24)
    assert torch.equal(image[:, 0], image[:, 1])
    assert torch.equal(image[:, 0], image[:, 2])


# ---- the cache


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*args: Any) -> None:
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(datasets, "_pixels", refuse)


def cached(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache").rglob("*.npz")
    return file


def test_the_second_time_the_cache_serves(
    tmp_path: Path, root: Path, no_decoding: Callable[[], None]
) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    no_decoding()
    assert same(first, load("mine", folder_entry(), data_root=root))
    assert list((tmp_path / "cache").rglob("*.npz")) == [cached(tmp_path)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"garbage",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: content[:300] + bytes(40) + content[340:],
        lambda content: bytes(8) + content[8:],
        lambda content: b"PK\x03\x04",
        lambda content: b"\x93NUMPY\x01\x00",
    ],
)
def test_a_damaged_cache_is_made_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path, root: Path, no_decoding: Callable[[], None]
) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    cache = cached(tmp_path)
    cache.write_bytes(damage(cache.read_bytes()))
    assert same(first, load("mine", folder_entry(), data_root=root))
    no_decoding()
    assert same(first, load("mine", folder_entry(), data_root=root))


def test_a_cache_with_other_arrays_is_made_anew(tmp_path: Path, root: Path) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    np.savez(cached(tmp_path), other=np.zeros(3))
    assert same(first, load("mine", folder_entry(), data_root=root))


def test_changed_images_are_not_served_from_the_cache(root: Path) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    Image.new("RGB", (6, 4)).save(root / "mine" / "train" / "a" / "0.png")
    second = load("mine", folder_entry(), data_root=root)
    assert second.checksum != first.checksum
    (root / "mine" / "train" / "b" / "0.png").unlink()
    assert len(load("mine", folder_entry(), data_root=root).train) == 39
    assert load("mine", folder_entry(image=[1, 2, 2]), data_root=root).train.x.shape == (39, 4)


def test_a_cache_that_cannot_be_written(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(root / "mine", per_class=2)
    (tmp_path / "blocked").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert len(load("mine", folder_entry(), data_root=root).train) == 4


def test_a_cache_on_a_full_disk_leaves_nothing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write_images(root / "mine", per_class=2)
    monkeypatch.setattr(np, "savez", full)
    assert len(load("mine", folder_entry(), data_root=root).train) == 4
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


# ---- archives


def pack(source: Path, archive: Path, arcname: str = "mine", mode: Any = "w:gz") -> Path:
    with tarfile.open(archive, mode) as tar:
        tar.add(source, arcname)
    return archive


@pytest.mark.parametrize("arcname", ["mine", "./mine", "."])
@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz"])
def test_an_archive_gives_what_the_folder_gives(arcname: str, mode: str, tmp_path: Path, root: Path) -> None:
    write_images(tmp_path / "unpacked" / "mine", per_class=5)
    pack(tmp_path / "unpacked" / "mine", root / "mine.tar.gz", arcname, mode)
    data = load("mine", folder_entry(), data_root=root)
    assert data.source == "image folder (archive)"
    assert same(data, load("mine", folder_entry(), data_root=tmp_path / "unpacked"))


def test_an_archive_is_decoded_once(tmp_path: Path, root: Path, no_decoding: Callable[[], None]) -> None:
    write_images(tmp_path / "mine")
    pack(tmp_path / "mine", root / "mine.tar.gz")
    first = load("mine", folder_entry(), data_root=root)
    no_decoding()
    assert same(first, load("mine", folder_entry(), data_root=root))


@pytest.mark.parametrize("hard", [False, True])
def test_links_in_an_archive_are_refused(hard: bool, tmp_path: Path, root: Path) -> None:
    """tar packs where they lead, not what is there."""
    write_images(tmp_path / "mine", per_class=2)
    link = tmp_path / "mine/train/a/more.png"
    link.hardlink_to(tmp_path / "mine/train/a/0.png") if hard else link.symlink_to("0.png")
    pack(tmp_path / "mine", root / "mine.tar.gz")
    assert "holds links, such as train/a/" in refusal("mine", folder_entry(), data_root=root)


def test_another_archive_of_the_same_names_and_sizes_is_decoded(tmp_path: Path, root: Path) -> None:
    """tarfile gives members that are not files no time of their own."""

    def packed(colour: str) -> str:
        with tarfile.open(root / "mine.tar.gz", "w") as tar:
            for place in ("train/a", "train/b", "test/a", "test/b"):
                content = io.BytesIO()
                Image.new("RGB", (6, 4), colour).save(content, "bmp")
                member = tarfile.TarInfo(f"{place}/x.bmp")
                member.size = len(content.getvalue())
                tar.addfile(member, io.BytesIO(content.getvalue()))
        return load("mine", folder_entry(), data_root=root).checksum

    assert packed("red") != packed("blue")


def test_the_folder_comes_before_the_archive(tmp_path: Path, root: Path) -> None:
    write_images(tmp_path / "mine", per_class=2)
    pack(tmp_path / "mine", root / "mine.tar.gz")
    write_images(root / "mine", per_class=3)
    assert len(load("mine", folder_entry(), data_root=root).train) == 6


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:xz", "w:bz2"])
def test_damaged_archive(mode: str, tmp_path: Path, root: Path) -> None:
    write_images(tmp_path / "mine", per_class=10, size=(32, 32))
    content = pack(tmp_path / "mine", root / "mine.tar.gz", mode=mode).read_bytes()
    half = len(content) // 2
    damaged = [b"", b"garbage", content[:half], content[: half // 8], content[:20]]
    if mode != "w":  # an unpacked archive has no checksum that would tell
        damaged.append(content[:half] + b"\xff" * 64 + content[half + 64 :])
        damaged.append(content[: half // 4] + b"\0" * 64 + content[half // 4 + 64 :])
    for bad in damaged:
        (root / "mine.tar.gz").write_bytes(bad)
        refusal("mine", folder_entry(), data_root=root)
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_a_truncated_archive_is_named(tmp_path: Path, root: Path) -> None:
    write_images(tmp_path / "mine")
    archive = pack(tmp_path / "mine", root / "mine.tar.gz")
    archive.write_bytes(archive.read_bytes()[:-500])
    line = refusal("mine", folder_entry(), data_root=root)
    assert f"{archive} cannot be unpacked: " in line


# ---- folders that are refused


def test_image_folder_not_found(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("BENCHMARK_DATA", str(tmp_path / "env"))
    line = refusal("mine", folder_entry(), data_root=root)
    for place in (root, tmp_path / "env", Path("data")):
        assert str(place / "mine") in line
        assert str(place / "mine.tar.gz") in line
    assert "mine/{train,test}/<class>/*.jpg|png" in line
    assert "--data-root" in line
    assert "tar.gz" not in refusal("mine", folder_entry(archive=None), data_root=root)
    # without `folder`, the name is the folder
    assert str(root / "yours") in refusal("yours", folder_entry(folder=None), data_root=root)


def remove(*paths: str) -> Change:
    def change(folder: Path) -> None:
        for path in paths:
            for file in (folder / path).rglob("*.png"):
                file.unlink()

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove("train/b"), ["train/ has images of 1 classes (a)", "classes: 2 declared"]),
        (remove("test/a"), ["test/ has images of 1 classes (b)", "train/ has a, b"]),
        (remove("train"), ["train/ has images of 0 classes (none)"]),
        (remove("test"), ["test/ has images of 0 classes (none)"]),
        (remove("train", "test"), ["train/ has images of 0 classes (none)"]),
        (lambda folder: (folder / "test").rename(folder / "val"), ["test/ has images of 0"]),
        (
            lambda folder: (folder / "test" / "a").rename(folder / "test" / "c"),
            ["test/ has images of 2 classes (b, c)", "train/ has a, b"],
        ),
    ],
)
def test_missing_classes(change: Change, expected: list[str], root: Path) -> None:
    write_images(root / "mine", per_class=2)
    change(root / "mine")
    line = refusal("mine", folder_entry(), data_root=root)
    for part in expected:
        assert part in line


def test_more_classes_than_declared(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    (root / "mine" / "train" / "c").mkdir()
    load("mine", folder_entry(), data_root=root)  # an empty folder is no class
    for part in ("train", "test"):
        (root / "mine" / part / "c").mkdir(exist_ok=True)
        Image.new("L", (6, 4)).save(root / "mine" / part / "c" / "0.png")
    assert "3 classes (a, b, c)" in refusal("mine", folder_entry(), data_root=root)


def test_an_empty_folder(root: Path) -> None:
    (root / "mine").mkdir()
    assert "0 classes (none)" in refusal("mine", folder_entry(), data_root=root)


def png() -> bytearray:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return bytearray(stream.getvalue())


def test_corrupt_image(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    file = root / "mine" / "train" / "b" / "1.png"
    good = bytes(png())
    for content in (b"", b"garbage", good[:20], good[: len(good) // 2], b"\xff\xd8\xff\xe0"):
        file.write_bytes(content)
        line = refusal("mine", folder_entry(), data_root=root)
        assert "train/b/1.png is not a readable image" in line
        assert "<" not in line


def test_no_corrupt_image_escapes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Pillow raises on damaged bytes becomes the one line."""
    write_images(root / "mine", per_class=1)
    file, rng = root / "mine" / "train" / "b" / "0.png", np.random.default_rng(1)
    monkeypatch.setattr(datasets, "_remember", lambda *args: None)
    refused: list[str] = []
    for _ in range(400):
        content = png()
        for place in rng.integers(8, len(content), 3):
            content[place] = rng.integers(0, 256)
        file.write_bytes(content)
        try:
            load("mine", folder_entry(), data_root=root)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all("train/b/0.png is not a readable image" in line for line in refused)
    assert all(len(line.splitlines()) == 1 for line in refused)


@pytest.mark.parametrize("error", [SyntaxError("broken PNG\nfile"), ValueError(), struct.error()])
def test_unusual_decoding_errors(error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise error

    write_images(root / "mine", per_class=1)
    monkeypatch.setattr(datasets, "_pixels", fail)
    assert "is not a readable image" in refusal("mine", folder_entry(), data_root=root)


def test_an_image_bomb_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(root / "mine", per_class=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "is not a readable image" in refusal("mine", folder_entry(), data_root=root)


def test_checksum_of_a_folder(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    checksum = load("mine", folder_entry(), data_root=root).checksum
    load("mine", folder_entry(checksum=checksum), data_root=root)
    line = refusal("mine", folder_entry(checksum="0" * 64), data_root=root)
    assert checksum[:12] in line
    assert "000000000000... declared" in line


# ---- the data set that ships with the package


def test_shipped_subset() -> None:
    name = "fashion-mnist-mini"
    data = load(name, KNOWN[name], download=False)
    assert (len(data.train), len(data.test)) == (6000, 1000)
    assert data.train.y.bincount().tolist() == [600] * 10
    assert data.test.y.bincount().tolist() == [100] * 10
    assert data.train.x.shape == (6000, 784)
    assert data.checksum == KNOWN[name].checksum
    assert data.source == "shipped with the package"
    assert (datasets.SHIPPED / f"{name}.npz").stat().st_size <= 3.5e6
    low, high = data.train.x.min().item(), data.train.x.max().item()
    assert (low, high) == pytest.approx((-0.1307 / 0.3081, (1 - 0.1307) / 0.3081), abs=1e-5)
    labels = data.train.y.tolist()
    assert labels[:600] != sorted(labels[:600])
    # No image of one split in the other, and none twice but for Fashion-MNIST's own duplicates.
    train, test = (set(bytes_of(split.x)) for split in (data.train, data.test))
    assert len(train) > 5990
    assert len(train & test) < 3


def test_shipped_under_a_name_that_does_not_ship() -> None:
    line = refusal("mini", entry("fashion-mnist-mini"))
    assert "fashion-mnist-mini" in line


def test_draw_is_what_makes_the_shipped_subset(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.data import draw

    monkeypatch.setattr(draw, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(draw, "TEST_PER_CLASS", 2)
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 5)
    write_idx(root / "FashionMNIST" / "raw", (images, labels), (images[::-1], labels[::-1]))
    for name in ("one.npz", "two.npz"):
        draw.draw(root, tmp_path / name)
    monkeypatch.setattr(datasets, "SHIPPED", tmp_path)
    one, two = (load(name, entry("fashion-mnist-mini")) for name in ("one", "two"))
    assert same(one, two)
    assert one.train.y.bincount().tolist() == [3] * 10
    assert one.test.y.bincount().tolist() == [2] * 10
    pixels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for split in (one.train, one.test):
        rows = bytes_of(split.x)
        assert [pixels[row] for row in rows] == split.y.tolist()
        assert len(set(rows)) == len(rows)


def test_device() -> None:
    data = load("fashion-mnist-mini", KNOWN["fashion-mnist-mini"], device=torch.device("cpu"))
    assert data.train.x.device.type == data.test.y.device.type == "cpu"
