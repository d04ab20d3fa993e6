"""Images of your own: one folder per class, read by torchvision's `ImageFolder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig
from benchmark.datasets.pixels import Pixels, not_found, one_line


def read(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> Pixels:
    """Read `<root>/<folder>/{train,test}/<class>/*.jpg|png` from the first root that has the folder."""
    folder = config.folder or name
    for root in roots:
        if (root / folder).is_dir():
            train, test = (_split(name, config, root / folder / part) for part in ("train", "test"))
            return Pixels("image folder", root / folder, *train, *test)
    layout = f"expected {folder}/{{train,test}}/<class>/*.jpg|png below a --data-root folder"
    raise not_found(name, [str(root / folder) for root in roots], layout)


def _split(name: str, config: DatasetConfig, place: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (samples, features) and class numbers (samples,), in one fixed random order.

    Files are sorted by class, and batch statistics at evaluation depend on the order.
    """
    from torchvision.datasets import ImageFolder

    def decode(file: str) -> np.ndarray:
        try:
            return _pixels(file, config.image)
        except Exception as error:  # Pillow raises SyntaxError and ValueError, too
            raise UserError(f"data set {name}: {file} is not a readable image: {one_line(error)}") from None

    try:
        images = ImageFolder(str(place), loader=decode)
    except FileNotFoundError as error:
        raise UserError(f"data set {name}: {place}: {one_line(error)}") from None
    if len(images.classes) != config.classes:
        raise UserError(
            f"data set {name}: {place} has {len(images.classes)} classes, "
            f"datasets.yaml declares {config.classes}"
        )
    order = np.random.default_rng(0).permutation(len(images))
    pixels = np.stack([images[i][0] for i in order])
    return pixels, np.asarray(images.targets, dtype=np.int64)[order]


def _pixels(file: str, shape: Sequence[int]) -> np.ndarray:
    """One image as uint8 (features,), channels first, resized to `shape` (channels, height, width)."""
    channels, height, width = shape
    with Image.open(file) as image:
        if image.mode.startswith(("I", "F")):  # `convert` would clip them
            raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
        converted = image.convert("L" if channels == 1 else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(converted)
    return (array if channels == 1 else array.transpose(2, 0, 1)).reshape(-1)
