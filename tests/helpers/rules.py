"""A learning rule with a state, and its training on random data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.engine.build import build
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import Training
from benchmark.methods import Hyperparameter, Method, Noise
from benchmark.methods.base import cross_entropy_gradient

DIMS = [10, 8, 7, 4]


class DirectFeedback(Method):
    """Direct feedback alignment (Nokland 2016) with momentum: one state is drawn once, the other changes."""

    name = "DFA with momentum"

    lr: Hyperparameter
    momentum: Hyperparameter

    @classmethod
    def initial_state(
        cls, dims: Sequence[int], options: Mapping[str, Any], draw: torch.Generator
    ) -> dict[str, Tensor]:
        hidden = range(1, len(dims) - 1)
        feedback = {f"B{l}": torch.randn(dims[l], dims[-1], generator=draw) for l in hidden}
        return feedback | {f"velocity{l}": torch.zeros(dims[l], dims[l - 1]) for l in range(1, len(dims))}

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        depth = self.network.depth
        error = cross_entropy_gradient(h[depth], y)
        for l in range(1, depth + 1):
            f = self.network.f(l)
            delta = f.backward(h.trace(l), error if l == depth else self.state[f"B{l}"] @ error)
            velocity = self.state[f"velocity{l}"]
            velocity.mul_(self.momentum).add_(f.gradient(delta, h[l - 1]) / x.shape[-1])
            f.weight.sub_(self.lr * velocity)
        return h[depth]


def training(
    seeds: list[int],
    execution: Execution = Execution.EAGER,
    rule: type[Method] = DirectFeedback,
    dtype: torch.dtype = torch.float32,
) -> Training:
    device = torch.device("cuda" if execution is Execution.GRAPHED else "cpu")
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, DIMS[0], generator=draw), torch.randint(DIMS[-1], (96,), generator=draw)
    data = Split(x.to(device, dtype), y.to(device))
    values = {"lr": 0.05, "momentum": 0.9, "stepsize": 0.04}
    rates = {name: values[name] for name in rule.hyperparameters}
    method = build(rule, DIMS, seeds, rates, device=device, dtype=dtype)
    return Training(method, seeds, data, data, batch_size=32, execution=execution)
