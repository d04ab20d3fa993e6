"""Reproducibility benchmark for "Fixed-Weight Difference Target Propagation" (AAAI 2023)."""

import importlib
import os
from typing import Any

# Waiting threads of GNU OpenMP spin for milliseconds, which beside another busy process keeps those from the
# core that they wait for. Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `check_method` when it is first used: it needs torch."""
    if name == "check_method":
        return importlib.import_module("benchmark.engine.check").check_method
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
