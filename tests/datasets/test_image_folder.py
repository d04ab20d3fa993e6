"""Folders and archives of images."""

from __future__ import annotations

import collections
import io
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

from benchmark.common.errors import UserError
from benchmark.datasets import image_folder, load
from tests.datasets.files import (
    Change,
    bytes_of,
    folder_entry,
    normalised,
    refusal,
    rows_of,
    same,
    write_images,
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


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*args: Any) -> None:
        raise AssertionError("decoded again")

    return lambda: monkeypatch.setattr(image_folder, "_pixels", refuse)


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
            ["test/ has images of 2 classes (b, c)", "train/ has a, b, and both need the same"],
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
    monkeypatch.setattr(image_folder, "_remember", lambda *args: None)
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
    monkeypatch.setattr(image_folder, "_pixels", fail)
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
