"""BP, error backpropagation (Rumelhart, Hinton, and Williams 1986)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.methods.base import Hyperparameter, Method, Noise, cross_entropy_gradient

if TYPE_CHECKING:
    from torch import Tensor


class BP(Method):
    """Plain SGD on the cross-entropy.

    `as_released` reproduces the authors' code. Its weight gradient is the outer product of the error with
    the *preactivation* of the layer below instead of the activation.
    """

    name = "BP"

    lr: Hyperparameter
    as_released: bool = False

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        depth = self.network.depth
        error = cross_entropy_gradient(h[depth], y)
        for l in reversed(range(1, depth + 1)):
            f = self.network.f(l)
            delta = f.backward(h.trace(l), error)
            if l > 1:
                error = self.backward_weight(l).transpose(1, 2) @ delta
            below = h.trace(l - 1).preactivation if self.as_released and l > 1 else h[l - 1]
            f.descend(self.lr / x.shape[-1] * delta, below)
        return h[depth]

    def backward_weight(self, l: int) -> Tensor:
        """The matrix (R, out, in) whose transpose carries the error from layer l to layer l - 1."""
        return self.network.f(l).weight
