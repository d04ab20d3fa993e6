"""The multiply-adds that the matrix products of a training step need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, baddbmm_flop

from benchmark.engine.build import build
from benchmark.methods import Method

_SAMPLES = 2


def _in_place(*shapes: Any, out_shape: Any = None, **more: Any) -> int:
    """The count of `baddbmm_`, which torch counts only out of place."""
    return int(baddbmm_flop(*shapes))


def multiply_adds(method: type[Method], dims: Sequence[int], options: Mapping[str, Any]) -> int | None:
    """Count the multiply-adds of one `train_step`, per sample and replica.

    Counted on the device `meta`, where nothing is computed. None for a rule that needs real numbers there.
    """
    return _counted(method, tuple(dims), tuple(sorted(options.items())))  # type: ignore[arg-type]


@cache
def _counted(method: type[Method], dims: tuple[int, ...], options: tuple[tuple[str, Any], ...]) -> int | None:
    x, y = (torch.empty(1, width, _SAMPLES, device="meta") for width in (dims[0], dims[-1]))
    rates = dict.fromkeys(method.hyperparameters, 1.0)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: _in_place})
    try:
        rule = build(method, dims, [1], rates, dict(options), device="meta")
        with counter:
            rule.train_step(x, y, torch.empty_like)
    except RuntimeError:
        return None
    return counter.get_total_flops() // (2 * _SAMPLES)
