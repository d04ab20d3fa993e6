"""Random streams: what a seed draws, independent of who shares the pass and of where a run was interrupted.

Every draw belongs to a (seed, purpose, epoch) triple and gets a fresh generator. Nothing random
therefore needs to be checkpointed, and a replica's numbers depend on its own seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from benchmark.common.errors import UserError

PURPOSES = ("encoders", "feedback", "order", "noise", "pretraining order", "pretraining noise", "state")


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator for one (seed, purpose, epoch); `purpose` is one of `PURPOSES`."""
    return restart(torch.Generator(), seed, purpose, epoch)


def restart(generator: torch.Generator, seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """Set a generator of any device to the start of the stream of one (seed, purpose, epoch)."""
    state = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch]).generate_state(1)
    return generator.manual_seed(int(state[0]))


@contextmanager
def unused_global_generator(who: str, instead: str) -> Iterator[None]:
    """`UserError` if what runs draws from torch's global generator (the CPU's), which knows of no seed."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        raise UserError(f"{who} draws from torch's global generator, so that no seed repeats; use {instead}")
