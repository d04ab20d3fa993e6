"""Held-out samples."""

import pytest
import torch

from benchmark.common.errors import UserError
from benchmark.engine.samples import Dataset


@pytest.mark.parametrize("samples", [0, 600])
def test_too_few_or_too_many_validation_samples(data: Dataset, samples: int) -> None:
    with pytest.raises(UserError, match=f"{samples} validation samples asked for, 1 to 599 of its 600"):
        data.hold_out(samples)


def test_hold_out_takes_the_last_training_samples(data: Dataset) -> None:
    held_out = data.hold_out(100)
    for name in ("x", "y"):
        assert torch.equal(getattr(held_out.test, name), getattr(data.train, name)[500:])
        assert torch.equal(getattr(held_out.train, name), getattr(data.train, name)[:500])
    assert (held_out.name, held_out.checksum) == (data.name, data.checksum)
