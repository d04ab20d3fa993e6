"""Data sets that ship with the package: the .npz files in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig
from benchmark.datasets.pixels import Pixels

SHIPPED = Path(__file__).parent


def read(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> Pixels:
    """Read the shipped data set `name`; `roots` and `download` are not used."""
    file = SHIPPED / f"{name}.npz"
    if not file.is_file():
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.npz")))
        raise UserError(f"data set {name}: kind: shipped, but the package ships only {shipped}")
    with np.load(file) as arrays:
        x, y = arrays["x"], arrays["y"].astype(np.int64)
        train = int(arrays["train_samples"])
    return Pixels("shipped with the package", file, x[:train], y[:train], x[train:], y[train:])
