"""L-DRL, local difference reconstruction loss (Ernoult et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.methods.base import Noise
from benchmark.methods.target_propagation import DifferenceCorrection, LearnedDecoders

if TYPE_CHECKING:
    from benchmark.methods.network import ForwardPass


class LDRL(DifferenceCorrection, LearnedDecoders):
    """Corrected targets. Each decoder learns to propagate like the transposed Jacobian of its encoder."""

    name = "L-DRL"

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """- <q - h_{l-1}, q_rec - h_{l-1}> + 1/2 || r_rec - h_{l-1} ||^2, with the correction c constant:

        q = h_{l-1} + eps,  q_rec = g_l(f_l(q)) + c;    r = h_l + eps',  r_rec = g_l(r) + c.
        """
        for l in reversed(range(2, self.network.depth + 1)):
            f, g = self.network.f(l), self.network.g(l)
            c = self.difference(l, h)
            eps = self.noise_std * noise(h[l - 1])
            up = f(h[l - 1] + eps)
            r = h[l] + self.noise_std * noise(h[l])
            q_trace, r_trace = g.trace(up), g.trace(r)
            rate = self.lr_feedback / r.shape[-1]
            q_gradient = g.backward(q_trace, -eps)
            r_gradient = g.backward(r_trace, r_trace.output + c - h[l - 1])
            g.descend(q_gradient.mul_(rate), up)
            g.descend(r_gradient.mul_(rate), r)
