"""A plain eager baseline: one seed of DTP or FW-DTP at a time, by the released code's procedure.

Written for this benchmark, with autograd and without the replica axis, to measure what the latter gains.
As in the released code,
- the forward pass is computed anew for every feedback update, for the targets and for the forward updates;
- its graph is kept through all layers: the gradient of the cross-entropy is taken all the way down for the
  sake of the output layer's target, and the gradient of every local loss all the way down from its layer;
- the difference correction of a target computes h_{l+1} = f_{l+1}(h_l) again;
- a feedback loss is differentiated with respect to the encoder's weights, too.
The released encoders also multiply their input with an identity matrix, which is optional here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.methods import Method, Noise
from benchmark.methods.dtp import DTP
from benchmark.methods.fw_dtp import FWDTP


class Baseline(Method):
    """Trains the single network of `learner`, DTP or FW-DTP, whose own weights stay as they are.

    Activations are (features, n), one sample a column; `W[l]` and `B[l]` are the weights of f_l and g_l.
    """

    def __init__(self, learner: DTP | FWDTP, *, identities: bool = False) -> None:
        network = learner.network
        self.network = network
        self.depth = network.depth
        self.pretraining = 0  # of the iteration of training proper alone
        self.batch_norm, self.output_norm = learner.batch_norm, learner.normalises_output
        learns = learner.learns_feedback
        self.feedback_updates = learner.feedback_updates if isinstance(learner, DTP) else 0
        self.lr, self.stepsize = learner.lr.item(), learner.stepsize.item()
        if isinstance(learner, DTP):
            self.lr_feedback, self.noise_std = learner.lr_feedback.item(), learner.noise_std.item()
        layers = range(1, self.depth + 1)
        self.W = {l: network.f(l).weight[0].clone().requires_grad_() for l in layers}
        self.B = {l: network.g(l).weight[0].clone().requires_grad_(learns) for l in layers[1:]}
        self.identities = {l: torch.eye(w.shape[1]).to(w) for l, w in self.W.items()} if identities else {}

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        for _ in range(self.feedback_updates):
            self.update_decoders(x[0], noise)
        h, tau = self.targets(x[0], y[0])
        self.update_encoders(x[0], tau)
        return h[self.depth].detach()[None]

    def f(self, l: int, h: Tensor) -> Tensor:
        """Encoder f_l, (out, n)."""
        if l in self.identities:
            h = self.identities[l] @ h
        last = l == self.depth
        a = self.W[l] @ h if last else torch.tanh(self.W[l] @ h)
        return _norm(a) if self.batch_norm and (self.output_norm or not last) else a

    def g(self, l: int, t: Tensor) -> Tensor:
        """Decoder g_l, (in, n)."""
        a = torch.tanh(self.B[l] @ t)
        return _norm(a) if self.batch_norm else a

    def forward(self, x: Tensor) -> list[Tensor]:
        """h_0..h_L, each in the graph of those below."""
        h = [x]
        for l in range(1, self.depth + 1):
            h.append(self.f(l, h[-1]))
        return h

    def update_decoders(self, x: Tensor, noise: Noise) -> None:
        """One step on DTP's reconstruction loss for every decoder, from g_L down to g_2."""
        h = self.forward(x)
        for l in reversed(range(2, self.depth + 1)):
            below = h[l - 1].detach()
            q = below + self.noise_std * noise(below[None])[0]
            loss = functional.mse_loss(self.g(l, self.f(l, q)), q, reduction="sum")
            self.B[l] = _step(self.B[l], loss, self.lr_feedback / x.shape[1])

    def targets(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], dict[int, Tensor]]:
        """h_0..h_L, and tau_L by the gradient of the cross-entropy, the others by Eq. 8."""
        h = self.forward(x)
        h[-1].retain_grad()
        torch.autograd.backward(functional.cross_entropy(h[-1].T, y.T, reduction="sum"))
        assert h[-1].grad is not None
        with torch.no_grad():
            tau = {self.depth: h[-1] - self.stepsize * h[-1].grad}
            for l in reversed(range(2, self.depth + 1)):
                difference = h[l - 1] - self.g(l, self.f(l, h[l - 1]))
                target = self.g(l, tau[l]) + difference
                tau[l - 1] = _norm(target) if self.batch_norm else target
        return h, tau

    def update_encoders(self, x: Tensor, tau: dict[int, Tensor]) -> None:
        """One step on || tau_l - h_l ||^2 for every encoder, upwards."""
        h = self.forward(x)
        for l in range(1, self.depth + 1):
            loss = functional.mse_loss(h[l], tau[l], reduction="sum")
            self.W[l] = _step(self.W[l], loss, self.lr / x.shape[1])


def _step(weight: Tensor, loss: Tensor, rate: float) -> Tensor:
    """The weight after one step of gradient descent, as a new leaf; the graph of `loss` is kept."""
    weight.grad = None
    torch.autograd.backward(loss, retain_graph=True)
    assert weight.grad is not None
    return (weight - rate * weight.grad).detach().requires_grad_()


def _norm(z: Tensor) -> Tensor:
    """(z - mean) / (std + 1e-12) over the minibatch."""
    return (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-12)
