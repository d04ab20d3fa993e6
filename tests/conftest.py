"""What the tests share."""

import signal

import pytest

from benchmark.config import load_datasets
from benchmark.datasets import load
from benchmark.samples import Dataset, Split

MINI = "fashion-mnist-mini"

# Ctrl-C is tested; below a shell's background job it would be ignored, here and in whatever the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data() -> Dataset:
    """The first 600 samples of each split of the data set that ships."""
    full = load(MINI, load_datasets()[MINI])
    train, test = (Split(part.x[:600], part.y[:600]) for part in (full.train, full.test))
    return Dataset(MINI, train, test, full.source, full.checksum)
