"""What the tests share."""

import signal
import sys
from collections.abc import Callable

import pytest

from benchmark.config import load_datasets
from benchmark.datasets import load
from benchmark.engine.samples import Dataset, Split
from tests.helpers.commands import MINI, Command

# Ctrl-C is tested; below a shell's background job it would be ignored, here and in whatever the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Dataset:
    """The first 600 samples of each split of the data set that ships."""
    full = load(MINI, load_datasets()[MINI])
    train, test = (Split(part.x[:600], part.y[:600]) for part in (full.train, full.test))
    return Dataset(MINI, train, test, full.source, full.checksum)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """How a program ends that is called with these arguments: exit status, stdout, stderr."""

    def ended(program: Callable[[], object], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        with pytest.raises(SystemExit) as end:
            program()
        return (int(end.value.code or 0), *capsys.readouterr())

    return ended
