"""Data sets: a name in `paper_configs/datasets.yaml` -> tensors on the training device."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from benchmark.config import DatasetConfig
from benchmark.disk import atomic_file
from benchmark.errors import DataNotFound, UserError
from benchmark.samples import Dataset, Split

MEAN, STD = 0.1307, 0.3081
"""MNIST's pixel mean and deviation, which the released code applies to all four data sets."""

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SHIPPED = Path(__file__).parent / "data"


@dataclass(frozen=True)
class _Pixels:
    """Raw bytes of both splits: images (samples, features) uint8, labels (samples,) int64."""

    source: str
    """What kind of files they come from."""
    place: Path
    """Where these lie."""
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    def checksum(self) -> str:
        digest = hashlib.sha256()
        for array in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def search_path(data_root: Path | None = None) -> list[Path]:
    """Where data are looked for: the given root, $BENCHMARK_DATA, ./data."""
    variable = os.environ.get("BENCHMARK_DATA") or None
    if variable is not None and data_root is None and not Path(variable).is_dir():
        raise UserError(f"$BENCHMARK_DATA: {variable} is not a folder")
    named = [data_root, variable, "data"]
    return list(dict.fromkeys(Path(root) for root in named if root is not None))


def load(
    name: str,
    config: DatasetConfig,
    *,
    data_root: Path | None = None,
    device: torch.device | str = "cpu",
    download: bool = True,
) -> Dataset:
    """Find, check and normalise a data set; `UserError` if it is not to be had or not as declared."""
    roots = [] if config.kind == "shipped" else search_path(data_root)
    pixels = _READERS[config.kind](name, config, roots, download)
    checksum = pixels.checksum()
    _check(name, config, pixels, checksum)

    def split(x: np.ndarray, y: np.ndarray) -> Split:
        tensor = torch.from_numpy(x).to(device).to(torch.float32)
        tensor.div_(255).sub_(MEAN).div_(STD)
        return Split(tensor, torch.from_numpy(y).to(device))

    return Dataset(
        name,
        split(pixels.train_x, pixels.train_y),
        split(pixels.test_x, pixels.test_y),
        pixels.source,
        checksum,
    )


def _check(name: str, config: DatasetConfig, pixels: _Pixels, checksum: str) -> None:
    where = f"data set {name} ({pixels.source} in {pixels.place})"
    for part, x, y in (
        ("training", pixels.train_x, pixels.train_y),
        ("test", pixels.test_x, pixels.test_y),
    ):
        if len(x) == 0 or len(x) != len(y):
            raise UserError(f"{where}: {len(x)} {part} images for {len(y)} labels")
        if x.shape[1] != config.inputs:
            raise UserError(
                f"{where}: {part} images have {x.shape[1]} values, "
                f"{config.inputs} declared by image: {list(config.image)}"
            )
        if y.min() < 0 or y.max() >= config.classes:
            wrong = y.min() if y.min() < 0 else y.max()
            raise UserError(f"{where}: {part} label {wrong} found, classes: {config.classes} declared")
    if config.checksum is not None and checksum != config.checksum:
        raise UserError(
            f"{where}: content checksum {checksum[:12]}... found, {config.checksum[:12]}... declared; these "
            "files are damaged, or other data, which get a name of their own in datasets.yaml"
        )


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def _not_found(name: str, looked: Sequence[str], advice: str) -> UserError:
    return DataNotFound(f"data set {name} not found; looked at {', '.join(looked)}; {advice}")


def _torchvision(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> _Pixels:
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
                looked[-1] += f" (damaged: {_reason(error)})"
    if download:
        try:
            return _download(name, reader, roots[0], roots[0] / folder)
        except Exception as error:
            advice = f"download failed ({_reason(error)}); {usual}"
    raise _not_found(name, looked, advice)


def _download(name: str, reader: Callable[..., object], root: Path, place: Path) -> _Pixels:
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
        read = mnist.read_label_file if "idx1" in file.name else mnist.read_image_file
        try:
            read(str(file))
        except OSError as reason:
            return f"{file.name}: {reason.strerror}"
        except Exception:  # whose reason is torchvision's own: an assertion, or what it could not parse
            return f"{file.name}: no IDX file of {'labels' if 'idx1' in file.name else 'images'}"
    return _reason(error)


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


def _from_torchvision(reader: Callable[..., object], root: Path, place: Path, source: str) -> _Pixels:
    arrays = []
    for train in (True, False):
        data = reader(root, train=train, download=False)
        images = np.asarray(data.data)  # type: ignore[attr-defined]
        if images.ndim == 4:  # (samples, height, width, channels) -> channels first
            images = images.transpose(0, 3, 1, 2)
        arrays.append(images.reshape(len(images), -1))
        arrays.append(np.asarray(data.targets, dtype=np.int64))  # type: ignore[attr-defined]
    return _Pixels(source, place, *arrays)


def _from_debian(reader: Callable[..., object]) -> _Pixels:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in DEBIAN_FASHION_MNIST.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        return _from_torchvision(
            reader, Path(folder), DEBIAN_FASHION_MNIST, "Debian package dataset-fashion-mnist"
        )


def _shipped(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> _Pixels:
    file = SHIPPED / f"{name}.npz"
    if not file.is_file():
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.npz")))
        raise UserError(f"data set {name}: kind: shipped, but the package ships only {shipped}")
    with np.load(file) as arrays:
        x, y = arrays["x"], arrays["y"].astype(np.int64)
        train = int(arrays["train_samples"])
    return _Pixels("shipped with the package", file, x[:train], y[:train], x[train:], y[train:])


def _image_folder(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> _Pixels:
    """`<root>/<folder>/{train,test}/<class>/*.jpg|png`, or the same packed as a tar archive.

    Files of the kinds that torchvision's ImageFolder takes, also in folders below a class's; no others.
    """
    folder, archive = config.folder or name, config.archive
    looked = []
    for root in roots:
        looked.append(str(root / folder))
        if (root / folder).is_dir():
            files = _Folder(root / folder)
            return _decode(name, config, files.listing(), files.open, root / folder, "image folder")
        if archive is not None:
            looked.append(str(root / archive))
            if (root / archive).is_file():
                return _decode_archive(name, config, root / archive, folder)
    raise _not_found(
        name,
        looked,
        f"expected {folder}/{{train,test}}/<class>/*.jpg|png below a --data-root folder",
    )


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def listing(self) -> list[tuple[str, int, int]]:
        found = []
        for folder, below, names in os.walk(self.path, followlinks=True):
            here = Path(folder)
            # Not into a link that leads back up.
            below[:] = [name for name in below if not here.resolve().is_relative_to((here / name).resolve())]
            for file in (here / name for name in names):
                if not file.is_file():  # a link to nothing
                    continue
                status = file.stat()
                inside = file.relative_to(self.path).as_posix()
                found.append((inside, status.st_size, status.st_mtime_ns))
        return found

    def open(self, inside: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
        for member in inside:
            with open(self.path / member, "rb") as stream:
                yield member, stream


def _decode_archive(name: str, config: DatasetConfig, archive: Path, folder: str) -> _Pixels:
    def inside(member: tarfile.TarInfo) -> str:
        return member.name.removeprefix("./").removeprefix(f"{folder}/")

    try:
        with tarfile.open(archive) as tar:
            members = {inside(member): member for member in tar if member.isfile()}
            links = [inside(member) for member in tar if member.issym() or member.islnk()]
            if links := [path for path in links if path.startswith(("train/", "test/"))]:
                raise UserError(
                    f"data set {name}: {archive} holds links, such as {links[0]}, and not what they lead to; "
                    "pack it with `tar -h --hard-dereference`"
                )
            packed = archive.stat()  # whose members may all have the same time
            listing = [(path, member.size, packed.st_mtime_ns) for path, member in members.items()]

            def open_all(wanted: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
                # In the archive's own order: seeking back in a compressed archive unpacks it again.
                chosen = set(wanted)
                for path, member in members.items():
                    if path in chosen:
                        stream = tar.extractfile(member)
                        assert stream is not None
                        yield path, stream

            return _decode(name, config, listing, open_all, archive, "image folder (archive)")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        reason = _reason(error)
        raise UserError(f"data set {name}: {archive} cannot be unpacked: {reason}") from None


def _decode(
    name: str,
    config: DatasetConfig,
    listing: list[tuple[str, int, int]],
    open_all: Callable[[Sequence[str]], Iterator[tuple[str, IO[bytes]]]],
    place: Path,
    source: str,
) -> _Pixels:
    """Decode once, in one fixed random order a split, and remember the pixels."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    images = sorted(
        entry
        for entry in listing
        if entry[0].lower().endswith(IMG_EXTENSIONS) and len(entry[0].split("/")) >= 3
    )
    parts = {part: [path for path, *_ in images if path.split("/")[0] == part] for part in ("train", "test")}
    classes = sorted({path.split("/")[1] for path in parts["train"]})
    for part, paths in parts.items():
        found = sorted({path.split("/")[1] for path in paths})
        if len(found) != config.classes or found != classes:
            raise UserError(
                f"data set {name}: {part}/ has images of {len(found)} classes "
                f"({', '.join(found[:12]) or 'none'}), classes: {config.classes} declared in datasets.yaml"
                + (f", train/ has {', '.join(classes[:12]) or 'none'}" if part == "test" else "")
            )
    fingerprint = hashlib.sha256(repr((images, config.image)).encode()).hexdigest()[:16]
    cache = _cache_folder() / f"{name}-{fingerprint}.npz"
    if cache.is_file():
        try:
            with np.load(cache) as arrays:
                return _Pixels(source, place, *(arrays[key] for key in _CACHED))
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile):
            cache.unlink(missing_ok=True)
    rows: dict[str, np.ndarray] = {}
    for path, stream in open_all(parts["train"] + parts["test"]):
        try:
            rows[path] = _pixels(stream, config)
        except Exception as error:  # a damaged PNG raises SyntaxError or ValueError, too
            known = not isinstance(error, UnidentifiedImageError)
            reason = _reason(error) if known else "of no kind that Pillow knows"
            raise UserError(f"data set {name}: {place / path} is not a readable image: {reason}") from None
    arrays = []
    for paths in parts.values():
        # Files come sorted by class, and minibatch statistics at evaluation depend on the order.
        shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
        arrays.append(np.stack([rows[path] for path in shuffled]))
        labels = [classes.index(path.split("/")[1]) for path in shuffled]
        arrays.append(np.asarray(labels, dtype=np.int64))
    _remember(cache, dict(zip(_CACHED, arrays, strict=True)))
    return _Pixels(source, place, *arrays)


_CACHED = ("train_x", "train_y", "test_x", "test_y")


def _pixels(stream: IO[bytes], config: DatasetConfig) -> np.ndarray:
    channels, height, width = config.image
    with Image.open(stream) as image:
        if image.mode.startswith(("I", "F")):  # which `convert` would clip
            raise ValueError(f"its pixels have more than 8 bits (mode {image.mode})")
        converted = image.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(converted)
    return (array if channels == 1 else array.transpose(2, 0, 1)).reshape(-1)


def _cache_folder() -> Path:
    named = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) / "fw-dtp-benchmark"


def _remember(cache: Path, arrays: dict[str, np.ndarray]) -> None:
    """Keep decoded pixels; a cache that cannot be written only costs time."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(cache) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


_READERS: dict[str, Callable[[str, DatasetConfig, Sequence[Path], bool], _Pixels]] = {
    "torchvision": _torchvision,
    "shipped": _shipped,
    "image-folder": _image_folder,
}
