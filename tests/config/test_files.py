"""How files merge, and what YAML's texts and numbers become."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.common.errors import UserError
from benchmark.config import dump_yaml, merge, read_yaml
from benchmark.config.files import read_dumped

LEAVES = st.one_of(st.integers(), st.booleans(), st.text(max_size=3), st.lists(st.integers()))


def mappings(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = st.sampled_from("abc")
    return st.dictionaries(
        keys,
        st.recursive(leaves, lambda below: st.dictionaries(keys, below, max_size=3), max_leaves=8),
        max_size=3,
    )


PLAIN = mappings(LEAVES)
DELTAS = mappings(st.one_of(st.none(), LEAVES))
fast = settings(max_examples=80, deadline=None, derandomize=True, database=None)


def without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(below) for key, below in value.items() if below is not None}


@fast
@given(PLAIN)
def test_merge_has_the_empty_mapping_as_identity(mapping: dict[str, Any]) -> None:
    assert merge({}, mapping) == mapping
    assert merge(mapping, {}) == mapping
    assert merge(mapping, mapping) == mapping


@fast
@given(DELTAS)
def test_merge_into_nothing_only_removes_nulls(delta: dict[str, Any]) -> None:
    assert merge({}, delta) == without_nulls(delta)


@fast
@given(PLAIN, DELTAS)
def test_merge_is_idempotent_and_leaves_its_arguments_alone(
    base: dict[str, Any], delta: dict[str, Any]
) -> None:
    before = repr((base, delta))
    once = merge(base, delta)
    assert merge(once, delta) == once
    assert without_nulls(once) == once
    assert repr((base, delta)) == before


@fast
@given(PLAIN, DELTAS)
def test_merge_key_by_key(base: dict[str, Any], delta: dict[str, Any]) -> None:
    merged = merge(base, delta)
    for key in {*base, *delta, *merged}:
        if key not in delta:
            assert merged[key] == base[key]
        elif delta[key] is None:
            assert key not in merged
        elif not isinstance(delta[key], dict):
            assert merged[key] == delta[key]
        else:
            below = base.get(key)
            assert merged[key] == merge(below if isinstance(below, dict) else {}, delta[key])


def test_merge_keeps_the_order_of_the_base() -> None:
    assert list(merge({"a": 1, "b": 2}, {"c": 3, "a": 4})) == ["a", "b", "c"]


def test_a_null_that_has_nothing_to_remove() -> None:
    assert merge({}, {"a": {"b": None}}) == {"a": {}}
    assert merge({"a": 1}, {"a": {"b": None, "c": 1}}) == {"a": {"c": 1}}
    assert merge({"a": 1}, {"b": None}) == {"a": 1}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E+1", 20.0), (".5e1", 5.0), ("1.e2", 100.0)])
def test_scientific_notation_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    file = tmp_path / "number.yaml"
    file.write_text(f"lr: {text}\n")
    assert read_yaml(file) == {"lr": value}


@pytest.mark.parametrize(
    "key", ["52e313178707", "1e5", "0x10", "1_000", "true", "2026-11-23", "7518068c4846"]
)
def test_a_text_comes_back_as_the_same_text(tmp_path: Path, key: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml({"key": key}))
    assert read_yaml(file) == read_dumped(file) == {"key": key}


@fast
@given(mappings(st.one_of(LEAVES, st.text(), st.floats(allow_nan=False), st.dates())))
def test_what_is_dumped_is_read_back(content: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_text(dump_yaml(content), encoding="utf-8")
        assert read_dumped(file) == read_yaml(file) == content


@pytest.mark.parametrize(
    "text", ["a: *nowhere\n", "a: [1\n", "a: 1\na: 2\n", "&r {a: *r}\n", "a:\n\tb: 1\n", "a: 1\n--- 2\n"]
)
def test_both_readers_say_the_same(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="not valid YAML") as ours:
        read_yaml(file)
    with pytest.raises(UserError) as theirs:
        read_dumped(file)
    assert ours.value.args == theirs.value.args
