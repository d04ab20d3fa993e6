"""FA, feedback alignment (Lillicrap et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.methods.bp import BP

if TYPE_CHECKING:
    from torch import Tensor


class FA(BP):
    """BP whose error travels through fixed random matrices M_l instead of W_l."""

    name = "FA"
    feedback = "alignment"

    def backward_weight(self, l: int) -> Tensor:
        """M_l, drawn once from Normal(mean(W_l), std(W_l))."""
        return self.network.g(l).weight
