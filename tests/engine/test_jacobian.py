"""Closed-form Jacobians against autograd, and what Figure 2 and Table 1 make of them."""

import copy
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.engine import jacobian
from benchmark.engine.build import build
from benchmark.engine.jacobian import conditions, spectrum
from benchmark.engine.lanes import EVALUATION_BATCH
from benchmark.engine.samples import Split
from benchmark.engine.settings import MEASUREMENTS
from benchmark.engine.training import Training
from benchmark.methods import METHODS, Hyperparameter, Method, Noise
from benchmark.methods.bp import BP
from benchmark.methods.network import Layer

DIMS = [6, 5, 7, 5, 4]
SEEDS = [3, 1]
HYPERPARAMETERS = {"lr": 0.1, "stepsize": 0.04, "lr_feedback": 0.02, "noise_std": 0.1}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "no norm": ("DTP", {"decoder_init": 0.5}),
    "norm in the hidden layers": ("DTP", {"decoder_init": 0.5, "batch_norm": True}),
    "norm everywhere": ("FW-DTP", {"decoder_init": 0.5}),
}


def split(samples: int, seed: int, dtype: torch.dtype) -> Split:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, DIMS[0], generator=draw, dtype=dtype)
    return Split(x, torch.randint(DIMS[-1], (samples,), generator=draw))


def training(
    method: str = "DTP",
    options: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    samples: int = 2 * EVALUATION_BATCH + 9,
) -> Training:
    """Two replicas and, by default, three evaluation minibatches."""
    learner = METHODS[method]
    rates = {name: HYPERPARAMETERS[name] for name in learner.hyperparameters}
    built = build(learner, DIMS, SEEDS, rates, options, dtype=dtype)
    return Training(built, SEEDS, split(70, 1, dtype), split(samples, 2, dtype), batch_size=32)


def frame(rows: list[list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["replica", *MEASUREMENTS["jacobian"].columns])


def long_frame(rows: list[list[Any]]) -> pd.Series:
    """Values by replica, encoder and quantity."""
    table = pd.DataFrame(rows, columns=["replica", *MEASUREMENTS["conditions"].columns])
    index = ["replica", "encoder", "quantity"]
    assert not table.duplicated(index).any()
    return table.set_index(index)["value"].sort_index()


def normalised(a: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return (a - mean) / deviation


def replica(layer: Layer, r: int, u: Tensor) -> Tensor:
    """phi(W u) of one replica, one sample."""
    z = layer.weight[r] @ u
    return torch.tanh(z) if layer.tanh else z


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("statistics", ["sample", "batch"])
def test_closed_form_is_what_autograd_says(network: str, statistics: str) -> None:
    method, options = NETWORKS[network]
    trained = training(method, options)
    net = trained.method.network
    h = net.pass_forward(next(trained.evaluation_minibatches()))

    def alone(layer: Layer, r: int) -> Any:
        def single(u: Tensor) -> Tensor:
            a = replica(layer, r, u)
            return normalised(a, a.mean(), a.std()) if layer.normalised else a

        return single

    def constant(layer: Layer, r: int, inputs: Tensor) -> Any:
        """The statistics of the minibatch are numbers, not functions of the sample."""
        z = layer.weight[r] @ inputs[r]
        a = torch.tanh(z) if layer.tanh else z
        mean, deviation = a.mean(1), a.std(1)

        def held(u: Tensor) -> Tensor:
            b = replica(layer, r, u)
            return normalised(b, mean, deviation) if layer.normalised else b

        return held

    for l in range(2, net.depth + 1):
        j_f, j_g = jacobian.jacobians(net, l, h, statistics)
        assert j_f.shape == (2, DIMS[l], DIMS[l - 1])
        assert j_g.shape == (2, DIMS[l - 1], DIMS[l])
        for r in range(2):
            if statistics == "sample":
                f, g = alone(net.f(l), r), alone(net.g(l), r)
                below = h[l - 1][r, :, 0]
                above = f(below)
            else:
                f, g = constant(net.f(l), r, h[l - 1]), constant(net.g(l), r, h[l])
                below, above = h[l - 1][r, :, 0], h[l][r, :, 0]
                torch.testing.assert_close(f(below), above)
            torch.testing.assert_close(j_f[r], torch.func.jacrev(f)(below))
            torch.testing.assert_close(j_g[r], torch.func.jacrev(g)(above))


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_spectrum_averages_over_first_samples(network: str, device: str) -> None:
    trained, there = training(*NETWORKS[network]), training(*NETWORKS[network])
    net = trained.method.network
    there.method.network.to(device)
    there.test = Split(there.test.x.to(device), there.test.y.to(device))
    found = frame(spectrum(there)).set_index(["replica", "encoder", "statistics"])
    assert found.index.is_unique
    conventions = {"sample"} if network == "no norm" else {"sample", "batch"}
    assert set(found.index) == {(r, l, s) for r in range(2) for l in (2, 3, 4) for s in conventions}
    firsts = [trained.test.x[i : i + EVALUATION_BATCH].T[None] for i in (0, EVALUATION_BATCH, 512)]
    for (r, l, statistics), values in found.iterrows():
        # Three minibatches, and the first of every four.
        inputs = firsts if statistics == "sample" else firsts[:1]
        products = []
        for x in inputs:
            j_f, j_g = jacobian.jacobians(net, l, net.pass_forward(x), statistics)
            products.append(j_f[r] @ j_g[r])
        stack = torch.stack(products)
        assert values["trace"] == pytest.approx(float(stack.diagonal(dim1=1, dim2=2).sum(1).mean()))
        symmetric = stack + stack.mT
        eigenvalues = torch.linalg.eigvals(stack).real, torch.linalg.eigvalsh(symmetric)
        # What is zero up to rounding has any sign: another linear algebra library, another one.
        lowest = np.array([float((e > 1e-9).double().mean()) for e in eigenvalues])
        highest = np.array([float((e > -1e-9).double().mean()) for e in eigenvalues])
        ranks = [torch.linalg.matrix_rank(m, rtol=1e-9).double().mean() for m in (stack, symmetric)]
        np.testing.assert_allclose(highest - lowest, 1 - np.array(ranks) / DIMS[l])
        shares = values[["nonnegative", "nonnegative_symmetric"]].to_numpy(float)
        assert (shares > lowest - 1e-12).all()
        assert (shares < highest + 1e-12).all()


def identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def test_known_spectra() -> None:
    rotation = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    spectra = {
        "identity": (identity(4), (4.0, 1.0, 1.0, 0.0)),
        "saddle": (torch.diag(torch.tensor([3.0, 2.0, -1.0, -5.0]).double()), (-1.0, 0.5, 0.5, 0.0)),
        "singular": (torch.diag(torch.tensor([3.0, 0.0, 0.0, 1.0]).double()), (4.0, 0.5, 0.5, 0.5)),
        # Positive eigenvalues, and yet not positive semi-definite: only the symmetric part shows it.
        "sheared": (
            torch.block_diag(identity(2), identity(2) + 9 * torch.triu(torch.ones(2, 2).double(), 1)),
            (4.0, 1.0, 0.75, 0.0),
        ),
        "turned": (torch.block_diag(identity(2) + 3 * rotation, -identity(2)), (0.0, 0.5, 0.5, 0.0)),
    }
    measured = jacobian._spectrum(torch.stack([m for m, _ in spectra.values()]))
    for values, (name, (_, expected)) in zip(measured, spectra.items(), strict=True):
        assert values.tolist() == pytest.approx(expected), name


def test_norm_over_features_leaves_eigenvalues_that_are_zero_up_to_rounding() -> None:
    trained = training("FW-DTP", {"decoder_init": 0.5}, torch.float32)
    net = trained.method.network
    for l in (2, 3, 4):  # of unrelated decoders rounding can move eigenvalues further
        net.g(l).weight.data.copy_(net.f(l).weight.mT)
    found = frame(spectrum(trained))
    zeros = found[found.statistics == "sample"].set_index(["encoder", "replica"])["zero"]
    for l in (2, 3, 4):
        left = min(DIMS[l - 1 : l + 1]) - 2  # norm over the narrower layer's features takes two dimensions
        assert (zeros[l] * DIMS[l]).tolist() == pytest.approx([DIMS[l] - left] * 2)


def test_a_poisoned_replica_is_nan_and_leaves_its_neighbours_alone() -> None:
    healthy, poisoned = training(), training()
    poisoned.method.network.f(2).weight.data[1, 0, 0] = torch.nan
    expected, found = frame(spectrum(healthy)), frame(spectrum(poisoned))
    assert found[found.replica == 1].iloc[:, 3:].isna().all(axis=None)
    pd.testing.assert_frame_equal(found[found.replica == 0], expected[expected.replica == 0])
    poisoned.method.network.f(2).weight.data[1, 0, 0] = math.inf
    assert not frame(spectrum(poisoned)).query("replica == 0").isna().any(axis=None)


@pytest.mark.parametrize("measure", [spectrum, conditions])
@pytest.mark.parametrize("network", NETWORKS)
def test_measuring_changes_nothing(network: str, measure: Any) -> None:
    plain, measured = (training(*NETWORKS[network], dtype=torch.float32) for _ in range(2))
    state = torch.get_rng_state()
    for _ in range(plain.method.pretraining + 2):
        before = copy.deepcopy(measured.method.network.state_dict())
        measure(measured)
        for name, weight in measured.method.network.state_dict().items():
            assert torch.equal(weight, before[name])
        assert plain.run_epoch() == measured.run_epoch()
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(
        plain.method.network.parameters(), measured.method.network.parameters(), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("network", NETWORKS)
def test_conditions_follow_their_definitions(network: str) -> None:
    trained = training(*NETWORKS[network], dtype=torch.float32, samples=3)
    found = long_frame(conditions(trained))
    net = copy.deepcopy(trained.method.network).double()
    h = net.pass_forward(trained.test.x.double().T[None])
    statistics = "sample" if network == "no norm" else "batch"

    def compare(j: np.ndarray, ideal: np.ndarray) -> list[float]:
        size = np.linalg.norm(ideal)
        cosine = (j * ideal).sum() / np.linalg.norm(j) / size
        return [float(np.linalg.norm(j - ideal) / size), float(cosine)]

    for r in range(2):
        pairs = {}
        for l in range(2, 5):
            j_f, j_g = (j[r].numpy() for j in jacobian.jacobians(net, l, h, statistics))
            pairs[l] = (j_f, j_g)
            assert found[r, l, "trace"] == pytest.approx(np.trace(j_f @ j_g))
        for l in range(2, 5):
            up, down = pairs[l]
            products = {"": (up, down)}
            for k in range(l + 1, 5):
                up, down = pairs[k][0] @ up, down @ pairs[k][1]
            products["product_"] = (up, down)
            for prefix, (forward, feedback) in products.items():
                for name, ideal in (("pinv", np.linalg.pinv(forward)), ("transpose", forward.T)):
                    measured = [found[r, l, f"{prefix}{name}_{what}"] for what in ("distance", "cosine")]
                    assert measured == pytest.approx(compare(feedback, ideal)), (l, prefix, name)


def test_a_condition_that_holds_is_seen_to_hold() -> None:
    """With B_l = W_l^T and activations at zero, J_g is the transpose of an orthogonal J_f: all of Table 1."""
    trained = training(samples=1)
    trained.test.x.zero_()
    net = trained.method.network
    for l in (2, 3, 4):
        net.g(l).weight.data.copy_(net.f(l).weight.mT)
    found = long_frame(conditions(trained)).unstack("quantity")
    assert found.trace.unstack("replica").loc[[2, 3, 4], 0].tolist() == pytest.approx([5, 5, 4])
    for l in (2, 3, 4):
        ideals = ["pinv", "transpose", "product_transpose"]
        if l > 2:  # W_3 W_2 widens and then narrows: its singular values are not all 1
            ideals.append("product_pinv")
        for name in ideals:
            assert found.loc[(0, l), f"{name}_distance"] == pytest.approx(0, abs=1e-6)  # drawn in float32
            assert found.loc[(0, l), f"{name}_cosine"] == pytest.approx(1)


@pytest.mark.parametrize("network", NETWORKS)
def test_update_angles_against_autograd(network: str) -> None:
    method, options = NETWORKS[network]
    updates = {} if method == "FW-DTP" else {"feedback_updates": 0}
    trained, plain = training(method, options), training(method, {**options, **updates})
    angles = jacobian.update_angles(trained)
    assert angles.shape == (4, 2)

    net = plain.method.network
    layers = [net.f(l) for l in range(1, 5)]
    x, y = plain.train.x[:32].T[None], functional.one_hot(plain.train.y[:32], 4).T.double().expand(2, -1, -1)
    for layer in layers:
        layer.weight.requires_grad_(True)
    loss = -(net(x).log_softmax(1) * y).sum()
    gradients = torch.autograd.grad(loss, [layer.weight for layer in layers])
    before = [layer.weight.requires_grad_(False).clone() for layer in layers]
    plain.method.train_step(x, y, torch.zeros_like)
    for l, layer in enumerate(layers):
        change = (layer.weight - before[l]).flatten(1)
        cosine = (
            -(change * gradients[l].flatten(1)).sum(1) / change.norm(dim=1) / gradients[l].norm(dim=(1, 2))
        )
        torch.testing.assert_close(angles[l], cosine.clamp(-1, 1).acos().rad2deg(), atol=1e-4, rtol=0)
    if network != "norm everywhere":  # the output layer's own loss has the gradient's direction
        assert angles[3].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert (angles[:3] > 1).all()


def test_update_angles_of_a_rule_without_a_rate_called_lr() -> None:
    class Plain(Method):
        name = "Plain"
        feedback = "decoders"

        eta: Hyperparameter

        def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
            return BP(self.network, {"lr": self.eta}, {}).train_step(x, y, noise)

    built = build(Plain, DIMS, SEEDS, {"eta": 0.1}, dtype=torch.float64)
    trained = Training(built, SEEDS, split(70, 1, torch.float64), split(9, 2, torch.float64), batch_size=32)
    assert jacobian.update_angles(trained).flatten().tolist() == pytest.approx([0.0] * 8, abs=1e-4)


def test_conditions_of_a_poisoned_replica_are_nan() -> None:
    healthy, poisoned = training(), training()
    poisoned.method.network.f(3).weight.data[0, 0, 0] = torch.nan
    expected, found = long_frame(conditions(healthy)), long_frame(conditions(poisoned))
    assert found[0].drop(index=2).isna().all()  # f_2 and g_2 lie below the poison
    assert found[0, 2].filter(like="product").isna().all()
    pd.testing.assert_series_equal(found[1], expected[1])
