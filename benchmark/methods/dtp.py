"""DTP, difference target propagation (Lee et al. 2015): Equation 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from benchmark.methods.network import ForwardPass, norm, weight_count
from benchmark.methods.tp import TP


class DTP(TP):
    """TP whose targets are corrected by what the decoders get wrong about the activations."""

    name = "DTP"
    options: ClassVar[Mapping[str, Any]] = {**TP.options, "batch_norm": False}

    batch_norm: bool

    @classmethod
    def feedback_multiply_adds(cls, dims: Sequence[int], updates: int) -> int:
        """TP's, and g_l(h_l) for every correction."""
        return super().feedback_multiply_adds(dims, updates) + weight_count(dims[1:])

    def propagate(self, l: int, target: Tensor, h: ForwardPass) -> Tensor:
        """Eq. 8: tau_{l-1} = N( g_l(tau_l) + h_{l-1} - g_l(h_l) )."""
        tau = self.network.g(l)(target) + self.difference(l, h)
        return norm(tau) if self.batch_norm else tau

    def difference(self, l: int, h: ForwardPass) -> Tensor:
        """h_{l-1} - g_l(h_l), computed once: who changes g_l after that deletes `h.differences[l]`."""
        if l not in h.differences:
            h.differences[l] = h[l - 1] - self.network.g(l)(h[l])
        return h.differences[l]
