"""Folders of images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.datasets import load
from tests.datasets.files import bytes_of, folder_entry, normalised, refusal, rows_of, same, write_images


@pytest.mark.parametrize("suffix", ["png", "PNG"])
def test_image_folder(suffix: str, root: Path) -> None:
    written = write_images(root / "mine", suffix=suffix)
    (root / "mine" / "train" / "a" / "notes.txt").write_text("not an image")
    data = load("mine", folder_entry(), data_root=root)
    assert data.source == "image folder"
    for part, split in (("train", data.train), ("test", data.test)):
        for label in (0, 1):
            expected = rows_of([image.transpose(2, 0, 1) for image in written[part, label]])
            assert set(bytes_of(split.x[split.y == label])) == expected
        assert len(split) == 2 * len(written[part, 0])
    values = normalised(written["train", 0][0].transpose(2, 0, 1)[None])[0]
    assert (data.train.x - values).abs().max(dim=1).values.min() < 1e-5


def test_the_order_is_fixed_and_not_by_class(root: Path) -> None:
    write_images(root / "mine")
    first = load("mine", folder_entry(), data_root=root)
    labels = first.train.y.tolist()
    assert sum(a != b for a, b in pairwise(labels)) > 5
    assert sum(labels) == 20
    assert same(first, load("mine", folder_entry(), data_root=root))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour(suffix: str, mode: str, channels: int, root: Path) -> None:
    write_images(root / "mine", per_class=2, mode=mode, suffix=suffix)
    data = load("mine", folder_entry(image=[channels, 4, 6]), data_root=root)
    for label, name in enumerate("ab"):
        expected = []
        for file in (root / "mine" / "train" / name).iterdir():
            array = np.asarray(Image.open(file).convert("L" if channels == 1 else "RGB"))
            expected.append(array if channels == 1 else array.transpose(2, 0, 1))
        assert set(bytes_of(data.train.x[data.train.y == label])) == rows_of(expected)


def test_more_than_eight_bits_are_refused(root: Path) -> None:
    """Pillow would clip them."""
    write_images(root / "mine", per_class=2)
    Image.new("I;16", (6, 4)).save(root / "mine/train/a/x.png")
    line = refusal("mine", folder_entry(), data_root=root)
    assert "x.png is not a readable image: it has more than 8 bits" in line


def test_resizing(root: Path) -> None:
    write_images(root / "mine", per_class=2, size=(40, 60))
    data = load("mine", folder_entry(image=[3, 4, 6]), data_root=root)
    assert data.train.x.shape == (4, 72)
    assert torch.isfinite(data.train.x).all()


def test_not_found(root: Path) -> None:
    line = refusal("mine", folder_entry(), data_root=root)
    assert str(root / "mine") in line
    assert "expected mine/{train,test}/<class>" in line


def test_wrong_classes(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    line = refusal("mine", folder_entry(classes=3), data_root=root)
    assert "has 2 classes, datasets.yaml declares 3" in line


def test_an_empty_class(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    for file in (root / "mine" / "test" / "a").iterdir():
        file.unlink()
    assert "classes a" in refusal("mine", folder_entry(), data_root=root)


def test_a_damaged_image(root: Path) -> None:
    write_images(root / "mine", per_class=2)
    file = root / "mine" / "test" / "b" / "0.png"
    file.write_bytes(file.read_bytes()[:30])
    assert f"{file} is not a readable image" in refusal("mine", folder_entry(), data_root=root)
