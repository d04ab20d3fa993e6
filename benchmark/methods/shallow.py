"""Shallow learning (as in Frenkel, Lefebvre, and Bol 2021): only the output layer learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.methods.base import Hyperparameter, Method, Noise, cross_entropy_gradient
from benchmark.methods.sizes import weight_count

if TYPE_CHECKING:
    from torch import Tensor


class Shallow(Method):
    """SGD on the cross-entropy of the output layer. The hidden layers keep their initial weights.

    This is a baseline: a method with a larger test error gains nothing from training its hidden layers.
    """

    name = "Shallow"

    lr: Hyperparameter

    @classmethod
    def trained_weights(cls, dims: Sequence[int]) -> int:
        return weight_count(dims[-2:])

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        depth = self.network.depth
        delta = cross_entropy_gradient(h[depth], y)
        self.network.f(depth).descend(self.lr / x.shape[-1] * delta, h[depth - 1])
        return h[depth]
