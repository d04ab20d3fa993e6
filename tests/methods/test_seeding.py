"""Every (seed, purpose, epoch) has a stream of its own, the same one every time."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.methods import seeding

TRIPLES = st.tuples(st.integers(0, 2**31), st.sampled_from(seeding.PURPOSES), st.integers(0, 500))


def draw(triple: tuple[int, str, int]) -> torch.Tensor:
    return torch.randn(8, generator=seeding.generator(*triple))


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(TRIPLES, TRIPLES)
def test_equal_triples_and_only_they_draw_alike(
    one: tuple[int, str, int], other: tuple[int, str, int]
) -> None:
    first = draw(one)
    assert torch.equal(first, draw(one))
    assert torch.equal(first, draw(other)) == (one == other)


def test_no_two_streams_of_the_papers_runs_coincide() -> None:
    triples = list(itertools.product(range(1, 6), seeding.PURPOSES, range(1, 12)))
    drawn = {tuple(draw(triple).tolist()) for triple in triples}
    assert len(drawn) == len(triples)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    before = draw((1, "noise", 2))
    assert torch.equal(torch.randn(4), expected)
    assert torch.equal(draw((1, "noise", 2)), before)


def test_an_unknown_purpose_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        seeding.generator(1, "breakfast")
