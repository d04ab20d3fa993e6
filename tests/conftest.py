"""What the tests share."""

import pytest

from benchmark.config import load_datasets
from benchmark.datasets import Dataset, Split, load

MINI = "fashion-mnist-mini"


@pytest.fixture(scope="session")
def data() -> Dataset:
    """The first 600 samples of each split of the data set that ships."""
    full = load(MINI, load_datasets()[MINI])
    train, test = (Split(part.x[:600], part.y[:600]) for part in (full.train, full.test))
    return Dataset(MINI, train, test, full.source, full.checksum)
