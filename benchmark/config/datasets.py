"""The data sets of `datasets.yaml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from benchmark.common.errors import UserError
from benchmark.config.files import CONFIGS, Strict, load_each
from benchmark.config.limits import LONGEST_LABEL

NAME = r"\w[\w.-]*"
"""Pattern of a data set's name, which is also the name of its folder in the store."""


class DatasetConfig(Strict):
    """One entry of `datasets.yaml`."""

    title: str
    kind: Literal["torchvision", "image-folder", "shipped"]
    torchvision: Literal["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"] | None = None
    folder: str | None = None
    image: list[Annotated[int, Field(gt=0)]] = Field(min_length=3, max_length=3)
    """Channels, height, width."""
    classes: int = Field(gt=1)
    train_samples: int | None = Field(default=None, gt=0)
    """Used only to estimate the time of an epoch."""
    checksum: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if (self.kind == "torchvision") != (self.torchvision is not None):
            raise ValueError("'torchvision' names the reader of kind: torchvision, and of no other")
        if self.kind != "image-folder" and self.folder:
            raise ValueError("'folder' goes with kind: image-folder")
        if self.image[0] not in (1, 3):
            raise ValueError(f"image: {self.image[0]} channels found, 1 or 3 allowed")
        return self

    @property
    def inputs(self) -> int:
        channels, height, width = self.image
        return channels * height * width


def load_datasets(file: Path = CONFIGS / "datasets.yaml") -> dict[str, DatasetConfig]:
    """The known data sets by name; `UserError` for a name that cannot be a folder's name."""
    found = load_each(DatasetConfig, file)
    for name in found:
        if not re.fullmatch(NAME, name) or len(name.encode()) > LONGEST_LABEL:
            raise UserError(
                f"{file}: {name!r} found, allowed as a name: letters, digits, '_', and, not first, '-' and "
                f"'.', at most {LONGEST_LABEL} bytes"
            )
    return found
