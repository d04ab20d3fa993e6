"""Measurements during training: Jacobians of encoders and decoders, behind Figure 2 and Table 1.

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

import copy
from collections import defaultdict
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.methods import Method
from benchmark.methods.bp import BP
from benchmark.methods.network import ForwardPass, Layer, Network, Trace

if TYPE_CHECKING:
    from benchmark.engine.training import Training

CONDITIONS_SAMPLES = 8
"""Evaluation minibatches whose first sample `conditions` looks at: pseudo-inverses take their time."""

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
    - `zero`: the share of eigenvalues of M that are zero up to rounding, |lambda| <= eps width ||M||_F; of a
      matrix far from symmetric rounding moves some further, which are not counted.

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
    """Table 1: how far J_g is from what each reconstruction loss is said to make of it.

    For l = 2..L, averages over the first sample of the first `CONDITIONS_SAMPLES` evaluation minibatches,
    batch norm's statistics those of the minibatch (as in training, where J_{g_l} carries targets):

    - `pinv_distance`: ||J_g - J_f^+|| / ||J_f^+||, and `pinv_cosine`: <J_g, J_f^+> / (||J_g|| ||J_f^+||), in
      Frobenius norm and inner product (DTP's condition);
    - `transpose_distance`, `transpose_cosine`: the same for J_f^T (L-DRL's);
    - `product_pinv_distance`, ..., `product_transpose_cosine`: the same for J_{g_l} J_{g_{l+1}} ... J_{g_L}
      and J_{f_{l:L}} = J_{f_L} ... J_{f_l} (DRL's is the pseudo-inverse);
    - `trace`: tr(J_f J_g) (FW-DTP's).

    For l = 1..L, `update_angle`: see `update_angles`. Everything in float64: pseudo-inverses of nearly
    singular matrices ask for it. NaN where a replica's numbers are not finite.
    """
    network = copy.deepcopy(training.method.network).double()
    statistics = conventions(network)[-1]
    found: dict[tuple[int, str], list[Tensor]] = defaultdict(list)
    for x in islice(training.evaluation_minibatches(), CONDITIONS_SAMPLES):
        h = network.pass_forward(x.double())
        up = down = torch.eye(network.dims[-1], dtype=torch.float64, device=x.device)
        for l in reversed(range(2, network.depth + 1)):
            j_f, j_g = jacobians(network, l, h, statistics)
            up, down = up @ j_f, j_g @ down
            found[l, "trace"].append((j_f @ j_g).diagonal(dim1=1, dim2=2).sum(1))
            for prefix, forward, feedback in (("", j_f, j_g), ("product_", up, down)):
                for name, ideal in (("pinv", pseudo_inverse(forward)), ("transpose", forward.mT)):
                    distance, cosine = _compare(feedback, ideal)
                    found[l, f"{prefix}{name}_distance"].append(distance)
                    found[l, f"{prefix}{name}_cosine"].append(cosine)
    for l, angle in enumerate(update_angles(training), start=1):
        found[l, "update_angle"].append(angle)
    means = {key: torch.stack(samples).mean(0).tolist() for key, samples in found.items()}
    return [[replica, *key, value] for key, values in means.items() for replica, value in enumerate(values)]


def pseudo_inverse(j: Tensor) -> Tensor:
    """J^+ (R, in, out) of J (R, out, in); NaN for a replica that is not finite."""
    finite = j.isfinite().all((1, 2))[:, None, None]
    return torch.linalg.pinv(j.where(finite, 0)).where(finite, torch.nan)


def _compare(j: Tensor, ideal: Tensor) -> tuple[Tensor, Tensor]:
    """||J - ideal|| / ||ideal|| and the cosine between the two, both (R,)."""
    distance = torch.linalg.matrix_norm(j - ideal) / torch.linalg.matrix_norm(ideal)
    return distance, torch.cosine_similarity(j.flatten(1), ideal.flatten(1), dim=1, eps=0)


def update_angles(training: Training) -> Tensor:
    """Degrees between the method's update of W_l and the negative gradient of the cross-entropy, (L, R).

    On one minibatch, the first training samples in their order. The update is that of one `train_step`
    without feedback updates, on copies in float64; BP's step on the same networks is the gradient's. That
    of a rule with a momentum has what its state has gathered.
    """
    x = training.train.x[: training.batch_size].double().T[None]
    y = (
        functional.one_hot(training.train.y[: training.batch_size], training.method.network.dims[-1])
        .double()
        .T
    )
    method = copy.copy(training.method)
    for name in method.hyperparameters:
        setattr(method, name, getattr(method, name).double())
    state = training.method.state
    method.state = MappingProxyType(
        {n: t.double() if t.dtype == torch.float32 else t.clone() for n, t in state.items()}
    )
    method.feedback_updates = 0  # type: ignore[attr-defined]
    bp = BP(method.network, {"lr": torch.ones_like(x[:, :1, :1])}, {})  # of which the direction counts
    rule, gradient = (
        _change(learner, copy.deepcopy(training.method.network).double(), x, y) for learner in (method, bp)
    )
    cosines = [torch.cosine_similarity(a, b, dim=1, eps=0) for a, b in zip(rule, gradient, strict=True)]
    return torch.stack(cosines).clamp(-1, 1).acos().rad2deg()


def _change(method: Method, network: Network, x: Tensor, y: Tensor) -> list[Tensor]:
    """The change of every W_l in one step of `method` on `network`: L tensors (R, out in)."""
    method.network = network
    layers = [network.f(l) for l in range(1, network.depth + 1)]
    before = [layer.weight.clone() for layer in layers]
    x, y = (shared.expand(network.replicas, -1, -1) for shared in (x, y))
    method.train_step(x, y, torch.zeros_like)
    return [(layer.weight - old).flatten(1) for layer, old in zip(layers, before, strict=True)]


_MEASURED_BY = {"jacobian": spectrum, "conditions": conditions}


def measure(name: str, training: Training) -> list[list[Any]]:
    """Take a measurement: rows `[replica, *values]`, with the columns that `MEASUREMENTS` says."""
    return _MEASURED_BY[name](training)
