"""DRL, difference reconstruction loss (Meulemans et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from benchmark.methods.base import Noise
from benchmark.methods.dtp import DTP
from benchmark.methods.network import ForwardPass, weight_count


class DRL(DTP):
    """DTP whose decoders learn to bring a disturbance back from the *output* layer.

    `as_released` reproduces the authors' code, whose loss compares what comes back with the activation
    *without* the disturbance: decoders learn to let nothing of it through. Otherwise the loss is the
    reconstruction term of Meulemans et al. (fidelity note 16).
    """

    name = "DRL"
    options: ClassVar[Mapping[str, Any]] = {
        **{name: value for name, value in DTP.options.items() if name != "batch_norm"},
        "as_released": True,
    }
    batch_norm = False

    as_released: bool

    @classmethod
    def feedback_multiply_adds(cls, dims: Sequence[int], updates: int) -> int:
        """An update of B_l: l..L up, L..l down, the weight gradient; corrections once more than updates."""
        sweeps = sum(2 * weight_count(dims[l - 1 :]) for l in range(2, len(dims)))
        return updates * sweeps + (2 * updates + 1) * weight_count(dims[1:])

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """|| d - q ||^2, where d = h_{l-1} + eps, and q is d sent up to the output and down again.

        Down through the corrected decoders, those above l already updated in this sweep. As released,
        || h_{l-1} - q ||^2.
        """
        f, g, depth = self.network.f, self.network.g, self.network.depth
        for l in reversed(range(2, depth + 1)):
            disturbed = q = h[l - 1] + noise(h[l - 1])
            for m in range(l, depth + 1):
                q = f(m)(q)
            for m in reversed(range(l + 1, depth + 1)):
                q = g(m)(q) + self.difference(m, h)
            down = g(l).trace(q)
            wanted = h[l - 1] if self.as_released else disturbed
            error = down.output + self.difference(l, h) - wanted
            half_gradient = g(l).backward(down, error)
            g(l).descend(half_gradient.mul_(2 * self.lr_feedback / q.shape[-1]), q)
            del h.differences[l]
