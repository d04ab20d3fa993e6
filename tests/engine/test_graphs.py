"""Whole iterations as CUDA graphs, on a GPU where there is one, else on a simulation.

The simulation records the operations of an iteration below autograd and launches them again on the tensors
they were recorded on. Like CUDA, it computes nothing while it records, and refuses what would wait for the
device. What it cannot show is that CUDA accepts every operation, that memory shared by graphs suffices, and
that registered generators draw as they do outside of graphs.
"""

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.engine import execution, replay
from benchmark.engine.build import build
from benchmark.engine.samples import Split
from benchmark.engine.settings import Execution
from benchmark.engine.training import Training
from benchmark.methods import METHODS

DIMS = [10, 8, 7, 4]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bp": ("BP", {}),
    "bp-as-released": ("BP", {"as_released": True}),
    "fa": ("FA", {}),
    "tp": ("TP", {"feedback_updates": 2}),
    "dtp": ("DTP", {"feedback_updates": 2}),
    "dtp-bn": ("DTP", {"feedback_updates": 2, "batch_norm": True}),
    "drl": ("DRL", {"feedback_updates": 2}),
    "l-drl": ("L-DRL", {"feedback_updates": 2}),
    "fw-dtp": ("FW-DTP", {"batch_norm": False}),
    "fw-dtp-bn": ("FW-DTP", {"batch_norm": True}),
}
RATES = {"lr": 0.1, "stepsize": 0.04, "lr_feedback": 0.05, "noise_std": 0.1}
WAITS = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2")


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A stand-in for `torch.cuda.CUDAGraph` while it is recorded."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        bools = [t for t in tree_leaves(args[1:]) if isinstance(t, Tensor) and t.dtype is torch.bool]
        if name in WAITS or (name == "index" and bools):
            raise RuntimeError(f"{name}: not permitted when stream is capturing")
        # What changes a tensor must not do so yet, and returns this very tensor.
        result = args[0] if func._schema.is_mutable else func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, recorded in self.operations:
            result = func(*args, **kwargs)
            if func._schema.is_mutable:
                continue
            known = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if isinstance(t, Tensor)}
            for old, new in zip(tree_leaves(recorded), tree_leaves(result), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() not in known:  # no view
                    old.copy_(new)


def simulated(work: Callable[[], Any], generators: object, pool: object) -> tuple[Recorder, Any]:
    recorder = Recorder()
    with recorder:
        result = work()
    return recorder, result


@pytest.fixture(
    params=[
        "simulated",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    if request.param == "cuda":
        return torch.device("cuda")
    monkeypatch.setattr(execution, "record", simulated)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return torch.device("cpu")


def training(case: str, seeds: list[int], device: torch.device, execution: Execution) -> Training:
    """On 84 samples in minibatches of 32, 32 and 20, and evaluated on 300 in two of 256 and 44."""
    name, options = CASES[case]
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(384, DIMS[0], generator=draw).to(device)
    y = torch.randint(DIMS[-1], (384,), generator=draw).to(device)
    rates = {key: RATES[key] for key in METHODS[name].hyperparameters}
    return Training(
        build(METHODS[name], DIMS, seeds, rates, options, device=device),
        seeds,
        Split(x[:84], y[:84]),
        Split(x[84:], y[84:]),
        batch_size=32,
        execution=execution,
    )


def assert_alike(device: torch.device, ours: Tensor, theirs: Tensor) -> None:
    """To the bit in the simulation; a GPU may choose other kernels."""
    tolerance = 0.0 if device.type == "cpu" else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("seeds", [[1, 2], [1, 1], [1, 1, 2]], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_graphed_epochs_are_eager_ones(case: str, seeds: list[int], device: torch.device) -> None:
    eager, graphed = (training(case, seeds, device, how) for how in (Execution.EAGER, Execution.GRAPHED))
    for _ in range(4 + eager.method.pretraining):
        expected, result = eager.run_epoch(), graphed.run_epoch()
        for ours, theirs in zip(
            graphed.method.network.parameters(), eager.method.network.parameters(), strict=True
        ):
            assert_alike(device, ours, theirs)
        assert (result is None) == (expected is None)
        if result is not None and expected is not None:
            assert result.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
            assert result.test_error == expected.test_error
    assert graphed.execution is Execution.GRAPHED
    (lane,) = graphed.lanes
    assert lane.graphs is not None
    names = ["_train_on", "_evaluate_on", *(["_pretrain_on"] if eager.method.pretraining else [])]
    # Of each function the full minibatch and the last one.
    assert sorted(name for name, _ in lane.graphs.recorded) == sorted(2 * names)


@pytest.mark.parametrize("case", ["dtp", "fw-dtp-bn"])
def test_a_seeds_stream_does_not_depend_on_who_shares_the_pass(case: str, device: torch.device) -> None:
    together = training(case, [1, 2, 3], device, Execution.GRAPHED)
    alone = training(case, [2], device, Execution.GRAPHED)
    for each in (together, alone):
        while each.epoch < 3:
            each.run_epoch()
    for ours, theirs in zip(
        together.method.network.parameters(), alone.method.network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours[1], theirs[0], rtol=0, atol=1e-5)


def test_a_graphed_run_goes_on_from_its_state(device: torch.device) -> None:
    whole, first, second = (training("dtp", [1, 2], device, Execution.GRAPHED) for _ in range(3))
    for _ in range(6):
        expected = whole.run_epoch()
    for _ in range(4):
        first.run_epoch()
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        result = second.run_epoch()
    assert result is not None
    assert expected is not None
    assert result.test_error == expected.test_error
    for ours, theirs in zip(
        second.method.network.parameters(), whole.method.network.parameters(), strict=True
    ):
        assert_alike(device, ours, theirs)


def test_recording_computes_nothing(device: torch.device) -> None:
    total = torch.zeros(2, device=device)
    given = torch.ones(2, device=device)
    record = execution.record(lambda: total.add_(given), [], torch.cuda.graph_pool_handle())
    assert total.tolist() == [0, 0]
    record[0].replay()
    assert total.tolist() == [1, 1]


def test_what_waits_for_the_device_cannot_be_recorded(device: torch.device) -> None:
    if device.type == "cuda":
        pytest.skip("a failed capture disturbs the tests after it")
    total = torch.ones(2)
    for waits in (lambda: total.sum().item(), lambda: total[total > 0], lambda: bool(total.any())):
        with pytest.raises(RuntimeError, match="capturing"):
            execution.record(waits, [], None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_launch_draws_where_the_generator_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the recording stream is late, as on a busy GPU."""
    cycles = 200_000_000  # about a tenth of a second
    begin = torch.cuda.CUDAGraph.capture_begin

    def late(graph: torch.cuda.CUDAGraph, *given: Any, **more: Any) -> None:
        torch.cuda._sleep(cycles)  # on the stream that is about to record
        begin(graph, *given, **more)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", late)
    generator, drawn = torch.Generator("cuda").manual_seed(1), torch.empty(8, device="cuda")

    def draw() -> None:
        torch.cuda._sleep(4 * cycles)  # what comes late is in time to disturb the draw
        drawn.normal_(generator=generator)

    draw()
    graph, _ = execution.record(draw, [generator], None)
    launched = []
    for _ in range(2):
        graph.replay()
        launched.append(drawn.clone())
    generator.manual_seed(1)
    expected = [torch.empty(8, device="cuda").normal_(generator=generator) for _ in range(3)]
    assert all(map(torch.equal, launched, expected[1:]))


def test_recording_registers_generators_and_shares_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which torch wants them: generators before the capture, the work within, then no launch
    before what the capture has set on a stream of its own."""
    done: list[Any] = []

    class Newer:
        """torch's CUDAGraph once it has lost what 2.15 calls deprecated."""

    class Graph(Newer):
        def register_generator_state(self, generator: torch.Generator) -> None:
            done.append(generator)
            gone = "is deprecated, and will be removed in a future PyTorch release."
            warnings.warn(f"CUDAGraph.register_generator_state() {gone}", FutureWarning, stacklevel=1)

    @contextmanager
    def capture(graph: Newer, pool: object) -> Iterator[None]:
        done.append(("begin", pool))
        yield
        done.append("end")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("synchronized"))
    generators = [torch.Generator(), torch.Generator()]
    recording = [("begin", "pool"), "work", "end", "synchronized"]
    with warnings.catch_warnings(action="error"):
        graph, result = execution.record(lambda: done.append("work") or 7, generators, "pool")
    assert isinstance(graph, Graph)
    assert result == 7
    assert done == [*generators, *recording]
    done.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Newer)
    execution.record(lambda: done.append("work"), generators, "pool")
    assert done == recording


@pytest.mark.parametrize("execution", [Execution.EAGER, Execution.GRAPHED])
def test_a_training_gives_its_memory_back_at_once(execution: Execution, device: torch.device) -> None:
    """Without the garbage collector, which knows nothing of a GPU's memory."""
    gc.collect()
    gc.disable()
    try:
        trained = training("dtp", [1, 2], device, execution)
        for _ in range(4):
            trained.run_epoch()
        gone = weakref.ref(trained)
        del trained
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_within_an_epoch_nothing_waits_for_the_device(case: str) -> None:
    trained = training(case, [1, 2], torch.device("cuda"), Execution.GRAPHED)
    while trained.epoch < 2:
        trained.run_epoch()
    iterations = trained.iterations()
    next(iterations)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in iterations:
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["bp", "fa", "tp", "dtp", "dtp_bn", "drl", "l_drl", "fw_dtp", "fw_dtp_bn"])
def test_traces_pass_through_graphs(name: str, device: torch.device, request: pytest.FixtureRequest) -> None:
    trace = request.path.parents[1] / "reference_traces" / f"{name}.npz"
    deviation = replay.replay(trace, device, execution=Execution.GRAPHED)
    assert deviation.steps == 3  # the third is launched as a graph
    assert not deviation.exceeds(1e-5), deviation.largest
