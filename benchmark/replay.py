"""Replays a trace of the authors' released code through the step functions that training calls.

A trace (`.npz`, samples as rows) holds minibatches, initial weights, hyperparameters, the noise that was
drawn, and what the released code computed from them. Its file name says the method: `dtp_bn.npz`,
`dtp_bn-wide.npz`, ...
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import UserError
from benchmark.methods import METHODS, Method, Noise
from benchmark.methods.target_propagation import TargetPropagation
from benchmark.network import ForwardPass, Network

QUANTITIES = ("W", "B", "tau", "logits")

TRACED: dict[str, tuple[str, dict[str, Any]]] = {
    "bp": ("BP", {"as_released": True}),
    "fa": ("FA", {"as_released": True}),
    "tp": ("TP", {}),
    "dtp": ("DTP", {"batch_norm": False}),
    "dtp_bn": ("DTP", {"batch_norm": True}),
    "drl": ("DRL", {}),
    "l_drl": ("L-DRL", {}),
    "fw_dtp": ("FW-DTP", {"batch_norm": False}),
    "fw_dtp_bn": ("FW-DTP", {"batch_norm": True}),
}
"""File name stem -> method and its options."""


@dataclass
class Deviation:
    """The largest absolute difference from the released code, over all steps and layers."""

    file: Path
    method: str
    steps: int
    largest: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(QUANTITIES))
    """None for a quantity that the method does not have."""

    def record(self, quantity: str, ours: Tensor, released: np.ndarray, where: str) -> None:
        """Compare one replica's `ours` (features, n) or (out, in) with the trace's array."""
        if ours.shape != released.shape:
            raise UserError(
                f"{self.file}: {where}: shape {released.shape} found, {tuple(ours.shape)} expected"
            )
        difference = float((ours - torch.from_numpy(released).to(ours)).abs().max())
        # NaN compares false with everything, so it must not pass as small.
        seen = self.largest[quantity] or 0.0
        self.largest[quantity] = max(seen, float("inf") if np.isnan(difference) else difference)

    def exceeds(self, tolerance: float) -> bool:
        """Whether anything differs by more than `tolerance`."""
        return any(value is not None and value > tolerance for value in self.largest.values())


class _TraceFile:
    """Named access to the arrays, with errors that name file and array."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with np.load(file, allow_pickle=False) as arrays:
                self.arrays = dict(arrays)
        except FileNotFoundError:
            raise UserError(f"{file}: no such file") from None
        except (OSError, ValueError, zipfile.BadZipFile, AttributeError, TypeError):
            raise UserError(f"{file}: not a readable .npz archive") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UserError(f"{self.file}: the trace has no array {name!r}")
        return self.arrays[name]

    def weights(self, letter: str, layers: range) -> list[Tensor]:
        return [torch.from_numpy(self[f"{letter}{layer}"]).clone()[None] for layer in layers]


def _traced_method(file: Path) -> tuple[type[Method], dict[str, Any]]:
    for stem in sorted(TRACED, key=len, reverse=True):
        if re.fullmatch(rf"{stem}([-_.].*)?", file.stem.lower().replace("-", "_")):
            name, options = TRACED[stem]
            return METHODS[name], options
    raise UserError(f"{file}: the file name must begin with one of {', '.join(TRACED)}")


def replay(file: Path, device: torch.device | str = "cpu") -> Deviation:
    """Run one trace through the production code; raises `UserError` for a file that is not a trace."""
    method_class, options = _traced_method(file)
    trace = _TraceFile(file)
    dims = [int(width) for width in trace["dims"]]
    depth = len(dims) - 1
    if "feedback_updates" in method_class.options:
        options = {**options, "feedback_updates": int(trace["feedback_updates"])}
    options = {**method_class.options, **options}
    network = Network(
        trace.weights("W", range(depth)),
        [] if method_class.feedback == "none" else trace.weights("B", range(1, depth)),
        feedback=method_class.feedback,
        **method_class.network_flags(options),
    ).to(device)
    hyperparameters = {
        name: torch.full((1, 1, 1), float(trace[name]), device=device)
        for name in method_class.hyperparameters
    }
    method = method_class(network, hyperparameters, options)
    steps = len(trace["x"])
    deviation = Deviation(file, method_class.name, steps)
    for step in range(steps):
        _replay_step(method, trace, step, deviation, device)
    return deviation


def _replay_step(
    method: Method, trace: _TraceFile, step: int, deviation: Deviation, device: torch.device | str
) -> None:
    network, depth = method.network, method.network.depth
    x = torch.from_numpy(trace["x"][step]).to(device).T[None]
    labels = torch.from_numpy(trace["y"][step]).to(device)
    y = torch.eye(network.dims[-1], device=device)[labels].T[None]
    drawn = _drawn_noise(trace, step)
    updates = itertools.count()

    def noise(like: Tensor) -> Tensor:
        injected = next(drawn, None)
        if injected is None:
            raise UserError(f"{trace.file}: step {step} has less noise than its feedback updates draw")
        return torch.from_numpy(injected).to(like.device).T[None]

    def checked_update(h: ForwardPass, noise: Noise) -> None:
        update_decoders(h, noise)
        update = next(updates)
        for layer in range(2, depth + 1):
            name = f"s{step}_u{update}_B{layer - 1}"
            deviation.record("B", network.g(layer).weight[0], trace[name], name)

    def checked_targets(h: ForwardPass, y: Tensor) -> dict[int, Tensor]:
        tau = targets(h, y)
        for layer in range(1, depth + 1):
            name = f"s{step}_tau{layer}"
            deviation.record("tau", tau[layer][0].T, trace[name], name)
        return tau

    # The method's own step functions, each with a comparison behind it.
    if isinstance(method, TargetPropagation):
        update_decoders, targets = method.update_decoders, method.targets
        with (
            mock.patch.object(method, "update_decoders", checked_update),
            mock.patch.object(method, "targets", checked_targets),
        ):
            method.train_step(x, y, noise)
    else:
        method.train_step(x, y, noise)
    for layer in range(1, depth + 1):
        name = f"s{step}_W{layer - 1}"
        deviation.record("W", network.f(layer).weight[0], trace[name], name)
    name = f"s{step}_logits"
    deviation.record("logits", network(x)[0].T, trace[name], name)


def _drawn_noise(trace: _TraceFile, step: int) -> Iterator[np.ndarray]:
    """The noise of one step in the order in which it was drawn."""
    for update in itertools.count():
        if f"s{step}_u{update}_noise0" not in trace.arrays:
            return
        for number in itertools.count():
            name = f"s{step}_u{update}_noise{number}"
            if name not in trace.arrays:
                break
            yield trace[name]
