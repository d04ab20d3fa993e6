"""The raw pixels that every reader of a data set returns, and the error if it finds none."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.common.errors import DataNotFound


@dataclass(frozen=True)
class Pixels:
    """Raw bytes of both splits: images (samples, features) uint8, labels (samples,) int64."""

    source: str
    """Kind of files, for example `torchvision files`."""
    place: Path
    """Folder or file that was read."""
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    def checksum(self) -> str:
        """SHA-256 of all pixels and labels."""
        digest = hashlib.sha256()
        for array in (self.train_x, self.train_y, self.test_x, self.test_y):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def one_line(error: Exception) -> str:
    """The error's message, shortened to one line."""
    return textwrap.shorten(str(error), 200, placeholder=" ...") or type(error).__name__


def not_found(name: str, looked: Sequence[str], advice: str) -> DataNotFound:
    """The error for a data set that is in none of the places."""
    return DataNotFound(f"data set {name} not found; looked at {', '.join(looked)}; {advice}")
