"""A patch of a plan's file: one cell's hyperparameters, everything else as it is written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmark.config import PROJECT, dump_yaml, merge, parse_yaml
from benchmark.errors import UserError


def plan_patch(file: Path, row: str, column: str, entry: Mapping[str, Any]) -> str:
    """A unified diff that sets `rows.<row>.hyperparameters.<column>` of a plan's file to `entry`.

    `UserError` where the file has no such row of its own, or cannot have this cell alone changed.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        before = stream.read()
    after = _with_cell(before, file, row, column, entry)
    inside = file.resolve().is_relative_to(PROJECT)
    name = file.resolve().relative_to(PROJECT).as_posix() if inside else file.name
    lines = difflib.unified_diff(_lines(before), _lines(after), f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)  # `splitlines` knows more ends of a line than patch does


def _with_cell(text: str, file: Path, row: str, column: str, entry: Mapping[str, Any]) -> str:
    """The file's text with the cell set; a cell that is not there goes behind the row's last one."""
    cells = _cells(text, row)
    if cells is None:
        raise UserError(
            f"{file}: no entry rows.{row}.hyperparameters to patch; search in the plan that has it"
        )
    written = next((value for key, value in cells.value if key.value == column), None)
    newline = "\r\n" if "\r\n" in text else "\n"
    if written is not None:
        start, end, new = written.start_mark.index, _end(text, written), _flow(entry)
        new = f" {new}" if start == end else new  # `mnist:`
    else:
        new = _flow({column: entry})[1:-1]
        if not cells.value:
            start = cells.start_mark.index + 1
        elif cells.flow_style:
            start, new = _end(text, cells.value[-1][1]), f", {new}"
        else:
            start = (text + newline).index(newline, _end(text, cells.value[-1][1]))  # behind a comment
            new = f"{newline}{' ' * cells.value[-1][0].start_mark.column}{new}"
        end = start
    changed = text[:start] + new + text[end:]

    def at(value: Any) -> dict[str, Any]:
        return {"rows": {row: {"hyperparameters": {column: value}}}}

    expected = merge(merge(parse_yaml(text, file), at(None)), at(entry))
    try:
        alone = parse_yaml(changed, file) == expected
    except UserError:
        alone = False
    if not alone:
        raise UserError(
            f"{file}: rows.{row}.hyperparameters.{column} cannot be changed alone in the way it is written "
            "(with an alias, for example); write the row's values out, a line a data set"
        )
    return changed


def _cells(text: str, row: str) -> yaml.MappingNode | None:
    """The mapping `rows.<row>.hyperparameters`."""
    node = yaml.compose(text)
    for name in ("rows", row, "hyperparameters"):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    return node if isinstance(node, yaml.MappingNode) else None


def _flow(content: Mapping[str, Any]) -> str:
    """In one line, `{...}`."""
    return dump_yaml(dict(content), one_line=True).strip()


def _end(text: str, node: yaml.Node) -> int:
    """Where its text ends; PyYAML ends a block with what follows, comments included, or with a line's end."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    start = node.start_mark.index
    return start + len(text[start : node.end_mark.index].rstrip())
