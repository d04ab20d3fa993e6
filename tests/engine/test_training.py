"""Epochs on the replica axis: independence, seeds, minibatches, evaluation and resuming."""

import io
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmark.engine.build import build
from benchmark.engine.lanes import EVALUATION_BATCH
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import EpochResult, Training
from benchmark.methods import METHODS, Method, Noise

DIMS = [10, 8, 7, 4]
BATCH = 32
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bp": ("BP", {}),
    "fa": ("FA", {}),
    "tp": ("TP", {"feedback_updates": 2}),
    "dtp": ("DTP", {"feedback_updates": 2}),
    "dtp-bn": ("DTP", {"feedback_updates": 2, "batch_norm": True}),
    "drl": ("DRL", {"feedback_updates": 2}),
    "l-drl": ("L-DRL", {"feedback_updates": 2}),
    "fw-dtp": ("FW-DTP", {"batch_norm": False}),
    "fw-dtp-bn": ("FW-DTP", {"batch_norm": True}),
}
LEARNED = ("tp", "dtp", "dtp-bn", "drl", "l-drl")
RATES = {
    "lr": (0.1, 0.3, 0.2, 0.4),
    "stepsize": (0.04, 0.02, 0.08, 0.06),
    "lr_feedback": (0.1, 0.02, 0.05, 0.2),
    "noise_std": (0.05, 0.2, 0.1, 0.01),
}


def split(samples: int, seed: int, dtype: torch.dtype = torch.float32) -> Split:
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(DIMS[-1], (samples,), generator=draw)
    x = torch.randn(samples, DIMS[0], generator=draw) + 2 * functional.one_hot(y, DIMS[0])
    return Split(x.to(dtype), y)


def training(
    case: str,
    seeds: Sequence[int],
    picked: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    train: Split | None = None,
    test: Split | None = None,
    device: str = "cpu",
    **changes: Sequence[float],
) -> Training:
    """Replicas of `seeds`; `picked` says whose hyperparameters of `RATES` they have. As graphs on a GPU."""
    name, options = CASES[case]
    method = METHODS[name]
    columns = range(len(seeds)) if picked is None else picked
    rates = {key: [RATES[key][i] for i in columns] for key in method.hyperparameters} | changes
    train = split(75, 1, dtype) if train is None else train
    built = build(method, DIMS, seeds, rates, options, dtype=dtype, device=torch.device(device))
    test = split(60, 2, dtype) if test is None else test
    train, test = (Split(s.x.to(device), s.y.to(device)) for s in (train, test))
    execution = Execution.GRAPHED if device == "cuda" else Execution.EAGER
    return Training(built, seeds, train, test, batch_size=BATCH, execution=execution)


def run(trained: Training, epochs: int = 1) -> list[EpochResult]:
    """Pre-training and `epochs` epochs of training proper."""
    results = []
    while trained.epoch < epochs:
        result = trained.run_epoch()
        if result is not None:
            results.append(result)
    # Its 32 samples come twice an epoch: the first runs as it is, the second is recorded and launched.
    assert all(lane.graphs.recorded for lane in trained.lanes if lane.graphs is not None)
    return results


def weights(trained: Training, replica: int) -> list[Tensor]:
    return [weight[replica].clone() for weight in trained.method.network.state_dict().values()]


on_every_device = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
GROUPS = {
    "own seeds": [1, 2, 3],
    "one seed": [1, 1, 1],
    "pairs of a seed": [1, 1, 2, 2],
    "unequal groups": [1, 1, 2],
    "interleaved": [2, 1, 2, 1],
}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("seeds", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("case", CASES)
@on_every_device
def test_a_replica_trains_as_if_it_were_alone(
    device: str, case: str, seeds: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    together = training(case, seeds, dtype=dtype, device=device)
    (result,) = run(together)
    for replica, seed in enumerate(seeds):
        alone = training(case, [seed], [replica], dtype=dtype, device=device)
        (own,) = run(alone)
        for ours, theirs in zip(weights(together, replica), weights(alone, 0), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
        assert result.train_loss[replica] == pytest.approx(own.train_loss[0], abs=1e-4)
        assert result.test_error[replica] == pytest.approx(own.test_error[0], abs=1e-9)
    # Hyperparameters and seeds act: no two replicas end alike.
    for replica in range(1, len(seeds)):
        assert not torch.equal(weights(together, 0)[0], weights(together, replica)[0])


@pytest.mark.parametrize("seeds", [[1, 2, 3], [1, 1, 1], [1, 1, 2]], ids=str)
@pytest.mark.parametrize("case", CASES)
@on_every_device
def test_a_poisoned_replica_leaves_its_neighbours_alone(device: str, case: str, seeds: list[int]) -> None:
    healthy, poisoned = (training(case, seeds, device=device) for _ in range(2))
    poisoned.method.network.f(2).weight.data[1, 0, 0] = torch.nan
    (expected,), (result,) = run(healthy), run(poisoned)
    assert expected.diverged == [False, False, False]
    assert result.diverged == [False, True, False]
    for replica in (0, 2):
        assert all(map(torch.equal, weights(poisoned, replica), weights(healthy, replica)))
        assert result.train_loss[replica] == expected.train_loss[replica]
        assert result.test_error[replica] == expected.test_error[replica]


@pytest.mark.parametrize("case", CASES)
@on_every_device
def test_an_absurd_learning_rate_diverges_alone(device: str, case: str) -> None:
    healthy = training(case, [1, 1, 2], device=device)
    absurd = training(case, [1, 1, 2], device=device, lr=[RATES["lr"][0], 3e38, RATES["lr"][2]])
    run(healthy, 2)
    assert run(absurd, 2)[-1].diverged == [False, True, False]
    for replica in (0, 2):
        assert all(map(torch.equal, weights(absurd, replica), weights(healthy, replica)))


@pytest.mark.parametrize("case", CASES)
@on_every_device
def test_a_seed_repeats_and_another_differs(device: str, case: str) -> None:
    first, again, other = (training(case, seeds, [0], device=device) for seeds in ([1], [1], [2]))
    assert run(first, 2) == run(again, 2)
    run(other, 2)
    assert all(map(torch.equal, weights(first, 0), weights(again, 0)))
    assert not any(map(torch.equal, weights(first, 0), weights(other, 0)))


class Probe(Method):
    """Learns nothing and writes down what the training loop hands it."""

    name = "probe"
    seen: ClassVar[list[tuple[Tensor, Tensor, Tensor]]] = []

    def train_step(self, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        self.seen.append((x, y, noise(y)))
        return self.network(x)


def probed(seeds: list[int], samples: int = 75) -> tuple[Training, Probe]:
    probe = build(Probe, DIMS, seeds, {})
    assert isinstance(probe, Probe)
    Probe.seen = []
    return Training(probe, seeds, split(samples, 1), split(60, 2), batch_size=BATCH), probe


def order_of(batches: Sequence[tuple[Tensor, Tensor, Tensor]], row: int, data: Split) -> list[int]:
    """Which samples the minibatches held, in order."""
    columns = torch.cat([x[row] for x, _, _ in batches], dim=1).T
    return [int((data.x == column).all(1).nonzero().item()) for column in columns]


@pytest.mark.parametrize(("samples", "sizes"), [(75, [32, 32, 11]), (64, [32, 32]), (5, [5])])
def test_every_sample_is_used_once_an_epoch(samples: int, sizes: list[int]) -> None:
    trained, probe = probed([1], samples)
    trained.run_epoch()
    assert [x.shape[-1] for x, _, _ in probe.seen] == sizes
    order = order_of(probe.seen, 0, trained.train)
    assert sorted(order) == list(range(samples))
    labels = torch.cat([y[0] for _, y, _ in probe.seen], dim=1)
    assert torch.equal(labels.argmax(0), trained.train.y[order])
    assert torch.equal(labels.sum(0), torch.ones(samples))


@pytest.mark.parametrize("case", CASES)
def test_the_last_partial_minibatch_trains(case: str) -> None:
    """32 samples and 40 give different weights from the same start: the second update happened."""
    name, options = CASES[case]
    rates = {key: RATES[key][0] for key in METHODS[name].hyperparameters}
    data = split(40, 1)
    method = build(METHODS[name], DIMS, [1], rates, options)
    trained = Training(method, [1], data, data, batch_size=BATCH)
    sizes = []
    step = method.train_step

    def counted(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        before = method.network.f(1).weight.clone()
        logits = step(x, y, noise)
        sizes.append((x.shape[-1], torch.equal(before, method.network.f(1).weight)))
        return logits

    trained.lanes[0].train_step = counted
    run(trained)
    assert sizes == [(32, False), (8, False)]


def test_order_and_noise_belong_to_seed_and_epoch() -> None:
    trained, probe = probed([1, 2])
    trained.run_epoch()
    trained.run_epoch()
    steps = len(probe.seen) // 2
    epochs = probe.seen[:steps], probe.seen[steps:]
    orders = [order_of(epoch, row, trained.train) for epoch in epochs for row in (0, 1)]
    noises = [batch[2][row] for batch in probe.seen for row in (0, 1)]
    for drawn in (orders, [noise.tolist() for noise in noises]):
        assert all(one != other for i, one in enumerate(drawn) for other in drawn[:i])
    pooled = torch.cat([noise.flatten() for noise in noises])
    assert pooled.std() == pytest.approx(1, rel=0.1)
    assert pooled.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("seeds", [[1, 1, 2, 2], [1, 1, 1]], ids=str)
def test_replicas_of_a_seed_share_minibatch_and_noise(seeds: list[int]) -> None:
    trained, probe = probed(seeds)
    trained.run_epoch()
    for drawn in (tensor for step in probe.seen for tensor in step):
        assert drawn.shape[0] == len(seeds)
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2]) == (len(set(seeds)) == 1)


def test_train_loss_is_the_mean_before_each_update() -> None:
    trained = training("bp", [1], train=split(20, 1))
    before = trained.method.network(trained.train.x.T[None])[0].T
    expected = functional.cross_entropy(before, trained.train.y).item()
    (result,) = run(trained)
    assert result.epoch == 1
    assert result.train_loss == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("case", ["bp", "dtp-bn", "fw-dtp-bn"])
def test_evaluation_takes_256_samples_at_a_time_in_order(case: str) -> None:
    test = split(2 * EVALUATION_BATCH + 30, 3)
    trained = training(case, [1, 2, 3], test=test)
    network = trained.method.network
    inputs: list[Tensor] = []
    network.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    error, finite = trained.evaluate()
    assert EVALUATION_BATCH == 256
    assert [x.shape for x in inputs] == [(1, DIMS[0], 256), (1, DIMS[0], 256), (1, DIMS[0], 30)]
    assert torch.equal(torch.cat([x[0] for x in inputs], dim=1), test.x.T)

    wrong = torch.zeros(3)
    encoders = [network.f(l) for l in range(1, len(DIMS))]
    for x, y in zip(test.x.split(256), test.y.split(256), strict=True):
        for replica in range(3):
            h = x
            for encoder in encoders:
                h = h @ encoder.weight[replica].T
                h = torch.tanh(h) if encoder is not encoders[-1] else h
                if case == "fw-dtp-bn" or (case == "dtp-bn" and encoder is not encoders[-1]):
                    h = (h - h.mean(0)) / (h.std(0) + 1e-12)
            wrong[replica] += (h.argmax(1) != y).sum()
    assert error.tolist() == pytest.approx((100 * wrong / len(test)).tolist())
    assert finite.tolist() == [True, True, True]


@pytest.mark.parametrize("case", CASES)
def test_only_learned_feedback_is_pretrained(case: str) -> None:
    trained = training(case, [1, 2])
    network, before = trained.method.network, (weights(training(case, [1, 2]), 0))
    epochs = 2 if case in LEARNED else 0
    assert trained.method.pretraining == epochs == -trained.epoch
    for _ in range(epochs):
        assert trained.run_epoch() is None
    changed = [not torch.equal(a, b) for a, b in zip(before, weights(trained, 0), strict=True)]
    decoders = len(changed) - network.depth
    assert changed == [False] * network.depth + [epochs > 0] * decoders
    result = trained.run_epoch()
    assert result is not None
    assert result.epoch == trained.epoch == 1
    changed = [not torch.equal(a, b) for a, b in zip(before, weights(trained, 0), strict=True)]
    assert changed == [True] * network.depth + [epochs > 0] * decoders


@pytest.mark.parametrize("case", LEARNED)
def test_pretraining_lasts_as_many_epochs_as_there_are_updates(case: str) -> None:
    name, options = CASES[case]
    assert METHODS[name].options["feedback_updates"] == 5
    for updates in (1, 5):
        assert METHODS[name].pretraining_epochs({**options, "feedback_updates": updates}) == updates


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_resuming_is_bit_identical(case: str, stop: int) -> None:
    """For the learned decoders the first stop falls into pre-training, the second at its end."""
    seeds = [1, 1, 2]
    through = training(case, seeds)
    expected = [through.run_epoch() for _ in range(4)]

    first = training(case, seeds)
    results = [first.run_epoch() for _ in range(stop)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = training(case, seeds)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.completed == stop
    assert second.epoch == stop - second.method.pretraining
    results += [second.run_epoch() for _ in range(4 - stop)]
    assert results == expected
    for replica in range(3):
        assert all(map(torch.equal, weights(second, replica), weights(through, replica)))


@pytest.mark.parametrize("case", CASES)
def test_every_method_learns(case: str) -> None:
    trained = training(case, [1, 2], train=split(400, 1))
    before, _ = trained.evaluate()
    after = torch.tensor(run(trained, 10)[-1].test_error)
    assert (after < before - 10).all()
