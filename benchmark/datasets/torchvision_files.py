"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 in torchvision's layout, or as Debian's package has them."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmark.config import DatasetConfig
from benchmark.datasets.pixels import Pixels, not_found, one_line

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def read(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> Pixels:
    """The files of a class of `torchvision.datasets`; what is nowhere may be downloaded to the first root."""
    # Takes a second, which most commands need not wait.
    from torchvision import datasets as torchvision_datasets

    reader = getattr(torchvision_datasets, str(config.torchvision))
    # MNIST-like readers use their class name as folder, the CIFAR ones a fixed one.
    folder = getattr(reader, "base_folder", str(config.torchvision))
    usual = "put the files there, or name their folder with --data-root"
    looked, advice = [], f"not downloaded; {usual}"
    for root in roots:
        looked.append(str(root / folder))
        try:
            return _from_torchvision(reader, root, root / folder, "torchvision files")
        except Exception as error:  # torchvision checks little: KeyError, TypeError, ...
            if "Dataset not found" not in str(error):
                looked[-1] += f" (damaged: {_damage(root / folder, error)})"
                if root == roots[0]:  # where torchvision would take it for complete
                    advice, download = "replace what cannot be read, or name another --data-root", False
            elif (root / folder).is_dir() and any((root / folder).rglob("*")):
                looked[-1] += f" (there, but {_lacking(reader, root / folder)})"
            elif (root / folder).is_file():
                looked[-1] += " (a file, not a folder)"
    if config.torchvision == "FashionMNIST":
        looked.append(str(DEBIAN_FASHION_MNIST))
        if DEBIAN_FASHION_MNIST.is_dir():
            try:
                return _from_debian(reader)
            except Exception as error:
                looked[-1] += f" (damaged: {one_line(error)})"
    if download:
        try:
            return _download(name, reader, roots[0], roots[0] / folder)
        except Exception as error:
            advice = f"download failed ({one_line(error)}); {usual}"
    raise not_found(name, looked, advice)


def _download(name: str, reader: Callable[..., object], root: Path, place: Path) -> Pixels:
    """By torchvision; if it fails, the folders that it made are removed, as long as they are empty."""
    absent = [path for path in (place / "raw", place, root) if not path.exists()]
    print(f"downloading {name} to {root}", flush=True)
    try:
        for train in (True, False):
            reader(root, train=train, download=True)
        return _from_torchvision(reader, root, place, "torchvision files")
    except Exception:
        for made in absent:
            with suppress(OSError):  # not made, or not empty
                made.rmdir()
        raise


def _damage(folder: Path, error: Exception) -> str:
    """What `error` found wrong, with the first of MNIST's files that cannot be read, if it is one."""
    from torchvision.datasets import mnist

    for file in sorted(folder.glob("raw/*-ubyte")):
        read_file = mnist.read_label_file if "idx1" in file.name else mnist.read_image_file
        try:
            read_file(str(file))
        except OSError as reason:
            return f"{file.name}: {reason.strerror}"
        except Exception:  # whose reason is torchvision's own: an assertion, or what it could not parse
            return f"{file.name}: no IDX file of {'labels' if 'idx1' in file.name else 'images'}"
    return one_line(error)


def _lacking(reader: Callable[..., object], folder: Path) -> str:
    """Which of its files a reader of torchvision misses, or that they are not those that it knows."""
    listed = [getattr(reader, names, []) for names in ("resources", "train_list", "test_list")]
    files = [file.removesuffix(".gz") for names in listed for file, _ in names]
    place = folder / "raw" if hasattr(reader, "resources") else folder
    missing = [file for file in files if not (place / file).exists()]
    for file in missing:
        elsewhere = next(folder.rglob(file), next(folder.rglob(f"{file}.gz"), None))
        if elsewhere is not None:
            return f"{elsewhere.relative_to(folder)} belongs in {place / file}"
    return f"without {', '.join(missing)}" if missing else "damaged: not the files that torchvision knows"


def _from_torchvision(reader: Callable[..., object], root: Path, place: Path, source: str) -> Pixels:
    arrays = []
    for train in (True, False):
        data = reader(root, train=train, download=False)
        images = np.asarray(data.data)  # type: ignore[attr-defined]
        if images.ndim == 4:  # (samples, height, width, channels) -> channels first
            images = images.transpose(0, 3, 1, 2)
        arrays.append(images.reshape(len(images), -1))
        arrays.append(np.asarray(data.targets, dtype=np.int64))  # type: ignore[attr-defined]
    return Pixels(source, place, *arrays)


def _from_debian(reader: Callable[..., object]) -> Pixels:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in DEBIAN_FASHION_MNIST.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        return _from_torchvision(
            reader, Path(folder), DEBIAN_FASHION_MNIST, "Debian package dataset-fashion-mnist"
        )
