"""Jacobians of encoders and decoders: the measurements behind Figure 2 and Table 1.

For an encoder f_l with a decoder g_l (l = 2..L) and one sample: J_f = d f_l / d h_{l-1} at h_{l-1}, and
J_g = d g_l / d h_l at h_l (section "Analysis 1: Condition for Jacobians"). Both in closed form, for all
replicas at once.

Batch norm makes a sample's output depend on its minibatch, so its Jacobian needs a convention:

- ``"sample"``, the released one: f_l and g_l are given a single column, so that `norm` runs over the
  *features* of that one sample, and is differentiated too. h_{l-1} is still the sample's column of an
  ordinary forward pass; h_l is f_l of that column alone.
- ``"batch"``: as in training, h_l and the statistics are those of the evaluation minibatch; the
  statistics are held constant.

Without norm the two are the same, and only ``"sample"`` is measured. Eigenvalues take longer than all the
rest, so the second convention is measured on every fourth evaluation minibatch only.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmark.network import ForwardPass, Layer, Network, Trace

if TYPE_CHECKING:
    from benchmark.training import Training

SPECTRUM_COLUMNS = ("encoder", "statistics", "trace", "nonnegative", "nonnegative_symmetric", "zero")
CONDITIONS_COLUMNS = ("encoder", "quantity", "value")

BATCH_STRIDE = 4
"""`spectrum` looks at ``"batch"`` in every such evaluation minibatch."""


def at_sample(layer: Layer, u: Tensor) -> tuple[Tensor, Tensor]:
    """Output (R, out) and Jacobian (R, out, in) at single columns `u` (R, in), norm over the features."""
    z = (layer.weight @ u.unsqueeze(-1)).squeeze(-1)
    a = torch.tanh(z) if layer.tanh else z
    jacobian = _of_activation(layer, a)
    if not layer.normalised:
        return a, jacobian
    deviation = a.std(1, keepdim=True) + 1e-12
    y = (a - a.mean(1, keepdim=True)) / deviation
    # dy = (da - mean(da) - y <y, da> / (out - 1)) / deviation
    radial = y.unsqueeze(-1) * (y.unsqueeze(1) @ jacobian) / (a.shape[1] - 1)
    return y, (jacobian - jacobian.mean(1, keepdim=True) - radial) / deviation.unsqueeze(-1)


def in_batch(layer: Layer, trace: Trace, column: int) -> Tensor:
    """Jacobian (R, out, in) at one column of a minibatch, the minibatch's statistics held constant."""
    jacobian = _of_activation(layer, trace.activation[..., column])
    if trace.rstd is None:
        return jacobian
    n = trace.output.shape[-1]
    return jacobian * (trace.rstd * ((n - 1) / n) ** 0.5)


def _of_activation(layer: Layer, a: Tensor) -> Tensor:
    """d phi(W u) / du, (R, out, in), where phi(W u) is `a` (R, out)."""
    return (1 - a * a).unsqueeze(-1) * layer.weight if layer.tanh else layer.weight


def jacobians(network: Network, l: int, h: ForwardPass, statistics: str) -> tuple[Tensor, Tensor]:
    """J_f (R, out, in) and J_g (R, in, out) of encoder `l` at the first sample of a minibatch."""
    f, g = network.f(l), network.g(l)
    if statistics == "batch":
        return in_batch(f, h.trace(l), 0), in_batch(g, g.trace(h[l]), 0)
    output, j_f = at_sample(f, h[l - 1][..., 0])
    return j_f, at_sample(g, output)[1]


def conventions(network: Network) -> tuple[str, ...]:
    """The values of `statistics` that differ on this network."""
    layers = [network.f(l) for l in range(1, network.depth + 1)] + [network.g(2)]
    return ("sample", "batch") if any(layer.normalised for layer in layers) else ("sample",)


def spectrum(training: Training) -> list[list[Any]]:
    """Figure 2: trace and eigenvalues of M = J_f J_g, per replica, encoder and convention.

    Averages over the first sample of every (`BATCH_STRIDE`th) evaluation minibatch of

    - `trace`: tr(M), the weak condition (Eq. 17);
    - `nonnegative`: the share of eigenvalues with positive real part. As released, an eigenvalue that is
      zero up to rounding has the sign that rounding gave it; norm over features leaves two of those;
    - `nonnegative_symmetric`: the same of the symmetric part (M + M^T) / 2, which is what the strict
      condition (Eq. 15) is about;
    - `zero`: the share of eigenvalues of M that are zero up to rounding, |lambda| <= eps width ||M||_F.

    NaN for a replica whose Jacobians are not finite.
    """
    network = training.method.network
    found: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    for i, x in enumerate(training.evaluation_minibatches()):
        h = network.pass_forward(x)
        measured = [s for s in conventions(network) if s == "sample" or i % BATCH_STRIDE == 0]
        for l in range(2, network.depth + 1):
            for statistics in measured:
                j_f, j_g = jacobians(network, l, h, statistics)
                found[l, statistics].append(_spectrum(j_f @ j_g))
    means = {key: torch.stack(samples).mean(0).tolist() for key, samples in found.items()}
    return [
        [replica, *key, *values[replica]]
        for key, values in means.items()
        for replica in range(network.replicas)
    ]


def _spectrum(m: Tensor) -> Tensor:
    """What `spectrum` averages, of matrices `m` (R, width, width): (R, 4), float64."""
    m = m.cpu()  # LAPACK, one matrix after the other: on other devices it is no faster
    finite = m.isfinite().all((1, 2))
    m = m.where(finite[:, None, None], 0)  # LAPACK refuses the rest, and with it the healthy replicas
    eigenvalues = torch.linalg.eigvals(m)
    rounding = torch.finfo(m.dtype).eps * m.shape[1] * torch.linalg.matrix_norm(m, keepdim=True)[..., 0]
    symmetric = torch.linalg.eigvalsh((m + m.mT) / 2)
    trace = m.diagonal(dim1=1, dim2=2).double().sum(1)
    shares = [
        counted.double().mean(1)
        for counted in (eigenvalues.real > 0, symmetric > 0, eigenvalues.abs() <= rounding)
    ]
    return torch.stack([trace, *shares], dim=1).where(finite[:, None], torch.nan)


def conditions(training: Training) -> list[list[Any]]:
    """How far each condition of Table 1 holds, per replica and encoder."""
    raise NotImplementedError
