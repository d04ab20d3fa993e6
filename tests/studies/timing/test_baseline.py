"""The eager baseline against the released code's traces, and in what it does beside that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmark.engine.build import build
from benchmark.engine.replay import TRACED
from benchmark.engine.samples import Split
from benchmark.engine.training import Training
from benchmark.methods import METHODS, Method
from benchmark.methods.dtp import DTP
from benchmark.methods.fw_dtp import FWDTP
from benchmark.methods.network import Network
from benchmark.methods.sizes import weight_count
from benchmark.studies.timing.baseline import Baseline

TRACES = Path(__file__).parents[2] / "reference_traces"
NAMES = ["fw_dtp", "fw_dtp_bn", "dtp", "dtp_bn"]

Arrays = dict[str, np.ndarray]


def arrays_of(name: str) -> Arrays:
    with np.load(TRACES / f"{name}.npz") as arrays:
        return dict(arrays)


def baseline_of(name: str, arrays: Arrays, **options: Any) -> Baseline:
    """The baseline as the trace starts."""
    label, given = TRACED[name]
    method = METHODS[label]
    given = {**method.options, **given, "feedback_updates": int(arrays["feedback_updates"])}
    depth = len(arrays["dims"]) - 1
    network = Network(
        [torch.from_numpy(arrays[f"W{i}"])[None] for i in range(depth)],
        [torch.from_numpy(arrays[f"B{i}"])[None] for i in range(1, depth)],
        feedback="decoders",
        **method.network_flags(given),
    )
    rates = {n: torch.tensor(float(arrays[n])).reshape(1, 1, 1) for n in method.hyperparameters}
    if "noise_std" in rates:  # the noise of a trace is scaled already
        rates["noise_std"].fill_(1)
    learner = method(network, rates, given)
    assert isinstance(learner, DTP | FWDTP)
    return Baseline(learner, **options)


def deviation(name: str, arrays: Arrays, **options: Any) -> float:
    """The largest difference from the trace in weights, targets and decoders, after every step."""
    baseline = baseline_of(name, arrays, **options)
    one_hot, largest = torch.eye(int(arrays["dims"][-1])), 0.0

    def compare(ours: Tensor, key: str) -> None:
        nonlocal largest
        assert ours.shape == arrays[key].shape
        largest = max(largest, float((ours.detach() - torch.from_numpy(arrays[key])).abs().max()))

    for step in range(len(arrays["x"])):
        names = (
            f"s{step}_u{update}_noise{i}"
            for update in range(baseline.feedback_updates)
            for i in range(baseline.depth - 1)
        )
        x = torch.from_numpy(arrays["x"][step]).T[None]
        y = one_hot[torch.from_numpy(arrays["y"][step])].T[None]
        baseline.train_step(x, y, lambda like, names=names: torch.from_numpy(arrays[next(names)]).T[None])
        assert next(names, None) is None
        for l in range(1, baseline.depth + 1):
            compare(baseline.W[l], f"s{step}_W{l - 1}")
            compare(baseline.forward(x[0])[-1].T, f"s{step}_logits")
        for l in range(2, baseline.depth + 1) if baseline.feedback_updates else ():
            compare(baseline.B[l], f"s{step}_u{baseline.feedback_updates - 1}_B{l - 1}")
    return largest


@pytest.mark.parametrize("identities", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_released_code(name: str, identities: bool) -> None:
    assert 0 < deviation(name, arrays_of(name), identities=identities) < 1e-5


@pytest.mark.parametrize("key", ["W1", "x", "B2", "s2_W3", "s0_logits"])
@pytest.mark.parametrize("name", NAMES)
def test_another_number_is_a_deviation(name: str, key: str) -> None:
    arrays = arrays_of(name)
    arrays[key].flat[0] += 0.1
    assert deviation(name, arrays) > 1e-5


@pytest.mark.parametrize("label", ["FW-DTP", "DTP"])
def test_trains_like_the_replica_axis(label: str) -> None:
    """Under the training loop: the same data order, the same noise, the same weights."""
    method = METHODS[label]
    rates = dict.fromkeys(method.hyperparameters, 0.1)
    data = Split(torch.randn(50, 9), torch.randint(4, (50,)))

    def trained(learner: Method) -> list[float]:
        training = Training(learner, [3], data, data, batch_size=20)
        losses = []
        for _ in range(2):
            for _ in training.iterations():
                losses.append(training.loss.item())
                training.lanes[0].loss.zero_()
        return losses

    learner = build(method, [9, 8, 7, 4], [3], rates)
    assert isinstance(learner, DTP | FWDTP)
    baseline = Baseline(learner)
    before = {l: weight.clone() for l, weight in baseline.W.items()}
    losses = trained(baseline)
    assert losses[-1] != losses[0]
    for l, weight in before.items():  # the learner's own network was left alone
        assert torch.equal(learner.network.f(l).weight[0], weight)
    assert trained(learner) == pytest.approx(losses, rel=1e-4)
    for l, weight in baseline.W.items():
        assert torch.allclose(weight, learner.network.f(l).weight[0], atol=1e-5)


def test_follows_the_released_procedure() -> None:
    """FW-DTP's products, counted by hand: two passes, three products a target, gradients to the bottom."""
    dims, n = [11, 8, 7, 6, 5], 13
    learner = build(METHODS["FW-DTP"], dims, [1], {"lr": 0.1, "stepsize": 0.1})
    assert isinstance(learner, DTP | FWDTP)
    x, y = torch.randn(1, dims[0], n), torch.eye(5)[torch.randint(5, (n,))].T[None]
    with FlopCounterMode(display=False) as counter:
        Baseline(learner).train_step(x, y, torch.randn_like)
    below = [weight_count(dims[:l]) for l in range(2, len(dims) + 1)]
    walks = sum(2 * weights - dims[0] * dims[1] for weights in [*below, below[-1]])
    needed = 2 * below[-1] + 3 * weight_count(dims[1:]) + walks
    assert counter.get_total_flops() == 2 * n * needed
    with FlopCounterMode(display=False) as counter:
        Baseline(learner, identities=True).train_step(x, y, torch.randn_like)
    squares = [width**2 for width in dims[:-1]]
    passes = 2 * sum(squares) + sum(squares[1:])
    walked = sum(sum(squares[1:l]) for l in [*range(1, len(dims)), len(dims) - 1])
    assert counter.get_total_flops() == 2 * n * (needed + passes + walked)


def test_local_losses_are_local() -> None:
    """Although a loss is differentiated all the way down, only its own layer's weight follows it."""
    arrays = arrays_of("fw_dtp")
    baseline = baseline_of("fw_dtp", arrays)
    x = torch.from_numpy(arrays["x"][0]).T
    h = [activation.detach() for activation in baseline.forward(x)]
    for l in range(1, baseline.depth + 1):
        before = {m: weight.clone() for m, weight in baseline.W.items()}
        tau = {m: h[m] + (1.0 if m == l else 0.0) for m in range(1, baseline.depth + 1)}
        baseline.update_encoders(x, tau)
        changed = [m for m, weight in before.items() if not torch.allclose(weight, baseline.W[m], atol=1e-7)]
        assert changed == [l]
        baseline.W = {m: weight.detach().requires_grad_() for m, weight in before.items()}
