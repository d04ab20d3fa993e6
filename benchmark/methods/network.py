"""Encoders and decoders of `R` independent networks, trained side by side along the replica axis.

Shapes, everywhere in this package:
    weights       (R, out, in)
    activations   (R, features, n)      n samples, one a column, as in the paper's `W_l h_{l-1}`
Replicas that share a minibatch see it as an expanded view, with stride 0 along the replica axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.methods import seeding
from benchmark.methods.sizes import DECODER_INIT

# The paper's code divides by std + 1e-12; layer_norm divides by sqrt(var + eps).
_EPSILON = 1e-24


def norm(z: Tensor) -> Tensor:
    """Batch norm without affine part or running statistics: (z - mean) / (std + 1e-12).

    `z` is (R, features, n); mean and unbiased standard deviation run over the n samples. (`layer_norm`
    over the contiguous last axis is the fast way to say this; it divides by the biased deviation.)
    """
    return _normalise(z)[0]


def _unbiased(z: Tensor) -> Tensor:
    """The ratio of the biased to the unbiased standard deviation, as the weight (n,) of `layer_norm`."""
    n = z.shape[-1]
    return z.new_full((n,), ((n - 1) / n) ** 0.5)


def _normalise(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(z, z.shape[-1:], _unbiased(z), None, _EPSILON)


@dataclass
class Trace:
    """What one `Layer` computed on one minibatch, kept for its local gradient."""

    preactivation: Tensor  # W u
    activation: Tensor  # tanh(W u), or W u for a linear layer
    output: Tensor  # N(activation)
    mean: Tensor | None = None
    rstd: Tensor | None = None


class Version:
    """Marks a state of a layer's weight. Two are the same state only if they are the same object."""


def _distinct(u: Tensor) -> Tensor:
    """The minibatch (1, in, n) that all replicas share, or `u` (R, in, n) if each has its own."""
    return u[:1] if u.stride(0) == 0 else u


class Layer(nn.Module):
    """The map u -> N(phi(W u)) of every replica: an encoder f_l or a decoder g_l (Eq. 12).

    phi is tanh or the identity, N is `norm` or the identity. Weights are updated in place, by closed-form
    local gradients, so they ask for no autograd.
    """

    weight: nn.Parameter

    def __init__(self, weight: Tensor, *, tanh: bool, normalised: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.tanh = tanh
        self.normalised = normalised
        self.version = Version()
        """Another object after every `descend`."""

    def linear(self, u: Tensor) -> Tensor:
        """W u, (R, out, n). Replicas that share a minibatch are one tall matrix product."""
        u = _distinct(u)
        product = torch.bmm(self.weight.view(len(u), -1, self.weight.shape[2]), u)
        return product.view(*self.weight.shape[:2], u.shape[2])

    def forward(self, u: Tensor) -> Tensor:
        """N(phi(W u)), (R, out, n), of an input (R, in, n)."""
        z = self.linear(u)
        if self.tanh:
            z = torch.tanh(z)
        return norm(z) if self.normalised else z

    def trace(self, u: Tensor) -> Trace:
        """`forward`, keeping what `backward` needs."""
        z = self.linear(u)
        a = torch.tanh(z) if self.tanh else z
        if not self.normalised:
            return Trace(z, a, a)
        y, mean, rstd = _normalise(a)
        return Trace(z, a, y, mean, rstd)

    def backward(self, trace: Trace, grad: Tensor) -> Tensor:
        """The gradient at the preactivation `W u`, given `grad` at the output; both (R, out, n)."""
        if trace.mean is not None and trace.rstd is not None:
            grad = torch.ops.aten.native_layer_norm_backward(
                grad,
                trace.activation,
                grad.shape[-1:],
                trace.mean,
                trace.rstd,
                _unbiased(grad),
                None,
                [True, False, False],
            )[0]
        if self.tanh:
            grad = torch.ops.aten.tanh_backward(grad, trace.activation)
        return grad

    def gradient(self, delta: Tensor, u: Tensor) -> Tensor:
        """The gradient at the weight, delta u^T (R, out, in), given `delta` (R, out, n) at `W u`."""
        u = _distinct(u)
        delta = delta.reshape(len(u), -1, u.shape[2])
        return torch.bmm(delta, u.transpose(1, 2)).view(self.weight.shape)

    def descend(self, step: Tensor, u: Tensor) -> None:
        """W <- W - step u^T: `step` (R, out, n) is the learning rate times the gradient at `W u`."""
        u = _distinct(u)
        weight = self.weight.data.view(len(u), -1, self.weight.shape[2])
        weight.baddbmm_(step.reshape(len(u), -1, u.shape[2]), u.transpose(1, 2), alpha=-1.0)
        self.version = Version()


class ForwardPass:
    """The activations h_0..h_L of one minibatch: `h[l]` is h_l, (R, width of layer l, n)."""

    def __init__(self, x: Tensor, encoders: Sequence[Layer]) -> None:
        self.traces: list[Trace] = []
        self.x = x
        for encoder in encoders:
            self.traces.append(encoder.trace(x))
            x = self.traces[-1].output
        self.differences: dict[int, tuple[Version, Tensor]] = {}
        """h_{l-1} - g_l(h_l) by l, with the version of g_l: see `DifferenceCorrection`."""

    def __getitem__(self, layer: int) -> Tensor:
        return self.x if layer == 0 else self.traces[layer - 1].output

    def trace(self, layer: int) -> Trace:
        """The trace of encoder f_l."""
        return self.traces[layer - 1]


class Network(nn.Module):
    """`R` fully connected networks of the same shape.

    `dims` are the widths (input, hidden..., classes). `feedback` says what the backward path holds:
    ``"none"`` (BP), ``"decoders"`` (the TP family: g_l with B_l (R, in, out), l = 2..L) or
    ``"alignment"`` (FA: M_l of the shape of W_l, l = 2..L).
    """

    def __init__(
        self,
        encoder_weights: Sequence[Tensor],
        feedback_weights: Sequence[Tensor],
        *,
        feedback: str,
        hidden_norm: bool = False,
        output_norm: bool = False,
    ) -> None:
        super().__init__()
        self.kind: dict[str, Any] = {
            "feedback": feedback,
            "hidden_norm": hidden_norm,
            "output_norm": output_norm,
        }
        self.depth = len(encoder_weights)
        self.dims = [encoder_weights[0].shape[2], *(w.shape[1] for w in encoder_weights)]
        self.replicas = encoder_weights[0].shape[0]
        last = self.depth - 1
        self._encoders = nn.ModuleList(
            Layer(w, tanh=i < last, normalised=output_norm if i == last else hidden_norm)
            for i, w in enumerate(encoder_weights)
        )
        self._feedback = nn.ModuleList(
            Layer(b, tanh=feedback == "decoders", normalised=feedback == "decoders" and hidden_norm)
            for b in feedback_weights
        )

    def f(self, layer: int) -> Layer:
        """Encoder f_l, l = 1..L."""
        return self._encoders[layer - 1]  # type: ignore[return-value]

    def g(self, layer: int) -> Layer:
        """Decoder g_l, l = 2..L (for FA the layer that holds M_l)."""
        return self._feedback[layer - 2]  # type: ignore[return-value]

    def norm(self, z: Tensor) -> Tensor:
        """N of the hidden layers: `norm`, or the identity."""
        return norm(z) if self.kind["hidden_norm"] else z

    def part(self, replicas: slice) -> Network:
        """The network of some of the replicas, on the same weights in memory."""
        encoders, feedback = (
            [layer.weight.data[replicas] for layer in layers]  # type: ignore[index]
            for layers in (self._encoders, self._feedback)
        )
        return Network(encoders, feedback, **self.kind)

    def pass_forward(self, x: Tensor) -> ForwardPass:
        """Equation 3: h_l = f_l(h_{l-1}), from a minibatch `x` (R, in, n)."""
        return ForwardPass(x, self._encoders)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The logits h_L, (R, classes, n)."""
        for encoder in self._encoders:
            x = encoder(x)
        return x


def initial_weights(
    dims: Sequence[int],
    seeds: Sequence[int],
    *,
    feedback: str,
    decoder_init: float | str = DECODER_INIT,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor], list[Tensor]]:
    """Draw encoder and feedback weights, one network for each seed, on the CPU so every device starts alike.

    W_l is random orthogonal. B_l is uniform in (-decoder_init, decoder_init). For "orthogonal", as in the
    authors' development repository, B_l is random orthogonal. FA's M_l is normal with the mean and standard
    deviation of W_l.
    """
    encoders: dict[int, list[Tensor]] = {}
    feedbacks: dict[int, list[Tensor]] = {}
    for seed in dict.fromkeys(seeds):
        draw = seeding.generator(seed, "encoders")
        encoders[seed] = [
            nn.init.orthogonal_(torch.empty(out, width), generator=draw) for width, out in pairwise(dims)
        ]
        draw = seeding.generator(seed, "feedback")
        held = encoders[seed][1:] if feedback != "none" else []
        feedbacks[seed] = [_feedback_weight(weight, feedback, decoder_init, draw) for weight in held]

    def stack(weights: dict[int, list[Tensor]]) -> list[Tensor]:
        layers = zip(*(weights[seed] for seed in seeds), strict=True)
        return [torch.stack(layer).to(dtype) for layer in layers]

    return stack(encoders), stack(feedbacks)


def _feedback_weight(
    weight: Tensor, feedback: str, decoder_init: float | str, draw: torch.Generator
) -> Tensor:
    if feedback == "alignment":
        return torch.empty_like(weight).normal_(weight.mean().item(), weight.std().item(), generator=draw)
    if isinstance(decoder_init, str):  # "orthogonal"
        return nn.init.orthogonal_(torch.empty(weight.shape[1], weight.shape[0]), generator=draw)
    return torch.empty_like(weight.T).uniform_(-decoder_init, decoder_init, generator=draw)


def meta_weights(dims: Sequence[int], replicas: int, *, feedback: str) -> tuple[list[Tensor], list[Tensor]]:
    """Encoder and feedback weights on the device `meta`: shapes without numbers."""
    encoders = [torch.empty(replicas, out, width, device="meta") for width, out in pairwise(dims)]
    held = encoders[1:] if feedback != "none" else []
    return encoders, [torch.empty_like(w.mT if feedback == "decoders" else w) for w in held]
