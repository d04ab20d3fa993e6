"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: torchvision's files, or Debian's Fashion-MNIST package."""

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
    """Read the files from the first root that has them all; else download them to the first root.

    Damaged files are never replaced: the error names them.
    """
    from torchvision import datasets as torchvision_datasets  # takes a second to import

    reader = getattr(torchvision_datasets, str(config.torchvision))
    # MNIST-like readers use their class name as folder, the CIFAR readers a fixed one.
    folder = getattr(reader, "base_folder", str(config.torchvision))
    usual = "put the files there, or name their folder with --data-root"
    looked, advice = [], f"not downloaded; {usual}"
    for root in roots:
        looked.append(str(root / folder))
        try:
            return _from_torchvision(reader, root, root / folder, "torchvision files")
        except Exception as error:  # torchvision raises KeyError, TypeError, ... for damaged files
            if "Dataset not found" not in str(error):
                looked[-1] += f" (damaged: {one_line(error)})"
                if root == roots[0]:  # torchvision would not download here
                    advice, download = "replace what cannot be read, or name another --data-root", False
            elif (root / folder).exists():
                looked[-1] += f" (incomplete: expected {_expected(reader, root / folder)})"
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
    """Download with torchvision; after a failure remove the empty folders that it made."""
    absent = [path for path in (place / "raw", place, root) if not path.exists()]
    print(f"downloading {name} to {root}", flush=True)
    try:
        for train in (True, False):
            reader(root, train=train, download=True)
        return _from_torchvision(reader, root, place, "torchvision files")
    except Exception:
        for made in absent:
            with suppress(OSError):  # does not exist, or is not empty
                made.rmdir()
        raise


def _expected(reader: Callable[..., object], folder: Path) -> str:
    """The files that torchvision's reader looks for."""
    listed = [getattr(reader, names, []) for names in ("resources", "train_list", "test_list")]
    files = [file.removesuffix(".gz") for names in listed for file, _ in names]
    return f"{', '.join(files)} in {folder / 'raw' if hasattr(reader, 'resources') else folder}"


def _from_torchvision(reader: Callable[..., object], root: Path, place: Path, source: str) -> Pixels:
    """Both splits as torchvision reads them, channels first."""
    arrays = []
    for train in (True, False):
        data = reader(root, train=train, download=False)
        images = np.asarray(data.data)  # type: ignore[attr-defined]
        if images.ndim == 4:  # (samples, height, width, channels)
            images = images.transpose(0, 3, 1, 2)
        arrays.append(images.reshape(len(images), -1))
        arrays.append(np.asarray(data.targets, dtype=np.int64))  # type: ignore[attr-defined]
    return Pixels(source, place, *arrays)


def _from_debian(reader: Callable[..., object]) -> Pixels:
    """Fashion-MNIST from the gzip files of Debian's package."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in DEBIAN_FASHION_MNIST.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        return _from_torchvision(
            reader, Path(folder), DEBIAN_FASHION_MNIST, "Debian package dataset-fashion-mnist"
        )
