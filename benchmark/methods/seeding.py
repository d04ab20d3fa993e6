"""Random streams: one for each seed, purpose and epoch.

Every stream has a generator of its own. So no generator needs a checkpoint, and a replica's numbers depend on
its own seed alone.
"""

from __future__ import annotations

import numpy as np
import torch

PURPOSES = ("encoders", "feedback", "order", "noise", "pretraining order", "pretraining noise", "state")


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator at the start of one stream. `purpose` is one of `PURPOSES`."""
    return restart(torch.Generator(), seed, purpose, epoch)


def restart(generator: torch.Generator, seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """Set a generator of any device to the start of one stream."""
    state = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch]).generate_state(1)
    return generator.manual_seed(int(state[0]))
