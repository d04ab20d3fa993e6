"""The data set that ships with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.datasets import load, shipped
from tests.datasets.files import KNOWN, bytes_of, entry, refusal, same, write_idx


def test_shipped_subset() -> None:
    name = "fashion-mnist-mini"
    data = load(name, KNOWN[name], download=False)
    assert (len(data.train), len(data.test)) == (6000, 1000)
    assert data.train.y.bincount().tolist() == [600] * 10
    assert data.test.y.bincount().tolist() == [100] * 10
    assert data.train.x.shape == (6000, 784)
    assert data.checksum == KNOWN[name].checksum
    assert data.source == "shipped with the package"
    assert (shipped.SHIPPED / f"{name}.npz").stat().st_size <= 3.5e6
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
    from benchmark.datasets import draw

    monkeypatch.setattr(draw, "TRAIN_PER_CLASS", 3)
    monkeypatch.setattr(draw, "TEST_PER_CLASS", 2)
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 5)
    write_idx(root / "FashionMNIST" / "raw", (images, labels), (images[::-1], labels[::-1]))
    for name in ("one.npz", "two.npz"):
        draw.draw(root, tmp_path / name)
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    one, two = (load(name, entry("fashion-mnist-mini")) for name in ("one", "two"))
    assert same(one, two)
    assert one.train.y.bincount().tolist() == [3] * 10
    assert one.test.y.bincount().tolist() == [2] * 10
    pixels = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for split in (one.train, one.test):
        rows = bytes_of(split.x)
        assert [pixels[row] for row in rows] == split.y.tolist()
        assert len(set(rows)) == len(rows)
