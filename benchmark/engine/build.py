"""Build a learning rule on new networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from benchmark.methods import Method, seeding
from benchmark.methods.network import Network, initial_weights, meta_weights


def build(
    method: type[Method],
    dims: Sequence[int],
    seeds: Sequence[int],
    hyperparameters: Mapping[str, float | Sequence[float]],
    options: Mapping[str, Any] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Method:
    """Build a rule on new networks of widths `dims`, with one replica for each entry of `seeds`.

    A hyperparameter is one number for all replicas or a sequence with one for each. On the device `meta`
    nothing is drawn: the tensors have shapes only.
    """
    options = {**method.options, **(options or {})}
    device = torch.device(device)
    extra = {"decoder_init": options["decoder_init"]} if "decoder_init" in options else {}
    if device.type == "meta":
        encoders, feedback = meta_weights(dims, len(seeds), feedback=method.feedback)
    else:
        encoders, feedback = initial_weights(dims, seeds, feedback=method.feedback, dtype=dtype, **extra)
    flags = method.network_flags(options)
    network = Network(encoders, feedback, feedback=method.feedback, **flags).to(device)
    values = {
        name: torch.as_tensor(value, dtype=dtype, device=device).expand(len(seeds)).clone().reshape(-1, 1, 1)
        for name, value in hyperparameters.items()
    }
    built = method(network, values, options)
    state = {name: tensor.to(device) for name, tensor in initial_state(method, dims, seeds, options).items()}
    built.state = MappingProxyType({n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()})
    return built


def initial_state(
    method: type[Method], dims: Sequence[int], seeds: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The state of all replicas, (R, ...), drawn on the CPU so that every device starts alike."""
    states = {
        seed: method.initial_state(dims, options, seeding.generator(seed, "state")) for seed in set(seeds)
    }
    return {name: torch.stack([states[seed][name].detach() for seed in seeds]) for name in states[seeds[0]]}


def state_count(method: type[Method], dims: Sequence[int]) -> int:
    """Number of numbers in one replica's state, with the default options."""
    return sum(tensor.numel() for tensor in initial_state(method, dims, [1], method.options).values())
