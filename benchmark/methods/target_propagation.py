"""The parts that TP and its variants share: one iteration, learned decoders, the difference correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from benchmark.methods.base import Hyperparameter, Method, Noise, cross_entropy_gradient
from benchmark.methods.sizes import DECODER_INIT

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.methods.network import ForwardPass


class TargetPropagation(Method):
    """Targets from the output down to the first layer, then one local step for every encoder."""

    feedback = "decoders"

    lr: Hyperparameter
    stepsize: Hyperparameter
    decoder_init: float | Literal["orthogonal"] = DECODER_INIT

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        self.update_encoders(h, self.targets(h, y))
        return h[self.network.depth]

    def targets(self, h: ForwardPass, y: Tensor) -> dict[int, Tensor]:
        """tau_L by one gradient step on the cross-entropy (Eq. 5), the others by Eq. 4."""
        depth = self.network.depth
        tau = {depth: h[depth] - self.stepsize * cross_entropy_gradient(h[depth], y)}
        for l in reversed(range(1, depth)):
            tau[l] = self.propagate(l + 1, tau[l + 1], h)
        return tau

    def propagate(self, l: int, target: Tensor, h: ForwardPass) -> Tensor:
        """The extended decoder g~_l of Eq. 4: tau_{l-1} from tau_l."""
        raise NotImplementedError

    def update_encoders(self, h: ForwardPass, tau: dict[int, Tensor]) -> None:
        """One SGD step on || tau_l - f_l(h_{l-1}) ||^2 for every l (Eq. 6 without its 1 / (2 beta))."""
        for l in range(1, self.network.depth + 1):
            f = self.network.f(l)
            half_gradient = f.backward(h.trace(l), h[l] - tau[l])
            f.descend(half_gradient.mul_(2 * self.lr / h.x.shape[-1]), h[l - 1])


class LearnedDecoders(TargetPropagation):
    """Target propagation whose decoders learn: before training, and in every iteration before the targets."""

    learns_feedback = True

    lr_feedback: Hyperparameter
    noise_std: Hyperparameter
    feedback_updates: int = 5

    @classmethod
    def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
        """As released, as many epochs as there are feedback updates in an iteration."""
        return int(options["feedback_updates"])

    def pretrain_step(self, x: Tensor, noise: Noise) -> None:
        """One feedback update a minibatch, as released."""
        self.update_decoders(self.network.pass_forward(x), noise)

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        for _ in range(self.feedback_updates):
            self.update_decoders(h, noise)
        self.update_encoders(h, self.targets(h, y))
        return h[self.network.depth]

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """One SGD step on the feedback loss of every decoder, from g_L down to g_2."""
        raise NotImplementedError


class DifferenceCorrection(TargetPropagation):
    """Targets corrected by what the decoders get wrong about the activations: Equation 8."""

    def propagate(self, l: int, target: Tensor, h: ForwardPass) -> Tensor:
        """Eq. 8: tau_{l-1} = N( g_l(tau_l) + h_{l-1} - g_l(h_l) )."""
        return self.network.norm(self.network.g(l)(target) + self.difference(l, h))

    def difference(self, l: int, h: ForwardPass) -> Tensor:
        """h_{l-1} - g_l(h_l), computed again only after `g_l.descend`."""
        g = self.network.g(l)
        if l not in h.differences or h.differences[l][0] is not g.version:
            h.differences[l] = g.version, h[l - 1] - g(h[l])
        return h.differences[l][1]
