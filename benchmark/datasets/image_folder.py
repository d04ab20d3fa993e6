"""Images in a folder a class, or in an archive of such folders, decoded once and remembered."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from benchmark.common.errors import UserError
from benchmark.common.files import atomic_file
from benchmark.config import DatasetConfig
from benchmark.datasets.pixels import Pixels, not_found, one_line


def read(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> Pixels:
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
    raise not_found(
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


def _decode_archive(name: str, config: DatasetConfig, archive: Path, folder: str) -> Pixels:
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
        reason = one_line(error)
        raise UserError(f"data set {name}: {archive} cannot be unpacked: {reason}") from None


def _decode(
    name: str,
    config: DatasetConfig,
    listing: list[tuple[str, int, int]],
    open_all: Callable[[Sequence[str]], Iterator[tuple[str, IO[bytes]]]],
    place: Path,
    source: str,
) -> Pixels:
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
                + (f"; train/ has {', '.join(classes[:12]) or 'none'}" if part == "test" else "")
                + (", and both need the same" if part == "test" and len(found) == config.classes else "")
            )
    fingerprint = hashlib.sha256(repr((images, config.image)).encode()).hexdigest()[:16]
    cache = _cache_folder() / f"{name}-{fingerprint}.npz"
    if cache.is_file():
        try:
            with np.load(cache) as arrays:
                return Pixels(source, place, *(arrays[key] for key in _CACHED))
        except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile):
            cache.unlink(missing_ok=True)
    rows: dict[str, np.ndarray] = {}
    for path, stream in open_all(parts["train"] + parts["test"]):
        try:
            rows[path] = _pixels(stream, config)
        except Exception as error:  # a damaged PNG raises SyntaxError or ValueError, too
            known = not isinstance(error, UnidentifiedImageError)
            reason = one_line(error) if known else "of no kind that Pillow knows"
            raise UserError(f"data set {name}: {place / path} is not a readable image: {reason}") from None
    arrays = []
    for paths in parts.values():
        # Files come sorted by class, and minibatch statistics at evaluation depend on the order.
        shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
        arrays.append(np.stack([rows[path] for path in shuffled]))
        labels = [classes.index(path.split("/")[1]) for path in shuffled]
        arrays.append(np.asarray(labels, dtype=np.int64))
    _remember(cache, dict(zip(_CACHED, arrays, strict=True)))
    return Pixels(source, place, *arrays)


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
