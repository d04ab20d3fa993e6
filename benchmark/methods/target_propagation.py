"""The iteration that TP and its variants share; a variant says what it does differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from benchmark.methods.base import Method, Noise, cross_entropy_gradient
from benchmark.methods.network import DECODER_INIT, ForwardPass, weight_count


class TargetPropagation(Method):
    """Feedback updates, then targets from the output down, then one local step an encoder."""

    hyperparameters: ClassVar[tuple[str, ...]] = ("lr", "stepsize", "lr_feedback", "noise_std")
    options: ClassVar[Mapping[str, Any]] = {
        "feedback_updates": 5,
        "decoder_init": DECODER_INIT,
    }
    feedback = "decoders"
    learns_feedback = True

    lr: Tensor
    stepsize: Tensor
    lr_feedback: Tensor
    noise_std: Tensor
    feedback_updates: int

    @classmethod
    def pretraining_epochs(cls, options: Mapping[str, Any]) -> int:
        return options["feedback_updates"] if cls.learns_feedback else 0

    @classmethod
    def multiply_adds(cls, dims: Sequence[int], options: Mapping[str, Any]) -> int:
        """Activations and weight gradients of every layer; targets and feedback of all but the first."""
        updates = options["feedback_updates"] if cls.learns_feedback else 0
        feedback = cls.feedback_multiply_adds(dims, updates)
        return 2 * weight_count(dims) + weight_count(dims[1:]) + feedback

    @classmethod
    def feedback_multiply_adds(cls, dims: Sequence[int], updates: int) -> int:
        """Those of `updates` feedback updates and of the corrections of the targets."""
        raise NotImplementedError

    def pretrain_step(self, x: Tensor, noise: Noise) -> None:
        """One feedback update a minibatch, as released."""
        self.update_decoders(self.network.pass_forward(x), noise)

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        h = self.network.pass_forward(x)
        if self.learns_feedback:
            for _ in range(self.feedback_updates):
                self.update_decoders(h, noise)
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

    def update_decoders(self, h: ForwardPass, noise: Noise) -> None:
        """One SGD step on the feedback loss of every decoder, from g_L down to g_2."""
        raise NotImplementedError
