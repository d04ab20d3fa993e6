"""DRL, difference reconstruction loss (Meulemans et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.methods.base import Noise
from benchmark.methods.target_propagation import DifferenceCorrection, LearnedDecoders

if TYPE_CHECKING:
    from benchmark.methods.network import ForwardPass


class DRL(DifferenceCorrection, LearnedDecoders):
    """Corrected targets. The decoders learn to bring a disturbance back from the *output* layer.

    `as_released` reproduces the authors' code. Its loss compares what comes back with the activation
    *without* the disturbance, so that decoders learn to let nothing of it through. Otherwise the loss is
    the reconstruction term of Meulemans et al. (fidelity note 16).
    """

    name = "DRL"

    as_released: bool = True

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """|| d - q ||^2, where d = h_{l-1} + eps, and q is d sent up to the output and down again.

        The way down uses the corrected decoders, those above l already updated in this sweep. As released,
        the loss is || h_{l-1} - q ||^2.
        """
        f, g, depth = self.network.f, self.network.g, self.network.depth
        for l in reversed(range(2, depth + 1)):
            disturbed = q = h[l - 1] + self.noise_std * noise(h[l - 1])
            for m in range(l, depth + 1):
                q = f(m)(q)
            for m in reversed(range(l + 1, depth + 1)):
                q = g(m)(q) + self.difference(m, h)
            down = g(l).trace(q)
            wanted = h[l - 1] if self.as_released else disturbed
            error = down.output + self.difference(l, h) - wanted
            half_gradient = g(l).backward(down, error)
            g(l).descend(half_gradient.mul_(2 * self.lr_feedback / q.shape[-1]), q)
