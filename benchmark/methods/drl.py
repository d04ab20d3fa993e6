"""DRL, difference reconstruction loss (Meulemans et al. 2020)."""

from benchmark.methods.base import Noise
from benchmark.methods.dtp import DTP
from benchmark.network import ForwardPass


class DRL(DTP):
    """DTP whose decoders learn to bring a disturbance back from the *output* layer."""

    name = "DRL"
    options = {name: value for name, value in DTP.options.items() if name != "batch_norm"}
    batch_norm = False

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """|| h_{l-1} - q ||^2, where q = h_{l-1} + eps goes up to the output and down again.

        Down through the corrected decoders, those above l already updated in this sweep.
        """
        f, g, depth = self.network.f, self.network.g, self.network.depth
        for l in reversed(range(2, depth + 1)):
            q = h[l - 1] + noise(h[l - 1])
            for m in range(l, depth + 1):
                q = f(m)(q)
            for m in reversed(range(l + 1, depth + 1)):
                q = g(m)(q) + self.difference(m, h)
            down = g(l).trace(q)
            error = down.output + self.difference(l, h) - h[l - 1]
            half_gradient = g(l).backward(down, error)
            g(l).descend(2 * self.lr_feedback / q.shape[-1] * half_gradient, q)
            del h.differences[l]
