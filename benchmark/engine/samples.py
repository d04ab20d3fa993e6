"""The samples that training and evaluation see, wherever `datasets/` has found them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmark.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Normalised samples: `x` (samples, features) float, `y` (samples,) class numbers."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """A data set on its device, and what a result records about it."""

    name: str
    train: Split
    test: Split
    source: str
    checksum: str

    def hold_out(self, samples: int) -> Dataset:
        """The last `samples` training samples evaluate, the others train; the test set stays unseen."""
        rest = len(self.train) - samples
        if samples < 1 or rest < 1:
            raise UserError(
                f"data set {self.name}: {samples} validation samples asked for, "
                f"1 to {len(self.train) - 1} of its {len(self.train)} training samples allowed"
            )
        return replace(
            self,
            train=Split(self.train.x[:rest], self.train.y[:rest]),
            test=Split(self.train.x[rest:], self.train.y[rest:]),
        )

    @property
    def record(self) -> dict[str, str | int]:
        return {
            "name": self.name,
            "source": self.source,
            "train_samples": len(self.train),
            "test_samples": len(self.test),
            "checksum": self.checksum,
        }
