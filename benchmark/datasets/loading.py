"""From a data set's name in `paper_configs/datasets.yaml` to tensors on the training device."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig
from benchmark.datasets import image_folder, shipped, torchvision_files
from benchmark.datasets.pixels import Pixels
from benchmark.engine.samples import Dataset, Split

MEAN, STD = 0.1307, 0.3081
"""MNIST's pixel mean and deviation, which the released code applies to all four data sets."""

READERS: dict[str, Callable[[str, DatasetConfig, Sequence[Path], bool], Pixels]] = {
    "torchvision": torchvision_files.read,
    "shipped": shipped.read,
    "image-folder": image_folder.read,
}
"""The reader of each `kind` in datasets.yaml.

Arguments: the data set's name and entry, the roots to look in, and whether it may download."""


def search_path(data_root: Path | None = None) -> list[Path]:
    """Folders in which data are looked for: the given root, $BENCHMARK_DATA, ./data."""
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
    """Find, check and normalise a data set: (x / 255 - MEAN) / STD, float32 (samples, features).

    Raises `DataNotFound` if it is nowhere, `UserError` if it differs from its declaration.
    """
    roots = [] if config.kind == "shipped" else search_path(data_root)
    pixels = READERS[config.kind](name, config, roots, download)
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


def _check(name: str, config: DatasetConfig, pixels: Pixels, checksum: str) -> None:
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
