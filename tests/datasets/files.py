"""Small data sets on disk, in every form, and what `load` should make of them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig, load_datasets
from benchmark.datasets import load
from benchmark.engine.samples import Dataset

KNOWN = load_datasets()
Change = Callable[[Path], object]
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
Samples = tuple[np.ndarray, np.ndarray]
MNIST_LIKE = [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]


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


def garble(file: str, content: bytes) -> Change:
    return lambda raw: (raw / file).write_bytes(content)


def folder_entry(**change: Any) -> DatasetConfig:
    values: dict[str, Any] = {"title": "Mine", "kind": "image-folder", "folder": "mine"}
    values |= {"image": [3, 4, 6], "classes": 2}
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
