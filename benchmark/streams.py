"""Random streams: what a seed draws, independent of who shares the pass and of where a run was interrupted.

Every draw belongs to a (seed, purpose, epoch) triple and gets a fresh generator. Nothing random
therefore needs to be checkpointed, and a replica's numbers depend on its own seed alone.
"""

from __future__ import annotations

import numpy as np
import torch

PURPOSES = ("encoders", "feedback", "order", "noise", "pretraining order", "pretraining noise")


def generator(seed: int, purpose: str, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one (seed, purpose, epoch); `purpose` is one of `PURPOSES`."""
    state = np.random.SeedSequence([seed, PURPOSES.index(purpose), epoch]).generate_state(1)
    return torch.Generator(device).manual_seed(int(state[0]))
