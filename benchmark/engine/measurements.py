"""What a run can measure beside loss and error, and when; stored with the run as `<name>.csv`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.engine import jacobian

if TYPE_CHECKING:
    from benchmark.engine.training import Training


@dataclass(frozen=True)
class Measurement:
    """A hook of the training loop: it looks at a `Training` between two epochs and changes nothing."""

    columns: tuple[str, ...]
    """Of the stored table, after `epoch` and `seed`."""
    rows: Callable[[Training], list[list[Any]]]
    """`[replica, *values]`, as many as there is to tell."""
    every_epoch: bool = True
    """Otherwise only at initialisation (epoch 0, before any pre-training) and after the last epoch."""
    version: int = 1
    """Part of the key of the runs that take it: raise it when its numbers change."""

    def due(self, completed: int, epoch: int, epochs: int) -> bool:
        """Whether to measure now: `completed` counts pre-training epochs too, `epoch` does not."""
        return completed == 0 or epoch == epochs or (self.every_epoch and epoch > 0)


MEASUREMENTS: dict[str, Measurement] = {
    "jacobian": Measurement(jacobian.SPECTRUM_COLUMNS, jacobian.spectrum),
    "conditions": Measurement(jacobian.CONDITIONS_COLUMNS, jacobian.conditions, every_epoch=False),
}
"""Every measurement by the name that plans use."""
