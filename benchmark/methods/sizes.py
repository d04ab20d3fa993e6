"""The sizes and constants of networks that plans and tables need. Imports no torch."""

from collections.abc import Sequence
from itertools import pairwise

DECODER_INIT = 0.01
"""Decoders start uniform in (-0.01, 0.01): section "Weak and Strict Conditions"."""


def weight_count(dims: Sequence[int]) -> int:
    """Number of encoder weights of a network with the given widths."""
    return sum(width * out for width, out in pairwise(dims))
