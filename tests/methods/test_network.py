"""Layers, normalisation, initialisation and weight counts."""

import pytest
import torch
from torch import Tensor

from benchmark.methods.network import Layer, Network, initial_weights, norm
from benchmark.methods.sizes import weight_count

DIMS = [12, 9, 7, 7, 4]
FLOAT64 = {"dtype": torch.float64}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **FLOAT64)


def paper_norm(z: Tensor) -> Tensor:
    std = z.std(dim=-1, keepdim=True, unbiased=True)
    return (z - z.mean(dim=-1, keepdim=True)) / (std + 1e-12)


@pytest.mark.parametrize("samples", [2, 5, 256])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_norm_divides_by_the_unbiased_deviation(samples: int, scale: float) -> None:
    z = scale * normal(3, 4, samples) + 2.0
    # A deviation d of the data weighs the 1e-12 beside it as 1e-12 / d.
    torch.testing.assert_close(norm(z), paper_norm(z), rtol=0, atol=1e-9 + 1e-11 / scale)
    rounded = z.float()
    exact = paper_norm(rounded.double())
    tolerance = 1e-6 + 1e-6 / scale
    torch.testing.assert_close(norm(rounded).double(), exact, rtol=0, atol=tolerance)


def test_norm_of_a_constant_feature_is_zero() -> None:
    z = normal(2, 3, 16)
    z[0, 1] = 1.0
    assert torch.equal(norm(z)[0, 1], torch.zeros(16, **FLOAT64))
    assert norm(z).isfinite().all()


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("distinct", [1, 4])
def test_layer_agrees_with_autograd(tanh: bool, normalised: bool, distinct: int) -> None:
    weight, grad = normal(4, 5, 6), normal(4, 5, 8, seed=2)
    u = normal(distinct, 6, 8, seed=1).expand(4, -1, -1)
    layer = Layer(weight.clone(), tanh=tanh, normalised=normalised)
    preactivation = (weight @ u).requires_grad_()
    output = torch.tanh(preactivation) if tanh else preactivation
    output = paper_norm(output) if normalised else output
    (expected,) = torch.autograd.grad(output, preactivation, grad)

    trace = layer.trace(u)
    torch.testing.assert_close(trace.preactivation, preactivation.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(trace.output, output.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer(u), output.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.backward(trace, grad), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("distinct", [1, 4])
def test_descend_subtracts_the_outer_product(distinct: int) -> None:
    weight, step = normal(4, 5, 6), normal(4, 5, 8, seed=1)
    u = normal(distinct, 6, 8, seed=2).expand(4, -1, -1)
    layer = Layer(weight.clone(), tanh=True, normalised=False)
    product = step @ u.transpose(1, 2)
    torch.testing.assert_close(layer.gradient(step, u), product, rtol=0, atol=1e-12)
    layer.descend(step, u)
    torch.testing.assert_close(layer.weight.data, weight - product, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("hidden_norm", "output_norm"), [(False, False), (True, False), (True, True)])
def test_forward_pass_keeps_every_activation(hidden_norm: bool, output_norm: bool) -> None:
    encoders, decoders = initial_weights(DIMS, [1, 2], feedback="decoders", dtype=torch.float64)
    network = Network(
        encoders, decoders, feedback="decoders", hidden_norm=hidden_norm, output_norm=output_norm
    )
    h = x = normal(2, DIMS[0], 10)
    passed = network.pass_forward(x)
    assert passed[0] is x
    for l, weight in enumerate(encoders, start=1):
        last = l == len(encoders)
        h = weight @ h if last else torch.tanh(weight @ h)
        h = paper_norm(h) if (output_norm if last else hidden_norm) else h
        torch.testing.assert_close(passed[l], h, rtol=0, atol=1e-10)
        if l > 1:
            back = torch.tanh(decoders[l - 2] @ h)
            back = paper_norm(back) if hidden_norm else back
            torch.testing.assert_close(network.g(l)(h), back, rtol=0, atol=1e-6)
    torch.testing.assert_close(network(x), h, rtol=0, atol=1e-10)


def test_encoders_are_orthogonal() -> None:
    encoders, _ = initial_weights([12, 20, 20, 4], [1, 2], feedback="none")
    for weight in encoders:
        _, out, width = weight.shape
        product = weight @ weight.mT if out <= width else weight.mT @ weight
        identity = torch.eye(min(out, width)).expand_as(product)
        torch.testing.assert_close(product, identity, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bound", [0.01, 0.001])
def test_decoders_are_uniform_within_their_bound(bound: float) -> None:
    _, decoders = initial_weights([50, 60, 60, 10], [1, 2], feedback="decoders", decoder_init=bound)
    assert [tuple(b.shape) for b in decoders] == [(2, 60, 60), (2, 60, 10)]
    drawn = torch.cat([b.flatten() for b in decoders])
    assert 0.99 * bound < drawn.abs().max() <= bound
    assert drawn.mean().abs() < 0.03 * bound
    assert drawn.std() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_alignment_matrices_have_mean_and_deviation_of_the_encoders() -> None:
    encoders, matrices = initial_weights([30, 100, 100, 80], [1, 2], feedback="alignment")
    assert len(matrices) == 2
    for encoder, matrix in zip(encoders[1:], matrices, strict=True):
        assert matrix.shape == encoder.shape
        for m, w in zip(matrix, encoder, strict=True):
            std, mean = w.std().item(), w.mean().item()
            assert m.std().item() == pytest.approx(std, rel=0.05)
            assert m.mean().item() == pytest.approx(mean, abs=5 * std / m.numel() ** 0.5)
            assert not torch.equal(m, w)


def test_no_feedback_weights_for_bp() -> None:
    assert initial_weights(DIMS, [1], feedback="none")[1] == []


@pytest.mark.parametrize("feedback", ["decoders", "alignment"])
def test_initial_weights_depend_on_the_own_seed_alone(feedback: str) -> None:
    encoders, others = initial_weights(DIMS, [3, 1, 3, 2], feedback=feedback)
    alone, others_alone = initial_weights(DIMS, [3], feedback=feedback)
    together = [*encoders, *others]
    for weight, own in zip(together, [*alone, *others_alone], strict=True):
        assert torch.equal(weight[0], own[0])
        assert torch.equal(weight[2], own[0])
        assert not torch.equal(weight[1], own[0])
        assert not torch.equal(weight[1], weight[3])


def test_orthogonal_decoders() -> None:
    _, decoders = initial_weights([50, 60, 60, 10], [1, 2], feedback="decoders", decoder_init="orthogonal")
    assert [tuple(b.shape) for b in decoders] == [(2, 60, 60), (2, 60, 10)]
    for b in decoders:
        torch.testing.assert_close(b.mT @ b, torch.eye(b.shape[2]).expand(2, -1, -1), rtol=0, atol=1e-5)
        assert not torch.equal(b[0], b[1])
    _, alone = initial_weights([50, 60, 60, 10], [2], feedback="decoders", decoder_init="orthogonal")
    assert torch.equal(alone[0][0], decoders[0][1])


@pytest.mark.parametrize(
    ("dims", "count"),
    [
        ([784, *[256] * 6, 10], 530_944),  # what Table 2 prints as 0.5M
        ([784, *[256] * 5, 10], 465_408),
        ([3072, *[1024] * 4, 10], 6_301_696),  # 6.3M
        ([3072, *[1024] * 3, 10], 5_253_120),
    ],
)
def test_weight_counts(dims: list[int], count: int) -> None:
    assert weight_count(dims) == count


def test_weight_count_is_that_of_the_network() -> None:
    encoders, _ = initial_weights([784, *[256] * 6, 10], [1], feedback="none")
    assert weight_count([784, *[256] * 6, 10]) == sum(w.numel() for w in encoders) == 530_944
