"""TP, target propagation (Bengio 2014): section "Overview", Equations 4-7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.methods.base import Noise
from benchmark.methods.target_propagation import LearnedDecoders

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.methods.network import ForwardPass


class TP(LearnedDecoders):
    """Targets are sent through the decoders as they are. The decoders learn to reconstruct."""

    name = "TP"

    def propagate(self, l: int, target: Tensor, h: ForwardPass) -> Tensor:
        """tau_{l-1} = g_l(tau_l)."""
        return self.network.g(l)(target)

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """Reconstruction loss || g_l(f_l(q)) - q ||^2, q = h_{l-1} + eps (Eq. 7 without its 1/2)."""
        for l in reversed(range(2, self.network.depth + 1)):
            f, g = self.network.f(l), self.network.g(l)
            q = h[l - 1] + self.noise_std * noise(h[l - 1])
            up = f(q)
            reconstruction = g.trace(up)
            half_gradient = g.backward(reconstruction, reconstruction.output - q)
            g.descend(half_gradient.mul_(2 * self.lr_feedback / q.shape[-1]), up)
