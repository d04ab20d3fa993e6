"""Data sets that come with the package (`benchmark/datasets/`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.common.errors import UserError
from benchmark.config import DatasetConfig
from benchmark.datasets.pixels import Pixels

SHIPPED = Path(__file__).parent


def read(name: str, config: DatasetConfig, roots: Sequence[Path], download: bool) -> Pixels:
    """The data set of that name, wherever data are looked for."""
    file = SHIPPED / f"{name}.npz"
    if not file.is_file():
        shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.npz")))
        raise UserError(f"data set {name}: kind: shipped, but the package ships only {shipped}")
    with np.load(file) as arrays:
        x, y = arrays["x"], arrays["y"].astype(np.int64)
        train = int(arrays["train_samples"])
    return Pixels("shipped with the package", file, x[:train], y[:train], x[train:], y[train:])
