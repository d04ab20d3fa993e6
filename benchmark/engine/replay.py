"""Replays a trace of the authors' released code through the step functions that training calls.

A trace (`.npz`, samples as rows) holds minibatches, initial weights, hyperparameters, the noise that was
drawn, and what the released code computed from them. Its file name says the method: `dtp_bn.npz`,
`dtp_bn-wide.npz`, ...
"""

from __future__ import annotations

import itertools
import re
import zipfile
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmark.common.errors import UserError
from benchmark.engine.execution import Compiled, CompiledStep, Graphs, OnTensors, Step, on_tensors
from benchmark.engine.settings import Execution
from benchmark.methods import METHODS, Method, Noise
from benchmark.methods.network import ForwardPass, Network
from benchmark.methods.target_propagation import LearnedDecoders, TargetPropagation

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

    def record(self, quantity: str, ours: Tensor, released: np.ndarray) -> None:
        """Compare one replica's `ours`, (n, features) or (out, in), with the trace's array."""
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
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError):
            raise UserError(f"{file}: not a readable .npz archive") from None

    def array(self, name: str, *shape: int) -> np.ndarray:
        """A numeric array of the given shape."""
        if name not in self.arrays:
            raise UserError(f"{self.file}: the trace has no array {name!r}")
        found = self.arrays[name]
        if found.shape != shape or found.dtype.kind not in "fiu":
            raise UserError(
                f"{self.file}: {name}: {found.dtype} of shape {found.shape} found, "
                f"numbers of shape {shape} expected"
            )
        return found

    def weight(self, name: str, *shape: int) -> Tensor:
        """A weight as one replica, (1, out, in)."""
        return torch.from_numpy(self.array(name, *shape)).float().clone()[None]

    def noise(self, name: str, like: Tensor) -> Tensor:
        """An injected eps of the shape of `like`, (1, features, n)."""
        _, features, n = like.shape
        return torch.from_numpy(self.array(name, n, features)).to(like).T[None]

    def widths(self) -> list[int]:
        """`dims`: input, hidden..., classes."""
        dims = self.arrays.get("dims", np.empty(0))
        if dims.ndim != 1 or len(dims) < 2 or dims.dtype.kind not in "iu" or (dims < 1).any():
            raise UserError(f"{self.file}: dims: the widths of at least two layers expected")
        return [int(width) for width in dims]

    def minibatches(self, dims: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """`x` (steps, n, inputs) and the class numbers `y` (steps, n)."""
        shape = self.arrays.get("x", np.empty(0)).shape
        if len(shape) != 3 or 0 in shape:
            raise UserError(f"{self.file}: x: shape {shape} found, (steps, n, {dims[0]}) expected")
        x, y = self.array("x", *shape[:2], dims[0]), self.array("y", *shape[:2])
        if y.dtype.kind == "f" or y.min() < 0 or y.max() >= dims[-1]:
            raise UserError(f"{self.file}: y: whole numbers from 0 to {dims[-1] - 1} expected")
        return x, y.astype(np.int64)


def _traced_method(file: Path) -> tuple[type[Method], dict[str, Any]]:
    for stem in sorted(TRACED, key=len, reverse=True):
        if re.fullmatch(rf"{stem}([-_.].*)?", file.stem.lower().replace("-", "_")):
            name, options = TRACED[stem]
            return METHODS[name], options
    raise UserError(f"{file}: the file name must begin with one of {', '.join(TRACED)}")


def replay(
    file: Path, device: torch.device | str = "cpu", *, execution: Execution = Execution.EAGER
) -> Deviation:
    """Run one trace through the production code; raises `UserError` for a file that is not a trace.

    A compiled or graphed iteration shows nothing from within: targets, and decoders before the
    iteration's last feedback update, are then not compared.
    """
    trace = _TraceFile(file)
    method_class, options = _traced_method(file)
    dims = trace.widths()
    depth = len(dims) - 1
    if "feedback_updates" in method_class.options:
        options = {**options, "feedback_updates": int(trace.array("feedback_updates"))}
    options = {**method_class.options, **options}
    encoders = [trace.weight(f"W{i}", dims[i + 1], dims[i]) for i in range(depth)]
    feedback = []
    for i in range(1, depth) if method_class.feedback != "none" else ():
        shape = (dims[i], dims[i + 1])
        feedback.append(
            trace.weight(f"B{i}", *(shape if method_class.feedback == "decoders" else shape[::-1]))
        )
    network = Network(
        encoders,
        feedback,
        feedback=method_class.feedback,
        **method_class.network_flags(options),
    ).to(device)
    hyperparameters = {
        name: torch.full((1, 1, 1), float(trace.array(name)), device=device)
        for name in method_class.hyperparameters
    }
    if "noise_std" in hyperparameters:  # the noise of a trace is scaled already
        hyperparameters["noise_std"].fill_(1)
    method = method_class(network, hyperparameters, options)
    samples, classes = trace.minibatches(dims)
    deviation = Deviation(file, method_class.name, len(samples))
    one_hot = torch.eye(dims[-1], device=device)
    train_step: Step | None = None
    if execution is Execution.COMPILED:
        train_step = CompiledStep(method, Compiled(torch.device(device), torch.get_num_threads()))
    if execution is Execution.GRAPHED:
        train_step = CompiledStep(method, _graphed())
    for step in range(len(samples)):
        x = torch.from_numpy(samples[step]).float().to(device).T[None]
        y = one_hot[torch.from_numpy(classes[step]).to(device)].T[None]
        if train_step is not None:
            _replay_whole_step(method, train_step, trace, step, x, y, deviation)
        else:
            _replay_step(method, trace, step, x, y, deviation)
    return deviation


def _graphed() -> OnTensors:
    graphs = Graphs()

    def launch(method: Method, *tensors: Tensor) -> Tensor:
        def iteration(*given: Tensor) -> Tensor:
            return on_tensors(method, *given)

        return graphs(iteration, *tensors)

    return launch


def _replay_whole_step(
    method: Method,
    train_step: Step,
    trace: _TraceFile,
    step: int,
    x: Tensor,
    y: Tensor,
    deviation: Deviation,
) -> None:
    updates = method.feedback_updates if isinstance(method, LearnedDecoders) else 0
    prefixes = [f"s{step}_u{update}_noise" for update in range(updates)]
    drawn = (
        f"{prefix}{i}"
        for prefix in prefixes
        for i in range(sum(name.startswith(prefix) for name in trace.arrays))
    )
    train_step(x, y, lambda like: trace.noise(next(drawn), like))
    for l in range(2, method.network.depth + 1) if updates else ():
        name = f"s{step}_u{updates - 1}_B{l - 1}"
        weight = method.network.g(l).weight[0]
        deviation.record("B", weight, trace.array(name, *weight.shape))
    _compare_end(method, trace, step, x, deviation)


def _compare_end(method: Method, trace: _TraceFile, step: int, x: Tensor, deviation: Deviation) -> None:
    """Encoders after the iteration, and what they answer."""
    for l in range(1, method.network.depth + 1):
        weight = method.network.f(l).weight[0]
        deviation.record("W", weight, trace.array(f"s{step}_W{l - 1}", *weight.shape))
    logits = method.network(x)[0].T
    deviation.record("logits", logits, trace.array(f"s{step}_logits", *logits.shape))


def _replay_step(
    method: Method, trace: _TraceFile, step: int, x: Tensor, y: Tensor, deviation: Deviation
) -> None:
    network = method.network
    update, drawn = -1, itertools.count()

    def noise(like: Tensor) -> Tensor:
        return trace.noise(f"s{step}_u{update}_noise{next(drawn)}", like)

    def compare(quantity: str, ours: Tensor, name: str) -> None:
        deviation.record(quantity, ours, trace.array(name, *ours.shape))

    def checked_update(h: ForwardPass, noise: Noise) -> None:
        nonlocal update, drawn
        update, drawn = update + 1, itertools.count()
        update_decoders(h, noise)
        for l in range(2, network.depth + 1):
            compare("B", network.g(l).weight[0], f"s{step}_u{update}_B{l - 1}")

    def checked_targets(h: ForwardPass, y: Tensor) -> dict[int, Tensor]:
        tau = targets(h, y)
        for l in range(1, network.depth + 1):
            compare("tau", tau[l][0].T, f"s{step}_tau{l}")
        return tau

    # The method's own step functions, each with a comparison behind it.
    with ExitStack() as patched:
        if isinstance(method, TargetPropagation):
            targets = method.targets
            patched.enter_context(mock.patch.object(method, "targets", checked_targets))
        if isinstance(method, LearnedDecoders):
            update_decoders = method.update_decoders
            patched.enter_context(mock.patch.object(method, "update_decoders", checked_update))
        method.train_step(x, y, noise)
    _compare_end(method, trace, step, x, deviation)
