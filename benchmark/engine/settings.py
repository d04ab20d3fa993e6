"""The names, settings and versions that plans and keys are made of. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

SEMANTICS = 1
"""Part of every run's key. Raise it when a change to the code changes numbers beyond rounding."""


class Execution(StrEnum):
    """How a training runs its iterations; recorded with the run."""

    EAGER = "eager"
    COMPILED = "compiled"  # by torch.compile
    GRAPHED = "graphed"  # as CUDA graphs


class Compile(StrEnum):
    """What `--compile` allows."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Precision(StrEnum):
    """Precision of float32 matrix products: part of the protocol, and so of the key of every run."""

    HIGHEST = "highest"  # float32 throughout
    TF32 = "tf32"  # factors rounded to ten bits, for NVIDIA's tensor cores


@dataclass(frozen=True)
class Measurement:
    """A measurement that is taken between two epochs. `jacobian.measure` takes it."""

    columns: tuple[str, ...]
    """Columns of the stored table, after `epoch` and `seed`."""
    every_epoch: bool = True
    """Otherwise only at initialisation (epoch 0, before any pre-training) and after the last epoch."""
    version: int = 1
    """Part of the key of the runs that take it: raise it when its numbers change."""

    def due(self, completed: int, epoch: int, epochs: int) -> bool:
        """Whether to measure now: `completed` counts pre-training epochs too, `epoch` does not."""
        return completed == 0 or epoch == epochs or (self.every_epoch and epoch > 0)


MEASUREMENTS: dict[str, Measurement] = {
    "jacobian": Measurement(
        ("encoder", "statistics", "trace", "nonnegative", "nonnegative_symmetric", "zero")
    ),
    "conditions": Measurement(("encoder", "quantity", "value"), every_epoch=False),
}
"""Every measurement by the name that plans use."""
