"""L-DRL, local difference reconstruction loss (Ernoult et al. 2022)."""

from collections.abc import Sequence

from benchmark.methods.base import Noise
from benchmark.methods.dtp import DTP
from benchmark.methods.network import ForwardPass, weight_count


class LDRL(DTP):
    """DTP whose decoders learn, layer by layer, to propagate like the encoders' transposed Jacobians."""

    name = "L-DRL"
    options = {name: value for name, value in DTP.options.items() if name != "batch_norm"}
    batch_norm = False

    @classmethod
    def feedback_multiply_adds(cls, dims: Sequence[int], updates: int) -> int:
        """An update of B_l: f_l(q), g_l of it and of r, two weight gradients; corrections as in DRL."""
        return (6 * updates + 1) * weight_count(dims[1:])

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """- <q - h_{l-1}, q_rec - h_{l-1}> + 1/2 || r_rec - h_{l-1} ||^2, with the correction c constant:

        q = h_{l-1} + eps,  q_rec = g_l(f_l(q)) + c;    r = h_l + eps',  r_rec = g_l(r) + c.
        """
        for l in reversed(range(2, self.network.depth + 1)):
            f, g = self.network.f(l), self.network.g(l)
            c = self.difference(l, h)
            eps = noise(h[l - 1])
            up = f(h[l - 1] + eps)
            r = h[l] + noise(h[l])
            q_trace, r_trace = g.trace(up), g.trace(r)
            rate = self.lr_feedback / r.shape[-1]
            q_gradient = g.backward(q_trace, -eps)
            r_gradient = g.backward(r_trace, r_trace.output + c - h[l - 1])
            g.descend(q_gradient.mul_(rate), up)
            g.descend(r_gradient.mul_(rate), r)
            del h.differences[l]
