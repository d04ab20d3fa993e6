"""The compiled iteration computes what the eager one computes."""

import logging
import signal
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from benchmark.engine.build import build
from benchmark.engine.execution import WORTHWHILE, Compiled, execution
from benchmark.engine.samples import Split
from benchmark.engine.settings import Compile, Execution
from benchmark.engine.training import Training
from benchmark.methods import METHODS

DIMS = [12, 8, 4]
RATES = {"lr": 0.3, "stepsize": 0.05, "lr_feedback": 0.02, "noise_std": 0.1}
CPU = torch.device("cpu")


def split(samples: int, seed: int) -> Split:
    draw = torch.Generator().manual_seed(seed)
    return Split(
        torch.randn(samples, DIMS[0], generator=draw),
        torch.randint(DIMS[-1], (samples,), generator=draw),
    )


def trained(name: str, *, compiled: bool, epochs: int = 2) -> Training:
    values = {p: [RATES[p], 2 * RATES[p]] for p in METHODS[name].hyperparameters}
    training = Training(
        build(METHODS[name], DIMS, [1, 2], values, {"feedback_updates": 1} if name == "DTP" else {}),
        [1, 2],
        split(84, 1),
        split(40, 2),
        batch_size=32,
        execution=Execution.COMPILED if compiled else Execution.EAGER,
    )  # 84 = 32 + 32 + 20: the last minibatch is a partial one
    while training.epoch < epochs:
        training.run_epoch()
    return training


@pytest.mark.parametrize("name", ["DTP", "FW-DTP"])  # compiling takes long; `replay --compile on` tries all
def test_compiled_agrees_with_eager(name: str) -> None:
    eager, fast = (trained(name, compiled=compiled) for compiled in (False, True))
    assert fast.execution is Execution.COMPILED
    for (key, ours), theirs in zip(
        fast.method.network.state_dict().items(), eager.method.network.state_dict().values(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-5), key


def test_a_missing_gpu_is_no_news() -> None:
    Compiled(CPU, 1)
    loud = logging.getLogger("torch.utils.cpp_extension")
    texts = ["No CUDA runtime is found, using CUDA_HOME='/usr/local'", "The compiler is too old"]
    records = [loud.makeRecord(loud.name, logging.WARNING, "", 1, text, (), None) for text in texts]
    assert [bool(loud.filter(record)) for record in records] == [False, True]


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_triton_is_loaded(
    monkeypatch: pytest.MonkeyPatch, stop: signal.Signals, handler: Callable[..., None]
) -> None:
    """An exception inside triton's C++, which defines enumerations, would abort the process."""
    loaded = []

    def load() -> None:
        signal.raise_signal(stop)
        signal.raise_signal(stop)  # of someone without patience
        loaded.append(stop)

    monkeypatch.setattr(torch.compiler, "reset", load)
    before = signal.signal(stop, handler)
    try:
        if handler is signal.SIG_IGN:
            Compiled(CPU, 1)
        else:
            with pytest.raises(KeyboardInterrupt):
                Compiled(CPU, 1)
        assert signal.getsignal(stop) is handler
    finally:
        signal.signal(stop, before)
    assert loaded == [stop]


def test_an_ignored_interrupt_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: heard.append(number)),
    }
    monkeypatch.setattr(torch.compiler, "reset", lambda: [signal.raise_signal(stop) for stop in before])
    try:
        Compiled(CPU, 1)
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
    assert heard == [signal.SIGTERM]


def test_without_a_compiler_it_says_so_and_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no C++ compiler")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **options: compile(step, backend=broken))
    with pytest.warns(UserWarning, match="not compiled, training goes on without") as warned:
        fast = trained("DTP", compiled=True)
    assert len([w for w in warned if "not compiled" in str(w.message)]) == 1
    eager = trained("DTP", compiled=False)
    for ours, theirs in zip(fast.method.network.parameters(), eager.method.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_interrupted_it_goes_on_bit_for_bit() -> None:
    whole = trained("FW-DTP", compiled=True)
    broken = trained("FW-DTP", compiled=True, epochs=1)
    after = trained("FW-DTP", compiled=True, epochs=0)
    after.load_state_dict(broken.state_dict())
    after.run_epoch()
    assert after.execution is Execution.COMPILED
    for ours, theirs in zip(
        after.method.network.parameters(), whole.method.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_tenth_run_of_a_process_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **options: compile(step, backend=counter))
    for number in range(1, 11):
        trained("BP", compiled=True, epochs=1)
        assert counter.frame_count == number


@pytest.mark.parametrize(
    ("setting", "multiply_adds", "device", "expected"),
    [
        (Compile.AUTO, WORTHWHILE, "cpu", Execution.COMPILED),
        (Compile.AUTO, WORTHWHILE / 2, "cpu", Execution.EAGER),
        (Compile.AUTO, None, "cpu", Execution.EAGER),
        (Compile.AUTO, WORTHWHILE, "cuda", Execution.GRAPHED),
        (Compile.AUTO, None, "cuda", Execution.GRAPHED),
        (Compile.ON, 1.0, "cpu", Execution.COMPILED),
        (Compile.ON, None, "cuda", Execution.COMPILED),
        (Compile.OFF, WORTHWHILE, "cpu", Execution.EAGER),
        (Compile.OFF, WORTHWHILE, "cuda", Execution.EAGER),
    ],
)
def test_how_a_run_is_executed(
    setting: Compile, multiply_adds: float | None, device: str, expected: Execution
) -> None:
    assert execution(setting, multiply_adds, torch.device(device)) is expected
