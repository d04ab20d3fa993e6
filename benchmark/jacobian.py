"""Jacobians of encoders and decoders: the measurements behind Figure 2 and Table 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.training import Training

SPECTRUM_COLUMNS = ("encoder", "trace", "nonnegative", "nonnegative_symmetric")
CONDITIONS_COLUMNS = ("encoder", "quantity", "value")


def spectrum(training: Training) -> list[list[Any]]:
    """tr(J_f J_g) and the share of its eigenvalues with positive real part, per replica and encoder."""
    raise NotImplementedError


def conditions(training: Training) -> list[list[Any]]:
    """How far each condition of Table 1 holds, per replica and encoder."""
    raise NotImplementedError
