"""How exactly a GPU computes float32 matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch

from benchmark.common.errors import UserError


class Precision(StrEnum):
    """Part of the protocol, and so of every run's key."""

    HIGHEST = "highest"  # float32 throughout
    TF32 = "tf32"  # factors rounded to ten bits, for NVIDIA's tensor cores


def check(precision: Precision, device: torch.device) -> None:
    """`UserError` where the device does not compute so."""
    if precision is Precision.TF32 and device.type != "cuda":
        raise UserError(f"--precision: tf32 found, which needs a CUDA device, not {device}")


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Matrix products within are of this precision; see `check`."""
    check(precision, device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision is Precision.TF32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
